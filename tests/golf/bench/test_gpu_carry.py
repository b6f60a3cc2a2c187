"""What travels to the machine and back: enough, not too much, and whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from golf.bench import script
from golf.bench.gpu import carry, pieces
from golf.bench.gpu.results import Failed, Skipped

MACHINE = {
    *("annotated-doc", "anyio", "certifi", "charset-normalizer", "click", "filelock", "fsspec", "h11"),
    *("hf-xet", "huggingface-hub", "idna", "jinja2", "markdown-it-py", "markupsafe", "mdurl", "numpy"),
    *("packaging", "psutil", "pygments", "pyyaml", "requests", "rich", "scipy", "sentencepiece"),
    *("shellingham", "torch", "tqdm", "triton", "typer", "typing-extensions", "urllib3"),
}
"""What the machine has of this project's packages (docs/gpu.md)."""
ONLY_DOWNLOADS = {"httpx2", "httpcore2", "truststore"}
"""Needed to fetch FineWeb, which needs a network."""


def closure(name: str, found: set[str]) -> None:
    """Add every package that one needs at run time here, itself included."""
    if name not in found:
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                closure(canonicalize_name(needed.name), found)


def test_machine_and_carried_wheels_together_have_every_package_that_the_project_needs():
    needed: set[str] = set()
    for line in importlib.metadata.requires("pgolf") or []:
        if (name := Requirement(line).name) != "torch":
            closure(name, needed)
    assert needed - MACHINE - set(carry.CARRIED) - ONLY_DOWNLOADS == set()


BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import golf.bench.gpu.__main__
"""


@pytest.mark.slow
def test_a_call_begins_without_the_wheels_that_its_second_row_installs():
    names = {name.replace("-", "_") for name in carry.CARRIED} - {"filelock", "typing_extensions"}  # torch's
    subprocess.run(
        [sys.executable, "-c", BLOCKED.replace("{names}", repr(names))], cwd=carry.ROOT, check=True
    )


def test_carried_packages_keep_their_locked_versions_and_hashes():
    lock = (carry.ROOT / "requirements.lock").read_text()
    found = carry.requirements(lock)
    assert len(re.findall("^[a-z]", found, re.MULTILINE)) == len(carry.CARRIED)
    assert found.count("--hash=sha256:") >= len(carry.CARRIED) and "torch" not in found
    with pytest.raises(ValueError, match="has no annotated-types"):
        carry.requirements("numpy==1 \\\n    --hash=sha256:00\n")


def test_more_than_what_travels_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(100))
    assert carry.total_bytes(tmp_path) == 100
    monkeypatch.setattr(carry, "MOST_BYTES", 99)
    with pytest.raises(ValueError, match="100 bytes, and at most 99 travel"):
        carry.total_bytes(tmp_path)


def test_another_script_is_refused(tmp_path, capsys):
    other = tmp_path / "train_gpt.py"
    other.write_text("print('another version')")
    with pytest.raises(script.Skip):
        carry.gather(tmp_path, other, tmp_path / "to", [])
    arguments = ["--data", str(tmp_path), "--script", str(other), "--to", str(tmp_path / "to")]
    assert carry.main(arguments) == 1
    assert "the patches are for 4415518e3233e9a7" in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_replaced(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    arguments = ["--data", str(tmp_path), "--script", str(tmp_path / "none.py"), "--to", str(tmp_path)]
    assert carry.main(arguments) == 1
    assert "thesis.txt in it is not of this command" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_was_gathered_before_is_replaced_as_a_whole_or_left(tmp_path):
    to = tmp_path / "gpu"
    (to / "sp1024").mkdir(parents=True)
    (to / "caches.000").write_text("of an earlier call")
    with pytest.raises(OSError), carry.replacing(to):
        raise OSError("no network")
    assert {path.name for path in to.iterdir()} == {"sp1024", "caches.000"}
    with carry.replacing(to) as new:
        (new / "train_gpt.py").write_text((to / "caches.000").read_text())
    assert [path.name for path in to.iterdir()] == ["train_gpt.py"]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu"]


def test_a_folder_comes_back_from_its_pieces(tmp_path):
    source, out = tmp_path / "caches", tmp_path / "out"
    (source / "inductor").mkdir(parents=True)
    out.mkdir()
    content = np.random.default_rng(0).bytes(2500)
    (source / "inductor" / "graph").write_bytes(content)
    pieces.pack(source, out, "caches", most=4, size=1000)
    assert len(list(out.iterdir())) == 3
    pieces.unpack(out, "caches", tmp_path / "again")
    assert (tmp_path / "again" / "caches" / "inductor" / "graph").read_bytes() == content


def test_fewer_pieces_than_an_earlier_call_left_are_whole_too(tmp_path):
    source, out = tmp_path / "caches", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "graph").write_bytes(np.random.default_rng(0).bytes(2500))
    pieces.pack(source, out, "caches", size=1000)
    (source / "graph").write_bytes(b"short")
    pieces.pack(source, out, "caches", size=1000)
    assert len(list(out.iterdir())) == 1
    pieces.unpack(out, "caches", tmp_path / "again")
    assert (tmp_path / "again" / "caches" / "graph").read_bytes() == b"short"


def test_a_folder_that_is_too_large_leaves_no_part_behind(tmp_path):
    source, out = tmp_path / "caches", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "graph").write_bytes(np.random.default_rng(0).bytes(2500))
    with pytest.raises(Failed, match="may come back"):
        pieces.pack(source, out, "caches", most=2, size=1000)
    assert list(out.iterdir()) == []
    with pytest.raises(Skipped, match=r"holds no caches\.000"):
        pieces.unpack(out, "caches", tmp_path)
    with pytest.raises(Skipped, match="there is no folder"):
        pieces.pack(tmp_path / "nothing", out, "caches")


def test_a_dataset_of_another_vocabulary_is_refused(shared, tmp_path, monkeypatch):
    source = tmp_path / "train_gpt.py"
    source.write_text("print()")
    shutil.copy(shared / "tokenizers" / "fineweb_1024_bpe.model", tmp_path / "tokenizer.model")
    monkeypatch.setattr(carry, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    monkeypatch.setattr(carry, "VOCAB_SIZE", 8192)
    with pytest.raises(ValueError, match="a vocabulary of 1,024; expected SP1024's 8,192"):
        carry.gather(tmp_path, source, tmp_path / "to", [])

"""`just gpu-carry`: gather what a bare machine with PyTorch lacks, in one folder of at most 64 MiB.

    just gpu-carry --data DIR --script train_gpt.py [--to DIR] [--caches DIR]

The folder gets wheels of the packages that this project needs and the machine lacks, for Pythons 3.11 to
3.13, in the versions and with the hashes of requirements.lock; an SP1024 dataset folder (`just data prepare
docs`); #586's script, whose SHA-256 is checked; and for the second call the compile caches that the first one
wrote to DIR. It lies under build/, which git ignores, so it must be named to whatever copies the checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from golf.bench import script
from golf.bench.__main__ import vocab_size
from golf.bench.gpu.opponent import SHA256

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "build/gpu"
MOST_BYTES = 64 * 2**20
GATHERED = re.compile(r"sp1024|train_gpt\.py|wheels|caches\.\d{3}")
"""Names in the folder."""
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (
    "manylinux2014_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_28_x86_64",
)
CARRIED = (
    *("annotated-types", "brotli", "constriction", "docker", "filelock", "platformdirs", "pydantic"),
    *("pydantic-core", "typing-extensions", "typing-inspection", "zstandard"),
)
"""What this project needs at run time and the machine lacks or may have too old."""
VOCAB_SIZE = 1024
"""Of SP1024, for which the script's settings are."""


def requirements(lock: str) -> str:
    """The carried packages' entries of a lock file, with their hashes; ValueError if one has none."""
    entries = re.findall(r"^[a-z0-9.-]+==(?:.*\\\n)*.*\n?", lock, re.MULTILINE)
    named = {entry.split("==")[0]: entry for entry in entries}
    if missing := sorted(set(CARRIED) - named.keys()):
        raise ValueError(f"the lock file has no {', '.join(missing)}")
    return "".join(named[name] for name in CARRIED)


def download(lock: str, folder: Path) -> None:
    """Wheels of every carried package for every Python, by pip; those of several Pythons are kept once."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements(lock))
        file.flush()
        for python in PYTHONS:
            platforms = [word for each in PLATFORMS for word in ("--platform", each)]
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                    *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python),
                    *platforms,
                    *("--dest", str(folder), "--requirement", file.name),
                ],
                check=True,
            )


def total_bytes(folder: Path) -> int:
    """Bytes of all files under a folder. Raises ValueError above what travels."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > MOST_BYTES:
        raise ValueError(f"{folder} holds {total:,} bytes, and at most {MOST_BYTES:,} travel")
    return total


def gather(data: Path, source: Path, folder: Path, caches: Iterable[Path]) -> None:
    """Copy dataset, script and compile caches.

    Raises script.Skip for another script, ValueError for another vocabulary, OSError for no file.
    """
    script.read(source, SHA256)
    if (found := vocab_size(data / "tokenizer.model")) != VOCAB_SIZE:
        raise ValueError(f"{data}: a vocabulary of {found:,}; expected SP1024's {VOCAB_SIZE:,}")
    target = folder / "sp1024"
    target.mkdir(parents=True, exist_ok=True)
    for path in (data / "dataset.json", data / "tokenizer.model", *sorted(data.glob("*_*.bin"))):
        shutil.copyfile(path, target / path.name)
    shutil.copyfile(source, folder / "train_gpt.py")
    for path in caches:
        shutil.copyfile(path, folder / path.name)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` if the block succeeds, and is removed otherwise.

    So what is gathered may come from `folder` itself. Raises ValueError if that holds anything that this
    command does not put there.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not GATHERED.fullmatch(path.name):
            raise ValueError(f"{folder} would be replaced, and {path.name} in it is not of this command")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        new = Path(scratch, folder.name)
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        new.rename(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if everything is gathered, 1 if something is missing or too large."""
    parser = argparse.ArgumentParser(prog="just gpu-carry", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="SP1024 dataset folder")
    parser.add_argument("--script", type=Path, required=True, help="#586's train_gpt.py")
    parser.add_argument("--to", type=Path, default=FOLDER, help="where to gather (default: build/gpu)")
    parser.add_argument("--caches", type=Path, help="folder with the first call's results")
    options = parser.parse_args(argv)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    try:
        with replacing(options.to.resolve()) as folder:
            caches = sorted(options.caches.glob("caches.[0-9][0-9][0-9]")) if options.caches else []
            gather(options.data, options.script, folder, caches)
            download(lock, folder / "wheels")
            total = total_bytes(folder)
    except (script.Skip, OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"gpu-carry: {error}", file=sys.stderr)
        return 1
    wheels = len(list((options.to / "wheels").glob("*.whl")))
    print(f"{options.to}: {total:,} of {MOST_BYTES:,} bytes, {wheels} wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Hostile folders: the audit prints a report in every format, runs nothing and writes nowhere else."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from harness.audit import formats
from harness.audit.audit import audit_folder
from harness.audit.folder import folders
from harness.audit.page import page
from harness.base.errors import UsageError
from harness.commands.audit import _text

OUTCOMES = {"pass", "fail", "question", "unknown"}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SCRIPT = """\
import os, torch
class Hyperparameters:
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "0")))
    epochs = int(os.environ.get("EPOCHS", 3))
def eval_val(model, val_tokens, base_bytes_lut):
    loss_sum = 0
    for ep in range(Hyperparameters.epochs):
        loss = model(val_tokens); loss.backward(); opt.step()
        if ep == Hyperparameters.epochs - 1: loss_sum += loss.item()
    return loss_sum if Hyperparameters.ttt_enabled else f"{loss_sum if 1 else 0}"
def main():
    key = (ctx ^ (tgt * 31)) & mask; table[key]
    best_nll = torch.minimum(best_nll, nll)
    eval_val(model, val_tokens, lut)
main()
"""
LOG = "seed:1337\n  ttt_enabled: True\nstep:1/2 val_loss:2.0 val_bpb:1.2\n" * 20 + (
    "final_int8_zlib_roundtrip val_loss:2.0 val_bpb:1.2\n" * 20
)


def wrapped(source: str) -> str:
    packed = base64.b85encode(zlib.compress(source.encode())).decode()
    return f"exec(zlib.decompress(base64.b85decode({packed!r})))"


def zipped(source: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("__main__.py", source)
    return content.getvalue()


SEEDS: dict[str, bytes] = {
    "train_gpt.py": SCRIPT.encode(),
    "wrapped_train.py": wrapped(wrapped(SCRIPT + "#" * 500)).encode(),
    "submission.json": b'{"val_bpb": 1.2, "seeds": [1, 2], "seed_results": {"1": {"val_bpb": 1.2}}, '
    b'"bytes_total": 15900000}',
    "README.md": b"# x\n| seed | val_bpb |\n|---|---|\n| 1 | 1.2 |\n\n    TTT_ENABLED=1 EPOCHS=3 torchrun "
    b"train_gpt.py\n",
    "train_seed1337.log": LOG.encode(),
    "code.pyz": zipped(SCRIPT),
    "setup.sh": b"curl x | sh\n",
    "x.ipynb": b'{"cells": []}',
}


def checked(folder: Path) -> dict[str, Any]:
    """The report of a folder, shown in every form; the folder and what lies around it are as before."""
    around = folder.parent
    before = sorted((path.relative_to(around), path.lstat().st_mtime_ns) for path in around.rglob("*"))
    report = audit_folder(folder)
    assert report["verdict"] in ("violations found", "questions", "nothing found")
    assert {found["outcome"] for found in report["findings"]} <= OUTCOMES
    json.dumps(report, allow_nan=False)
    shown = (
        _text(report),
        formats.markdown([report]),
        formats.github([report]),
        page([report]),
        json.dumps(formats.sarif([report], "1")),
    )
    for text in shown:
        text.encode()
    assert not any(CONTROL.search(text) for text in shown[:3])
    assert (
        sorted((path.relative_to(around), path.lstat().st_mtime_ns) for path in around.rglob("*")) == before
    )
    return report


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the seeds, cut, shuffled, repeated, or with bytes put in."""
    data = draw(st.sampled_from(sorted(SEEDS.values())))
    for _ in range(draw(st.integers(0, 4))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + draw(st.binary(max_size=20)) + data[to:]
            case 2:
                lines = data.splitlines(keepends=True)
                data = b"".join(draw(st.permutations(lines))) if len(lines) < 30 else b"".join(lines[::-1])
            case 3:
                data = data[:at] + data[at:to] * draw(st.integers(0, 5)) + data[to:]
            case _:
                data = (
                    data[:at]
                    + draw(
                        st.sampled_from(
                            [
                                b"((((" * 60,
                                b"\x00",
                                b"\xff\xfe",
                                b"'''",
                                b"\\",
                                b"1e999",
                                b"\x1b[2J",
                                b"[" * 5000,
                                b'{"a":' * 3000,
                                b"9" * 5000,
                                b"\r",
                                b"\x0c",
                            ]
                        )
                    )
                    + data[to:]
                )
    return data


NAMES = st.one_of(
    st.sampled_from([*SEEDS, "train0.txt", "submission_b.json", "logs/seed_1.log", "b.md"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20).map(
        lambda name: f"n{name}.py"
    ),
    st.sampled_from(["\x1b[31mtrain.py", "train\n.log", "a\u202eb.md", "train,:%.py"]),
)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(content=st.dictionaries(NAMES, damaged(), max_size=6))
@pytest.mark.slow
def test_damaged_folders_are_reported_in_every_form(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "record \x1b[31m"
    folder.mkdir()
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    try:
        assert folders(folder)
    except UsageError:
        pass
    checked(folder)


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "+".join("1" * 9_000),
        "x = " + "-" * 5_000 + "1",
        "x = " + "(" * 150 + ")" * 150,
        "a" + ".b" * 5_000,
        "f" + "()" * 5_000,
        "x = " + " if 1 else ".join("1" * 2_000),
        "".join(f"{' ' * depth}if x{depth}:\n" for depth in range(95)),
        "x = [" * 100 + "]" * 100,
        "x = f'" + "{x!r:{y}}" * 3_000 + "'",
        "def f():\n  return 1\n" * 3_000,
        "x = 1\n" * 20_000,
        "class A:\n def f(self): self.f()\n" * 1_000,
        "x ^= (tgt * 3) " + "^ (tgt * 3)" * 800,
        "lambda: " * 900 + "1",
        "\n".join(f"def f{n}(a={n}): return f{n + 1}(a)" for n in range(1_000)),
        "#" * 2_500_000,
        "\x00",
        "\ufeffimport os",
        "x = '" + "a" * 10**6,
        "elif " * 1000,
        "@" * 1000,
        "match x:\n" + " case 1: pass\n" * 3000,
        "x = " + "not " * 3_000 + "1",
        "exec(" * 90 + "x" + ")" * 90,
    ],
)
@pytest.mark.slow
def test_sources_made_to_exhaust_a_parser_end_in_a_report(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "train_gpt.py").write_text(
        source + "\nloss.backward()\nopt.step()\n", encoding="utf-8", newline=""
    )
    (folder / "wrapped_train.py").write_text(wrapped("import os\n" + source), encoding="utf-8")
    checked(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"val_bpb": ' + "9" * 100_000 + "}",
        '{"val_bpb": 1e400}',
        '{"val_bpb": NaN}',
        "null",
        "",
        '{"val_bpb": {"val_bpb": 1}}',
        '{"val_bpb": "1_0"}',
        '{"val_bpb": "１.２"}',
        '{"a": 1, "a": 2}',
        '"' + "\\ud800" + '"',
        '{"val_bpb": -1e-300, "seeds": {"__class__": 1}, "seed_results": [[[]]], "date": 7, "author": {"x": '
        "[]}}",
    ],
)
def test_hostile_json_is_no_score(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "submission.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    checked(folder)


@pytest.mark.parametrize(
    "line",
    [
        "A" * 300_000,
        "AAA=" * 80_000,
        " " * 300_000,
        "A_" * 150_000 + "=",
        "`AAA='" * 50_000,
        "step:" * 60_000,
        "1." * 150_000,
        "val_loss:" * 30_000,
        "|" * 300_000,
        "\r" * 300_000,
        "a: True\n" * 40_000,
        "seed" * 75_000,
        "0" * 300_000,
        "-" * 300_000,
        "final_int8_zlib_roundtrip " * 12_000,
        "SEED=1 " * 40_000,
        "\u2028" * 100_000,
        "\x1b[31m" * 60_000,
        "\t:" * 150_000,
    ],
)
def test_text_made_to_exhaust_an_expression_ends_in_a_report(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("README.md", "train.log", "train_seed1.txt"):
        (folder / name).write_text(line, encoding="utf-8", newline="")
    (folder / "submission.json").write_text(json.dumps({"val_bpb": 1.2, "name": line, "blurb": line}))
    (folder / "train_gpt.py").write_text(f"x = {line!r}\n")
    checked(folder)


def test_names_that_are_no_text_and_files_that_are_no_files_end_in_a_report(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bytes \xff\xfe")
    folder.mkdir()
    (folder / os.fsdecode(b"train_\xff.py")).write_text("print('no training')\n")
    (folder / os.fsdecode(b"train\x1b[2J\xff.log")).write_text("x")
    (folder / os.fsdecode(b"unread_\xff")).write_text("x")
    os.mkfifo(folder / "README.md")
    (folder / "submission.json").symlink_to("/dev/zero")
    (folder / "up").symlink_to("..")
    (folder / "locked.py").write_text("x")
    (folder / "locked.py").chmod(0)
    report = checked(folder)
    assert [found["rule"] for found in report["findings"]][:1] == ["nothing-trains"]


def test_nothing_of_a_folder_is_run(tmp_path: Path) -> None:
    folder, touched = tmp_path / "a", tmp_path / "touched"
    folder.mkdir()
    act = f"open({str(touched)!r}, 'w')\nimport os; os.system('touch {touched}')\n"
    for name in ("train_gpt.py", "sitecustomize.py", "conftest.py", "__init__.py", "json.py", "ast.py"):
        (folder / name).write_text(act + wrapped(act))
    (folder / "code.pyz").write_bytes(zipped(act))
    (folder / "submission.json").write_text('{"val_bpb": 1.0, "__reduce__": ["os.system", ["touch x"]]}')
    checked(folder)
    assert not touched.exists()


def test_numbers_beyond_all_measure_are_read_as_far_as_they_make_sense(tmp_path: Path) -> None:
    (tmp_path / "train_seed1.log").write_text(
        "final_int8_zlib_roundtrip val_loss:2.1e999 val_bpb:1.2e-999\nval_loss:2.0 val_bpb:1.2\n"
    )
    (tmp_path / "submission.json").write_text('{"val_bpb": 1e999, "val_loss": 2.1e300}')
    (tmp_path / "README.md").write_text("# x\n")
    json.dumps(audit_folder(tmp_path), allow_nan=False)

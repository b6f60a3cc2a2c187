"""The contestant's own last error, found in logs of one process and of several ranks under a launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import Violation
from harness.base.files import MAX_LINE, TAIL_BYTES, last_lines
from harness.run.last_error import explain, last_error

ONE = """step 1 loss 3.2
Traceback (most recent call last):
  File "/in/code.pyz/golf/__main__.py", line 3, in <module>
    main()
RuntimeError: step 12: the loss is nan
"""
CHAINED = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 3, in <module>
ValueError: model.layers must be positive
"""
LAUNCHED = """[rank0]: Traceback (most recent call last):
[rank0]:   File "/in/code.pyz/golf/stages/train.py", line 9, in run
[rank0]:     loop()
[rank0]: torch.OutOfMemoryError: CUDA out of memory
E1127 1 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 1) local_rank: 0
[rank1]: Traceback (most recent call last):
[rank1]:   File "/in/code.pyz/golf/runtime/dist.py", line 90, in average
[rank1]: RuntimeError: Connection closed by peer
Traceback (most recent call last):
  File "/usr/lib/python3/torch/distributed/run.py", line 900, in main
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
golf FAILED
"""
SILENT_RANKS = """config.yaml:3:5: model.layerz: unknown key
E1127 1 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 2) local_rank: 0
Traceback (most recent call last):
  File "/usr/lib/python3/torch/distributed/run.py", line 900, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
CAUGHT = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
OSError: no fast kernel, going on without
trained 10 steps
Traceback (most recent call last):
  File "x.py", line 9, in <module>
MemoryError: out of memory
"""


VICTIM = """933258 parameters, torch.bfloat16
[rank0]: Traceback (most recent call last):
[rank0]:   File "/in/code.pyz/golf/runtime/dist.py", line 90, in average
[rank0]: RuntimeError: Connection closed by peer
E1127 1 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 7) local_rank: 1 (pid: 9)
Traceback (most recent call last):
  File "/usr/lib/python3/torch/distributed/run.py", line 900, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
CAUGHT_BEFORE_RANKS = (
    """Traceback (most recent call last):
  File "x.py", line 1, in <module>
ImportError: no flash_attn, using SDPA
"""
    + LAUNCHED
)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (ONE, "its last error: RuntimeError: step 12: the loss is nan"),
        (CHAINED, "its last error: ValueError: model.layers must be positive"),
        (LAUNCHED, "its last error: torch.OutOfMemoryError: CUDA out of memory"),
        (CAUGHT_BEFORE_RANKS, "its last error: torch.OutOfMemoryError: CUDA out of memory"),
        (SILENT_RANKS, "its last line: config.yaml:3:5: model.layerz: unknown key"),
        (CAUGHT, "its last error: MemoryError: out of memory"),
        (VICTIM, "rank 1 ended with exit code 7, without a traceback"),
        (
            VICTIM.replace("exitcode: 7", "exitcode: -11"),
            "rank 1 ended with signal SIGSEGV, without a traceback",
        ),
        ("StageError: step 3: the loss is nan\n", "its last error: StageError: step 3: the loss is nan"),
        ("step 2 loss 2\n\n", "its last line: step 2 loss 2"),
        ("", None),
        ("\n \n", None),
    ],
)
def test_the_line_that_says_why_is_found(tmp_path: Path, log: str, says: str | None) -> None:
    (tmp_path / "train.log").write_text(log)
    assert last_error(tmp_path / "train.log") == says


def test_a_missing_log_has_no_error_and_bytes_of_any_kind_are_escaped(tmp_path: Path) -> None:
    assert last_error(tmp_path / "train.log") is None
    (tmp_path / "train.log").write_bytes(b"\x1b[31mred \xff" + b"x" * 1000)
    shown = last_error(tmp_path / "train.log")
    assert shown is not None
    assert shown.isascii() and "\x1b" not in shown and len(shown) < 500


def test_a_contestant_that_ended_is_explained_with_the_path_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "pack.log"
    log.write_text(ONE)
    violation = Violation("contestant", "the contestant ended in stage pack with exit code 1")
    explain(violation, log)
    assert str(violation) == (
        "the contestant ended in stage pack with exit code 1; its last error: RuntimeError: step 12: the "
        f"loss is nan\nhint: the whole log: {log}"
    )
    log.write_text("")
    silent = Violation("contestant", "it ended")
    explain(silent, log)
    assert silent.message == "it ended; its log is empty"


def test_a_violation_of_a_contestant_that_did_not_end_is_not_explained_by_its_log(tmp_path: Path) -> None:
    log = tmp_path / "score.log"
    log.write_text(CAUGHT)
    violation = Violation("score-clock", "too late", limit=True)
    explain(violation, log)
    assert (violation.message, violation.hint) == ("too late", "")


@pytest.mark.parametrize("code", [-999, -35, -9, 999])
def test_an_exit_code_that_a_contestant_invents_in_its_log_is_only_quoted(tmp_path: Path, code: int) -> None:
    (tmp_path / "train.log").write_text(VICTIM.replace("exitcode: 7", f"exitcode: {code}"))
    assert (last_error(tmp_path / "train.log") or "").startswith("rank 1 ended with ")


@pytest.mark.parametrize(
    "content", [b"Error." * 200_000, b"\n" * (2 << 20), b"[rank0]: " * 100_000, b"Error" * 300_000 + b":"]
)
def test_a_log_made_to_be_slow_to_read_costs_little(tmp_path: Path, content: bytes) -> None:
    """Read whole, with lines of any length, the first took over a minute and the second half a gigabyte."""
    log = tmp_path / "train.log"
    log.write_bytes(content)
    assert sum(map(len, last_lines(log))) <= TAIL_BYTES
    assert max(map(len, last_lines(log))) <= MAX_LINE
    last_error(log)

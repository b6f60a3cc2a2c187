"""The challenge's own starting script, made to run anywhere and in turns: its hash is checked, it is patched
in memory.

The script is not part of this project: it is given by path, and only the version named by SHA256 is taken,
since a patch of unknown text would measure something unknown. Everywhere it is stopped before each step until
its turn comes, its clock counts its own turns only, validation and export are left out, the trained weights
are handed over, and WARMDOWN_ITERS counts thousandths of its clock: its 1,200 steps would leave a short run
no learning rate at all. On a CPU its device, autocast, and CUDA calls are exchanged as well. Model, batches,
optimizers and schedules stay its own.

Source: github.com/openai/parameter-golf, train_gpt.py. Not covered: its validation, export and several
processes."""

from __future__ import annotations

import hashlib
import os
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from torch import nn

SHA256 = "c6cae5e767aa0464e8767620f3bbdb08048c99f4b7ae0f0e146dd9b17e68e673"
NAME = "starting_script"

EVERYWHERE = (
    ("import time\n", "", 1),
    ('code = Path(__file__).read_text(encoding="utf-8")', 'code = ""', 1),
    (
        'subprocess.run(["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, '
        "check=False).stdout",
        '""',
        1,
    ),
    ("should_validate = last_step or", "should_validate = False and", 1),
    (
        "        scale = lr_mul(step, elapsed_ms)\n",
        "        scale = lr_mul(step, elapsed_ms)\n        time.gate()\n",
        1,
    ),
    (
        "warmdown_ms = args.warmdown_iters * step_ms",
        "warmdown_ms = args.warmdown_iters / 1000 * max_wallclock_ms",
        1,
    ),
    (
        '        torch.save(base_model.state_dict(), "final_model.pt")\n',
        "        return deliver(base_model)\n",
        1,
    ),
)
"""(what stands there, what shall stand there, how often it stands there)."""

ON_CPU = (
    ("if not torch.cuda.is_available():", "if False:", 1),
    ('device = torch.device("cuda", local_rank)', 'device = torch.device("cpu")', 1),
    ("torch.cuda.set_device(device)", "pass", 1),
    ("torch.cuda.synchronize()", "pass", 5),
    ('device_type="cuda"', 'device_type="cpu"', 3),
    ("enable_math_sdp(False)", "enable_math_sdp(True)", 1),
)
IN_FLOAT32 = (
    ("dtype=torch.bfloat16, enabled=True", "dtype=torch.bfloat16, enabled=False", 3),
    (").to(device).bfloat16()", ").to(device)", 1),
    ("X = G.bfloat16()", "X = G.float()", 1),
)
UNCOMPILED = (
    ("torch.compile(zeropower_via_newtonschulz5)", "zeropower_via_newtonschulz5", 1),
    ("torch.compile(base_model, dynamic=False, fullgraph=True)", "base_model", 1),
)


class Skip(Exception):
    """The script is not to be had: no file, or another version than the one whose patches are known."""


class Turns(Protocol):
    """A clock that stands still while others have their turn; it takes the place of the script's `time`
    module."""

    def perf_counter(self) -> float:
        """Seconds of all turns so far."""

    def gate(self) -> None:
        """Called before each step; returns when there may be one."""


def read(path: Path | None) -> str:
    """The script's text; raises Skip with the reason where it cannot be used."""
    if path is None:
        raise Skip("no --script given")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Skip(f"{path}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise Skip(f"{path}: sha256 {found[:16]}..., the patches are for {SHA256[:16]}...")
    return data.decode()


def replaced(text: str, patches: tuple[tuple[str, str, int], ...]) -> str:
    """The text with each patch applied; ValueError where one does not find exactly what it expects."""
    for old, new, times in patches:
        if text.count(old) != times:
            raise ValueError(f"expected {old.strip()!r} {times} times, found it {text.count(old)} times")
        text = text.replace(old, new)
    return text


def patched(text: str, *, device: str, bfloat16: bool, compiled: bool) -> str:
    """The script for a device ("cpu" or "cuda"); bfloat16 and torch.compile are its own habits and may be
    left out."""
    text = replaced(text, EVERYWHERE)
    text = replaced(text, ON_CPU) if device == "cpu" else text
    text = text if bfloat16 else replaced(text, IN_FLOAT32)
    return text if compiled else replaced(text, UNCOMPILED)


def run(text: str, settings: Mapping[str, str], turns: Turns, deliver: Callable[[nn.Module], None]) -> None:
    """Execute patched text in this process until its iterations or its seconds are over; `deliver` gets the
    model.

    `settings` are the script's environment variables. It writes a log under the present folder and prints to
    stdout."""
    os.environ.update(settings)
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    module.__dict__.update(time=turns, deliver=deliver)
    exec(compile(text, f"<{NAME}>", "exec"), module.__dict__)
    module.main()

"""Run the challenge's own starting script, patched in memory to run on a CPU and interleaved with others.

The script is not part of this project. It is given by path, and only the version whose SHA-256 is named here
is accepted, since patching an unknown text would measure something unknown. The patches make it pause before
each step while another contestant runs, stop its clock during those pauses, skip validation and export, and
return the trained weights. They also read WARMDOWN_ITERS as thousandths of the clock: with the script's 1,200
steps, the learning rate of a short run would be near 0 from the start. Its device, autocast and CUDA calls
are replaced too. Model, batches, optimizers and schedules stay its own. golf/bench/gpu/opponent.py runs
another script in the same way.

Source: github.com/openai/parameter-golf, train_gpt.py. It runs as one process.
"""

from __future__ import annotations

import hashlib
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path

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
        "        scale = lr_mul(step, elapsed_ms)\n        time.wait_for_turn()\n",
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
"""(old text, new text, number of occurrences)."""

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
    """The script cannot be run: there is no file, or it is another version than the patches are for."""


def read(path: Path | None, expected: str) -> str:
    """The text of the script with this SHA-256; raises Skip with the reason if it cannot be used."""
    if path is None:
        raise Skip("no --script given")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Skip(f"{path}: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise Skip(f"{path}: sha256 {found[:16]}..., the patches are for {expected[:16]}...")
    return data.decode()


def apply(text: str, patches: tuple[tuple[str, str, int], ...]) -> str:
    """The text with all patches applied; ValueError if one does not occur exactly as often as expected."""
    for old, new, times in patches:
        if text.count(old) != times:
            raise ValueError(f"expected {old.strip()!r} {times} times, found it {text.count(old)} times")
        text = text.replace(old, new)
    return text


def patched(text: str, *, bfloat16: bool, compiled: bool) -> str:
    """The script for a CPU, with or without its own bfloat16 and torch.compile."""
    text = apply(text, EVERYWHERE + ON_CPU)
    text = text if bfloat16 else apply(text, IN_FLOAT32)
    return text if compiled else apply(text, UNCOMPILED)


def run(text: str, settings: Mapping[str, str], **names: object) -> types.ModuleType:
    """Execute the patched text and its `main` in this process; returns its module.

    `settings` are the script's environment variables; `names` are set in its module before it runs, such as
    the clock that replaces `time`. The script writes a log under the working directory and prints to stdout.
    """
    os.environ.update(settings)
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    module.__dict__.update(names)
    exec(compile(text, f"<{NAME}>", "exec"), module.__dict__)
    module.main()
    return module

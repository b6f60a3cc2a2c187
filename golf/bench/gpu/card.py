"""The machine of a call: whether a contestant's torch sees its card, and which versions it has."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from typing import Any

import torch

from golf.bench.gpu.results import Failed, Found

PEAK_BFLOAT16 = {
    "H100 80GB HBM3": 989e12,
    "H100 SXM": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Part of a card's name -> dense bfloat16 operations per second, from the data sheets."""
ENVIRONMENT = {"PATH": "/bin:/usr/bin", "HOME": "/tmp", "CUDA_VISIBLE_DEVICES": "0"}
KEPT = "LD_LIBRARY_PATH"
"""The only variable of the user's that a contestant with GPUs has under the local runner."""
PROGRAM = "import torch; print(torch.cuda.is_available(), torch.cuda.device_count())"
PACKAGES = ("triton", "numpy", "flash_attn_3")


def peak(device: torch.device) -> float | None:
    """The card's bfloat16 peak in operations per second; None if unknown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((rate for part, rate in PEAK_BFLOAT16.items() if part in name), None)


def peak_bytes(device: torch.device) -> int:
    """Most GPU memory that this process has used at once; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def share_of_peak(device: torch.device, flops_per_second: float) -> str:
    """Operations per second as a part of the card's peak, for the table."""
    top = peak(device)
    rate = f"{flops_per_second / 1e12:.3g} TFLOP/s"
    return f"{rate}, {flops_per_second / top:.1%} of the peak" if top else f"{rate}, peak not known here"


def check(device: torch.device, seconds: float) -> Found:
    """Whether torch sees the card with the variables of a contestant, in a process of its own.

    Raises Failed if it does not and the call is for a GPU.
    """
    kept = {KEPT: os.environ[KEPT]} if KEPT in os.environ else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=ENVIRONMENT | kept,
        capture_output=True,
        text=True,
        timeout=max(seconds, 1.0),
        check=False,
    )
    answer = (done.stdout.strip() or done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    if device.type == "cuda" and not answer.startswith("True"):
        raise Failed(
            f"`env -i {KEPT}=... python -c '{PROGRAM}'`: {answer}; training under the local runner would not "
            "see the card: which other variable does torch need here?"
        )
    how = f"{KEPT} set" if kept else f"no {KEPT}"
    return Found(f"as a contestant, {how}: torch.cuda.is_available() and device_count() are {answer}")


def facts(device: torch.device) -> dict[str, Any]:
    """Card, driver, versions and date, for the head of the report. Starts no CUDA context."""
    driver = ""
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            driver = f"nvidia-smi: {error}"
    found = {
        "card": " / ".join(driver.split("\n")).strip(" /") or "none: REHEARSAL ON THE CPU, no GPU was used",
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "Python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not there"
    return {**found, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}

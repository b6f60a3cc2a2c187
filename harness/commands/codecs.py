"""`pgolf codecs`: how near lossless coders come to Shannon's bound on a trained checkpoint.

golf measures (golf/bench/codecs.py), in a process of its own, since the judge loads neither golf nor torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.commands import options

WEIGHTS = "weights.arrays"
"""The file that makes a folder a checkpoint (golf/training/checkpoint.py)."""
app = options.new_app()


@app.command()
def codecs(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that training wrote.")],
    config: Annotated[
        Path | None, typer.Option(help="Its recipe; default: config.resolved.yaml beside the folder.")
    ] = None,
    profile: options.Profile = "record",
    only: Annotated[str, typer.Option(help="Try only coders whose name holds this text, e.g. brotli.")] = "",
    as_json: options.Json = False,
) -> None:
    """Pack a checkpoint, store its integers by every coder, and tabulate bytes and seconds.

    pgolf codecs runs/sp8192-parres-ttt/record-0123456789ab/seed-42/checkpoint
    """
    if not (checkpoint / WEIGHTS).is_file():
        raise UsageError(
            f"{checkpoint}: is no checkpoint: it has no {WEIGHTS}",
            hint="name the folder checkpoint/ of one seed of a run",
        )
    words = ["--profile", profile, *(["--config", str(config)] if config else [])]
    words += [*(["--only", only] if only else []), *(["--json"] if as_json else []), "--", str(checkpoint)]
    command = [sys.executable, "-P", "-m", "golf.bench.codecs", *words]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    raise typer.Exit(done.returncode)

"""`pgolf clean`: remove leftovers of dead runs, and cached wheels."""

from __future__ import annotations

import shutil

from harness.base.temporary import remove_abandoned
from harness.base.text import count
from harness.commands import options
from harness.runners import docker_engine
from harness.runners.docker_engine import NoEngine
from harness.runners.images import wheels

app = options.new_app()


@app.command()
def clean() -> None:
    """Remove what killed commands left in the container engine and among the temporary files, and cached
    wheels; datasets, images and runs stay.
    """
    try:
        number = docker_engine.reap(docker_engine.connect())
        _say(f"removed {number} containers and volumes of dead runs")
    except NoEngine as error:
        _say(f"{error.message}: its leftovers stay")
    temporary = remove_abandoned()
    folders = count(temporary.folders, "temporary folder")
    _say(f"freed {temporary.n_bytes / 1e6:.0f} MB in {folders} of killed commands")
    with wheels.cache_locked():
        n_bytes = sum(path.stat().st_size for path in wheels.cache().rglob("*") if path.is_file())
        shutil.rmtree(wheels.cache(), ignore_errors=True)
    _say(f"freed {n_bytes / 1e6:.0f} MB of cached wheels; datasets, images and runs are kept")


def _say(line: str) -> None:
    """What one step did, at once: a later step may fail."""
    print(line, flush=True)

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
        reaped = f"removed {number} containers and volumes of dead runs"
    except NoEngine as error:
        reaped = f"{error.message}: its leftovers stay"
    temporary = remove_abandoned()
    with wheels.cache_locked():
        n_bytes = sum(path.stat().st_size for path in wheels.cache().rglob("*") if path.is_file())
        shutil.rmtree(wheels.cache(), ignore_errors=True)
    print(
        f"{reaped}; freed {temporary.n_bytes / 1e6:.0f} MB in {count(temporary.folders, 'temporary folder')} "
        f"of killed commands, and {n_bytes / 1e6:.0f} MB of cached wheels; datasets, images and runs are kept"
    )

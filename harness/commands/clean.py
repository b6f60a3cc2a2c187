"""`pgolf clean`: remove leftovers of dead runs, and cached wheels."""

from __future__ import annotations

import shutil

from harness.commands import options
from harness.runners import docker_engine
from harness.runners.images import wheels

app = options.new_app()


@app.command()
def clean() -> None:
    """Remove what dead runs left in the container engine, and cached wheels; datasets, images and runs
    stay.
    """
    client = docker_engine.connect()
    reaped = (
        "no container engine answers, its leftovers stay"
        if client is None
        else f"removed {docker_engine.reap(client)} containers and volumes of dead runs"
    )
    with wheels.cache_locked():
        n_bytes = sum(path.stat().st_size for path in wheels.cache().rglob("*") if path.is_file())
        shutil.rmtree(wheels.cache(), ignore_errors=True)
    print(f"{reaped}; freed {n_bytes / 1e6:.0f} MB of cached wheels; datasets, images and runs are kept")

"""`pgolf clean`: remove leftovers of dead runs, and cached wheels."""

from __future__ import annotations

import shutil

from harness.base.paths import home
from harness.commands import options
from harness.runners import docker_engine
from harness.runners.docker_engine import NoEngine

app = options.new_app()


@app.command()
def clean() -> None:
    """Remove what dead runs left in the container engine, and cached wheels; datasets, images and runs
    stay.
    """
    try:
        count = docker_engine.reap(docker_engine.connect())
        reaped = f"removed {count} containers and volumes of dead runs"
    except NoEngine as error:
        reaped = f"{error.message}: its leftovers stay"
    wheels = home() / "wheels"
    n_bytes = sum(path.stat().st_size for path in wheels.rglob("*") if path.is_file())
    shutil.rmtree(wheels, ignore_errors=True)
    print(f"{reaped}; freed {n_bytes / 1e6:.0f} MB of cached wheels; datasets, images and runs are kept")

"""`pgolf doctor` and `pgolf clean`: what this machine can do, what is missing, and tidying up.

Not covered: repairing anything.
"""

from __future__ import annotations

import shutil
from typing import Any

from harness.base import host
from harness.base.errors import HarnessError
from harness.base.paths import home
from harness.runners import docker_engine
from harness.runners.images import build


def examine() -> dict[str, Any]:
    """JSON-ready facts: host, engine, images, datasets, free disk."""
    client = docker_engine.connect()
    engine: dict[str, Any] | None = None
    if client is not None:
        version = client.version()
        engine = {
            "version": version.get("Version"),
            "api": version.get("ApiVersion"),
            "images": {name: _image(client, name) for name in ("cpu", "cuda")},
        }
    home().mkdir(parents=True, exist_ok=True)
    datasets = sorted(path.parent.name for path in home().glob("datasets/*/dataset.json"))
    return {
        "schema": 1,
        "host": host.facts(),
        "engine": engine,
        "home": str(home()),
        "datasets": datasets,
        "free_disk_bytes": shutil.disk_usage(home()).free,
    }


def _image(client: Any, name: str) -> str | None:
    try:
        return build.find(client, name)
    except HarnessError as error:
        return f"error: {error.message}"


def describe(facts: dict[str, Any]) -> str:
    """The facts as lines, each missing thing with what to do about it."""
    machine, engine = facts["host"], facts["engine"]
    lines = [
        f"processor   {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB",
        f"GPUs        {', '.join(gpu['name'] for gpu in machine['gpus']) or 'none: profile pocket only'}",
    ]
    if engine is None:
        lines.append(
            "engine      none answers: runs use the local runner (isolation none); start dockerd for "
            "containers"
        )
    else:
        lines.append(f"engine      {engine['version']} (API {engine['api']})")
        lines += [
            f"image       {name}: {digest or f'not built: pgolf image build {name}'}"
            for name, digest in engine["images"].items()
        ]
    datasets = ", ".join(facts["datasets"]) or "none yet: the first pocket run prepares one"
    lines.append(f"datasets    {datasets} in {facts['home']}")
    lines.append(f"free disk   {facts['free_disk_bytes'] / 2**30:.0f} GiB")
    return "\n".join(lines)


def clean() -> str:
    """Removes what dead runs left in the engine, and the cache of wheels, which images are built from; says
    what."""
    client = docker_engine.connect()
    reaped = (
        "no container engine answers, its leftovers stay"
        if client is None
        else (f"removed {docker_engine.reap(client)} containers and volumes of dead runs")
    )
    wheels = home() / "wheels"
    n_bytes = sum(path.stat().st_size for path in wheels.rglob("*") if path.is_file())
    shutil.rmtree(wheels, ignore_errors=True)
    return f"{reaped}; freed {n_bytes / 1e6:.0f} MB of cached wheels; datasets, images and runs are kept"

"""`pgolf doctor`: what this machine can do, and what to do about what is missing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from harness.base import host
from harness.base.disk import disk_of
from harness.base.errors import HarnessError
from harness.base.paths import home
from harness.commands import options
from harness.runners import docker_engine
from harness.runners.images import build

app = options.new_app()


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """What this machine can do: engine, images, GPUs, memory, disk, and what to do about what is missing."""
    facts = examine()
    print(json.dumps(facts, indent=1) if as_json else describe(facts))


def examine() -> dict[str, Any]:
    """JSON-ready facts: host, engine, images, datasets, and the disks that runs write to."""
    client = docker_engine.connect()
    engine: dict[str, Any] | None = None
    if client is not None:
        version = client.version()
        engine = {
            "version": version.get("Version"),
            "api": version.get("ApiVersion"),
            "images": {name: _image(client, name) for name in ("cpu", "cuda")},
        }
    datasets = sorted(path.parent.name for path in home().glob("datasets/*/dataset.json"))
    places = {"runs": options.RUNS, "temporary": Path(tempfile.gettempdir()), "datasets": home()}
    return {
        "schema": 1,
        "host": host.facts(),
        "engine": engine,
        "home": str(home()),
        "datasets": datasets,
        "free_disk_bytes": disk_of(home()).free_bytes,
        "disks": {name: disk_of(path)._asdict() | {"path": str(path)} for name, path in places.items()},
    }


def _image(client: Any, name: str) -> str | None:
    try:
        return build.find(client, name)
    except HarnessError as error:
        return f"error: {error.message}"


def describe(facts: dict[str, Any]) -> str:
    """The facts in lines; each missing thing with what to do about it."""
    machine, engine = facts["host"], facts["engine"]
    lines = [
        f"processor   {host.processor(machine)}, {machine['memory_bytes'] / 2**30:.0f} GiB",
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
    lines += [
        f"free disk   {disk['free_bytes'] / 2**30:.1f} GiB for {name} in {disk['path']} "
        f"({disk['device']} at {disk['mount']})"
        for name, disk in facts["disks"].items()
    ]
    return "\n".join(lines)

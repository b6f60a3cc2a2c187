"""`pgolf doctor`: what this machine can do, and what to do about what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import typer

from harness.base import host
from harness.base.disk import disk_of, machine_fault
from harness.base.errors import HarnessError
from harness.base.exit_codes import ExitCode
from harness.base.paths import home
from harness.base.temporary import temporary_root
from harness.commands import options
from harness.edition import PROFILES, Limits
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.docker_engine import NoEngine, engine_faults
from harness.runners.images import build
from harness.runners.local import LocalRunner
from harness.runners.probe_stage import probe_stage

app = options.new_app()
PROFILE_OF = {"cpu": "pocket", "cuda": "solo"}
"""Image -> the profile whose limits a probe of its stage has."""


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """What this machine can do: engine, images, GPUs, memory, disk, and what to do about what is missing.

    Exit code 3 where a run could not start: a stage does not work, or DOCKER_HOST or DOCKER_CONTEXT names an
    engine that does not answer.
    """
    facts = examine()
    print(json.dumps(facts, indent=1) if as_json else describe(facts))
    no_engine = facts["no_engine"]
    if (no_engine and no_engine["required"]) or not all(stage["works"] for stage in facts["stages"]):
        raise typer.Exit(ExitCode.MACHINE)


def examine() -> dict[str, Any]:
    """JSON-ready facts: host, engine or why there is none, images, what a probe of each runner's stage found,
    datasets, and the disks that runs write to.
    """
    machine = host.facts()
    stages = [{"runner": "local", "image": None, **_probe(LocalRunner, PROFILES["pocket"])}]
    engine: dict[str, Any] | None = None
    no_engine: dict[str, Any] | None = None
    try:
        client = docker_engine.connect()
    except NoEngine as error:
        no_engine = {"reason": error.message, "hint": error.hint, "required": error.required}
    else:
        with engine_faults("asking the engine for its version"):
            version = client.version()
        found_images = {name: _image(client, name) for name in PROFILE_OF}
        images = {name: image for name, (image, _) in found_images.items()}
        engine = {
            "version": version.get("Version"),
            "api": version.get("ApiVersion"),
            "images": images,
            "images_lack": {name: lacks for name, (_, lacks) in found_images.items()},
        }
        for name, image in images.items():
            limits = PROFILES[PROFILE_OF[name]]
            if image is not None and not image.startswith("error") and limits.gpus <= len(machine["gpus"]):
                found = _probe(partial(DockerRunner, client, image), limits)
                stages.append({"runner": "docker", "image": name, **found})
    datasets = sorted(path.parent.name for path in home().glob("datasets/[!.]*/dataset.json"))
    places = {"runs": options.RUNS, "temporary": temporary_root(), "datasets": home()}
    disks = {name: disk_of(path) for name, path in places.items()}
    return {
        "schema": 1,
        "host": machine,
        "engine": engine,
        "no_engine": no_engine,
        "stages": stages,
        "home": str(home()),
        "datasets": datasets,
        "free_disk_bytes": disks["datasets"].free_bytes,
        "disks": {name: disk._asdict() | {"path": str(disk.path)} for name, disk in disks.items()},
    }


def _image(client: Any, name: str) -> tuple[str | None, list[str]]:
    """The id of an image, or the error in looking for it, and the wheels that it was built without."""
    try:
        with engine_faults("looking for the image"):
            image = build.find(client, name)
            return image, list(build.lacks(client.images.get(image).labels)) if image else []
    except HarnessError as error:
        return f"error: {error.message}", []


def _probe(make_runner: Callable[[], Runner], limits: Limits) -> dict[str, Any]:
    """What a probe of a runner's stage found: seconds, or the error with its hint."""
    try:
        try:
            runner = make_runner()
        except OSError as error:  # for example a home folder that cannot be written
            raise machine_fault(error, during="starting the runner") from error
        try:
            seconds = probe_stage(runner, limits)
        finally:
            runner.close()
    except HarnessError as error:
        return {"works": False, "seconds": None, "error": error.message, "hint": error.hint}
    return {"works": True, "seconds": round(seconds, 3), "error": None, "hint": None}


def describe(facts: dict[str, Any]) -> str:
    """The facts in lines; each missing thing with what to do about it."""
    machine, engine = facts["host"], facts["engine"]
    lines = [
        f"processor   {host.processor(machine)}, {machine['memory_bytes'] / 2**30:.0f} GiB",
        f"GPUs        {', '.join(gpu['name'] for gpu in machine['gpus']) or 'none: profile pocket only'}",
    ]
    if engine is None:
        missing = facts["no_engine"]
        then = (
            "runs stop here, except with --runner local"
            if missing["required"]
            else "runs use the local runner (isolation none)"
        )
        lines += [f"engine      {missing['reason']}; {then}", f"            {missing['hint']}"]
    else:
        lines.append(f"engine      {engine['version']} (API {engine['api']})")
        lines += [
            f"image       {name}: {digest or f'not built: pgolf image build {name}'}"
            + "".join(f", without {wheel}" for wheel in engine["images_lack"][name])
            for name, digest in engine["images"].items()
        ]
    lines += map(_stage_line, facts["stages"])
    datasets = ", ".join(facts["datasets"]) or "none yet: the first pocket run prepares one"
    lines.append(f"datasets    {datasets} in {facts['home']}")
    lines += [
        f"free disk   {disk['free_bytes'] / 2**30:.1f} GiB for {name} in {disk['path']} "
        f"({disk['device']} at {disk['mount']})"
        for name, disk in facts["disks"].items()
    ]
    return "\n".join(lines)


def _stage_line(found: dict[str, Any]) -> str:
    name = f"{found['runner']}, {found['image']}" if found["image"] else found["runner"]
    if found["works"]:
        return f"stage       {name}: inputs, socket, scratch and output work ({found['seconds']:.2f} s)"
    return f"stage       {name}: {found['error']}\n            {found['hint']}"

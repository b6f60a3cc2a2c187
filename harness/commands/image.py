"""`pgolf image`: build, verify and lock container images (harness/runners/images)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import MachineFault
from harness.commands import options
from harness.runners.images import build as image, pins, wheels as locked

app = options.new_app(no_args_is_help=True, help="Build, lock and verify container images.")

Name = Annotated[str, typer.Argument(help="cpu or cuda")]


def _talk(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def build(
    name: Name = "cpu",
    base: Annotated[
        Path | None,
        typer.Option(
            help="Root filesystem, a folder or tar, instead of the pinned base: "
            "debootstrap --variant=minbase --include=python3 bookworm DIR "
            "(cuda: python3,python3-dev,g++,openssl)"
        ),
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option(help="Folder of wheels, instead of downloading them.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out a wheel that no package index has, e.g. flash-attn-3: makes an image of another "
            "name, which runs take only where there is no whole one. Can be repeated."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if the image is there.")] = False,
) -> None:
    """Build an image from its lock, without network and by hash; prints its id.

    Example: pgolf image build cpu --base ./rootfs
    """
    typer.echo(image.build(name, base, wheels, without=without or (), force=force, log=_talk))


@app.command()
def verify(name: Name = "cpu") -> None:
    """Ask a built image whether its packages import, are the locked ones, and (cuda) compile code.

    Example: pgolf image verify cpu
    """
    pins.load(name)  # a name that no image has is refused before an engine is asked
    with image.engine() as client:
        found = image.verify(client, name)
    left_out = f", without {', '.join(found.without)}" if found.without else ""
    typer.echo(f"{found.image}  Python {found.python}{left_out}")
    for package, version in found.versions.items():
        typer.echo(f"  {package} {version}")
    for line in found.compiled.lines() if found.compiled else ():
        typer.echo(line)


@app.command()
def lock(name: Name = "cpu") -> None:
    """Fill in hashes that are not known yet (needs the internet), then print the pins and the lock's hash.

    Example: pgolf image lock cuda
    """
    fault = None
    for wheel in pins.load(name).wheels:
        if wheel.sha256 is None:
            _talk(f"downloading {wheel.url}")
            try:
                locked.fill_in(pins.folder(name) / "pins.yaml", wheel)
            except MachineFault as error:
                fault = error
    pinned = pins.load(name)
    typer.echo(f"base     {pinned.base.pinned} ({pinned.base.status})")
    typer.echo(f"packages {len(pins.read_lock(pins.folder(name) / 'requirements.lock'))} by hash")
    for wheel in pinned.wheels:
        typer.echo(f"wheel    {wheel.file} sha256 {wheel.sha256 or 'unknown'} ({wheel.status})")
    typer.echo(f"lock     sha256:{pins.lock_sha256(name)}")
    _talk("a manifest names the lock's hash; another lock is another environment")
    if fault:
        raise fault

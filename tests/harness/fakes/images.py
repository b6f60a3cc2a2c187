"""An image with the content of a built one and without a tag, as after `docker save ID | docker load`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker


@contextmanager
def untagged_image(engine: docker.DockerClient, image: str) -> Iterator[str]:
    """The id of another image with the content and labels of `image`, and without a tag."""
    container = engine.containers.create(image, ["true"])
    try:
        other = str(container.commit(message="a test's copy").id)
    finally:
        container.remove(force=True)
    try:
        yield other
    finally:
        engine.images.remove(other, force=True)

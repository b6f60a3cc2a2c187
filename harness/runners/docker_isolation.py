"""How every container of a run is isolated, and which GPUs it gets."""

from __future__ import annotations

from typing import Any

from docker.types import DeviceRequest, Ulimit

ISOLATION_OPTIONS: dict[str, Any] = {
    "user": "10001:10001",
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "ipc_mode": "private",
    "ulimits": [Ulimit(name="core", soft=0, hard=0)],
    "healthcheck": {"test": ["NONE"]},
    "use_config_proxy": False,
}
"""How every container of a run is isolated. The last four replace defaults that come from elsewhere: the
engine's configuration, the image, and the proxies, with their passwords, in the user's ~/.docker/config.json.
"""


def gpu_requests(n_gpus: int) -> list[DeviceRequest] | None:
    """What docker-py is given for a container with `n_gpus` GPUs."""
    return [DeviceRequest(count=n_gpus, capabilities=[["gpu"]])] if n_gpus else None

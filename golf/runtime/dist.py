"""Start the processes of a stage and let them share sums; with a single process all of this is a no-op.

The data always belong to 8 logical ranks (golf/training/loader.py), divided among `world` processes: one per
visible GPU (NCCL), or on a CPU as many as the recipe's `hardware.ranks` (gloo). Two processes of one thread
use two cores better than one process of two threads, and lose less if another program wants a core: threads
of one process wait for each other hundreds of times a step, and were seen to slow down tenfold.

With several processes, the first one keeps the judge's socket only until it can hand it over. It starts
torchrun, waits for each rank on its own Unix socket, and sends rank 0 the judge's socket and one end of a
socket pair per other rank; each other rank gets the opposite end. No network is used: rendezvous is on
127.0.0.1, so all processes run on one machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor

from golf.recipe.config import Config
from golf.runtime import strict_json
from golf.runtime.errors import StageError
from golf.runtime.wire import Frame, Wire, send_with_descriptors

RANKS_SOCKET = "PGOLF_RANKS"
SECONDS_TO_START = 300
POLL_SECONDS = 1
# torch 2.13 renamed both functions, and warns about the names that 2.9 and 2.11 know.
reduce_scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)
all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `world`, and its device."""

    rank: int
    world: int
    device: torch.device

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum over the ranks, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)

    def mean(self, tensor: Tensor) -> None:
        """Mean over the ranks, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor, self._mean)
            self._divide(tensor)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Mean over the ranks of each tensor, in place, in one all-reduce."""
        if self.world > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            self.mean(flat)
            parts = flat.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def mean_share(self, shares_WS: Tensor) -> Tensor:
        """This rank's row of the mean over the ranks, by a reduce-scatter."""
        own_S = torch.empty_like(shares_WS[0])
        reduce_scatter(own_S, shares_WS.flatten(), self._mean)
        self._divide(own_S)
        return own_S

    def gather(self, own_S: Tensor) -> tuple[Tensor, distributed.Work]:
        """Begin to collect one row per rank: (rows_WS, what must be waited for before they are read)."""
        rows_WS = own_S.new_empty(self.world, len(own_S))
        return rows_WS, all_gather(rows_WS.view(-1), own_S, async_op=True)

    @property
    def _mean(self) -> distributed.ReduceOp.RedOpType:
        """NCCL averages by itself. gloo cannot: it sums, and `_divide` follows."""
        return distributed.ReduceOp.AVG if self.device.type == "cuda" else distributed.ReduceOp.SUM

    def _divide(self, tensor: Tensor) -> None:
        if self._mean == distributed.ReduceOp.SUM:
            tensor /= self.world

    def log(self, line: str) -> None:
        """Print a line to the log, on rank 0 only."""
        if self.rank == 0:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            distributed.destroy_process_group()


ALONE = Ranks(0, 1, torch.device("cpu"))
"""A single process on the CPU."""


def wanted_world(config: Config, granted: int = 0) -> int:
    """Number of processes: one per visible GPU (rounded down to 1, 2, 4 or 8), or the recipe's on a CPU.

    Raises StageError if torch sees fewer GPUs than the profile grants.
    """
    gpus = torch.cuda.device_count()
    if gpus < granted:
        raise StageError(
            f"GPUs that the profile grants: {granted}, that torch {torch.__version__} sees: {gpus}. Is torch "
            "built for CUDA, is the driver's libcuda.so.1 in a folder of LD_LIBRARY_PATH or of the linker's "
            "cache, and is the NVIDIA container toolkit installed where this is a container?"
        )
    return max(n for n in (1, 2, 4, 8) if n <= gpus) if gpus else config.hardware.ranks


def join() -> Ranks:
    """Join the process group that torchrun set up in the environment; without one, a single process."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    return Ranks(rank, world, device)


def precision(config: Config, device: torch.device) -> torch.dtype:
    """The trunk's dtype: the recipe's, or if `auto`, bfloat16 where the device multiplies it natively."""
    if config.hardware.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.hardware.precision]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks instead of returning them, which saves a tenth of a CPU step.

    A step frees and allocates the same megabytes hundreds of times, and each return costs page faults.
    Without glibc this does nothing.
    """
    trim_threshold, mmap_threshold = -1, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def _command(world: int) -> list[str]:
    """torchrun with the running program: code.pyz, or the package as a module."""
    program = Path(sys.argv[0])
    target = ["--module", "golf"] if program.name == "__main__.py" else [str(program)]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={world}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        "--local-addr=127.0.0.1",
        *target,
    ]


def _environment(path: Path, world: int) -> dict[str, str]:
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // world)
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return {**os.environ, **loopback, RANKS_SOCKET: str(path), "OMP_NUM_THREADS": str(threads)}


def launch(wire: Wire, setup: Frame, world: int) -> int:
    """Start `world` ranks, hand the judge's socket to rank 0, wait; returns torchrun's exit status."""
    with tempfile.TemporaryDirectory(prefix="pgolf-") as folder:
        path = Path(folder) / "ranks"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(world)
            listener.settimeout(POLL_SECONDS)
            torchrun = subprocess.Popen(_command(world), env=_environment(path, world))
            try:
                _hand_over(_accept_ranks(listener, torchrun, world), wire, setup)
                return torchrun.wait()
            finally:
                if torchrun.poll() is None:
                    torchrun.terminate()
                    torchrun.wait()


def _accept_ranks(
    listener: socket.socket, torchrun: subprocess.Popen[bytes], world: int
) -> dict[int, socket.socket]:
    """Rank -> connection, for all ranks; RuntimeError if one does not connect in time."""
    connections: dict[int, socket.socket] = {}
    for _ in range(SECONDS_TO_START // POLL_SECONDS):
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if torchrun.poll() is not None:
                break
            continue
        connections[Wire(connection).receive("hello").get("rank", int)] = connection
        if len(connections) == world:
            return connections
    raise RuntimeError(f"of {world} ranks only {sorted(connections)} started (torchrun: {torchrun.poll()})")


def _hand_over(connections: dict[int, socket.socket], wire: Wire, setup: Frame) -> None:
    pairs = {rank: socket.socketpair() for rank in range(1, len(connections))}
    message = strict_json.dumps({**setup.fields, "op": "setup"}) + b"\n"
    send_with_descriptors(
        connections[0], message, (wire.socket.fileno(), *(pairs[r][0].fileno() for r in pairs))
    )
    for rank, (_, end) in pairs.items():
        send_with_descriptors(connections[rank], message, (end.fileno(),))
    for each in (wire.socket, *connections.values(), *(end for pair in pairs.values() for end in pair)):
        each.close()


def take_over() -> tuple[Wire, Frame]:
    """In a rank: get `setup` and this rank's sockets from the launcher; rank 0's wire leads to the judge."""
    rank = int(os.environ["RANK"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        launcher.connect(os.environ[RANKS_SOCKET])
        wire = Wire(launcher)
        wire.send("hello", rank=rank)
        setup = wire.receive("setup")
        ends = [socket.socket(fileno=descriptor) for descriptor in wire.descriptors()]
    return Wire(ends[0], peers=tuple(ends[1:]), muted=rank > 0), setup

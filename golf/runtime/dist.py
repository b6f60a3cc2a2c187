"""Processes: how many, how they start, what they share. One process is the ordinary case, and then all is a
no-op.

The data always belong to 8 logical ranks (golf/training/loader.py); `world` processes stand for them: one for
each visible GPU (NCCL), or on a CPU as many as the recipe's `hardware.ranks` asks for (gloo). Two processes
of one thread use two cores better than one of two threads, and where something else wants a core they lose a
share of the speed: threads of one process wait for each other hundreds of times a step, and were seen to slow
down tenfold.

With several, the first process keeps the judge's socket just long enough to hand it over: it starts torchrun,
waits for each rank on a Unix socket of its own, and gives rank 0 the judge's socket and one end of a socket
pair for every other rank, and each of those its other end. There is no network; rendezvous is on 127.0.0.1.
Not covered: several machines."""

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
from golf.runtime.wire import Frame, Wire, send_with_descriptors

RANKS_SOCKET = "PGOLF_RANKS"
SECONDS_TO_START = 300
SECONDS_BETWEEN_LOOKS = 1


@dataclass(frozen=True)
class Ranks:
    """This process among all of them, and its device."""

    rank: int
    world: int
    device: torch.device

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum over the ranks, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Mean over the ranks of each tensor, in place, in one message."""
        if self.world > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            distributed.all_reduce(flat)
            parts = (flat / self.world).split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def from_first(self, number: float) -> float:
        """Rank 0's number, on every rank: clocks are asked in one place, so that all stop at the same
        step."""
        if self.world == 1:
            return number
        box = torch.tensor([number], dtype=torch.float64, device=self.device)
        distributed.broadcast(box, src=0)
        return box.item()

    def say(self, line: str) -> None:
        """Print a line of the log, on rank 0 alone."""
        if self.rank == 0:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            distributed.destroy_process_group()


def wanted_world(config: Config) -> int:
    """Processes to run: one for each visible GPU (the largest of 1, 2, 4, 8 that fits), on a CPU as the
    recipe says."""
    gpus = torch.cuda.device_count()
    return max(n for n in (1, 2, 4, 8) if n <= gpus) if gpus else config.hardware.ranks


def join() -> Ranks:
    """The process group that torchrun announced in the environment, or a single process."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    return Ranks(rank, world, device)


def precision(config: Config, device: torch.device) -> torch.dtype:
    """The trunk's dtype: what the recipe says, else bfloat16 where the device multiplies it natively."""
    if config.hardware.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.hardware.precision]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def keep_freed_memory() -> None:
    """Tell glibc to reuse large freed blocks instead of returning them, which saves a tenth of a CPU step.

    A step frees and asks again for the same megabytes hundreds of times; each return costs page faults.
    Elsewhere than on glibc there is nothing to tell, and nothing changes but speed."""
    trim_threshold, mmap_threshold = -1, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def _command(world: int) -> list[str]:
    """torchrun on the program that runs now: a code.pyz, or the package as a module."""
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
    """Start `world` ranks, hand the judge's socket to rank 0, wait for their end; returns torchrun's exit
    status."""
    with tempfile.TemporaryDirectory(prefix="pgolf-") as folder:
        path = Path(folder) / "ranks"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(world)
            listener.settimeout(SECONDS_BETWEEN_LOOKS)
            torchrun = subprocess.Popen(_command(world), env=_environment(path, world))
            try:
                _hand_over(_hellos(listener, torchrun, world), wire, setup)
                return torchrun.wait()
            finally:
                if torchrun.poll() is None:
                    torchrun.terminate()
                    torchrun.wait()


def _hellos(
    listener: socket.socket, torchrun: subprocess.Popen[bytes], world: int
) -> dict[int, socket.socket]:
    """A connection from each rank, by rank; RuntimeError where one never comes."""
    connections: dict[int, socket.socket] = {}
    for _ in range(SECONDS_TO_START // SECONDS_BETWEEN_LOOKS):
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
    """In a rank: ask the launcher for `setup` and for this rank's sockets; rank 0's wire goes to the
    judge."""
    rank = int(os.environ["RANK"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        launcher.connect(os.environ[RANKS_SOCKET])
        line = Wire(launcher)
        line.send("hello", rank=rank)
        setup = line.receive("setup")
        ends = [socket.socket(fileno=descriptor) for descriptor in line.descriptors()]
    return Wire(ends[0], peers=tuple(ends[1:]), mute=rank > 0), setup

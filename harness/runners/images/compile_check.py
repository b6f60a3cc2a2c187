"""Check without a GPU that code can be compiled in an image: torch.compile for the CPU, Triton for a GPU.

The check runs as the contestant's user, with the environment of a stage and a scratch folder of the same
kind: what fails there, such as a missing compiler or user name, would end a training before its first step.
Triton's kernel becomes machine code of an H100 (`ptxas` is in its wheel) and is not run.

Not covered, because only a GPU shows it: ONLY_A_GPU.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import docker

from harness.base.errors import UsageError
from harness.runners.base import scratch_environment
from harness.runners.docker_folders import SCRATCH
from harness.runners.docker_isolation import ISOLATION_OPTIONS
from harness.runners.images import rootfs

ONLY_A_GPU = (
    "that the driver fits these libraries, that Triton's launcher links to it, that NCCL connects GPUs, and "
    "that any kernel runs and is right, FlashAttention-3's included"
)

SCRIPT = """
import getpass, json, os, time
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def double(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)

def loss(x_BD, w_VD):
    return torch.nn.functional.cross_entropy(30 * torch.tanh(x_BD @ w_VD.T / 30), torch.arange(len(x_BD)))

began = time.monotonic()
torch.manual_seed(0)
x_BD, w_VD = torch.randn(32, 16), torch.randn(64, 16, requires_grad=True)
values = [each(x_BD, w_VD) for each in (loss, torch.compile(loss, fullgraph=True))]
gradients = [torch.autograd.grad(value, w_VD)[0] for value in values]
found = {"error": max(float((a - b).abs().max()) for a, b in (values, gradients))}
found["cpu_seconds"] = time.monotonic() - began

began = time.monotonic()
signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
source = ASTSource(double, signature, {(3,): 128})
found["cubin_bytes"] = len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"])
found["cubin_seconds"] = time.monotonic() - began

found |= {"uid": os.getuid(), "user": getpass.getuser(), "cuda": torch.version.cuda}
found |= {"cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
print(json.dumps(found))
"""
"""Triton reads a kernel's source, so the script must be a file."""
START = "import runpy, sys; open('/tmp/check.py', 'w').write(sys.argv[1]); runpy.run_path('/tmp/check.py')"
LARGEST_ERROR = 1e-4


class Compiled(NamedTuple):
    """What the check found."""

    uid: int
    user: str
    cuda: str
    cudnn: int
    nccl: str
    error: float
    """Largest difference of loss and gradient between the compiled function and the plain one."""
    cpu_seconds: float
    cubin_bytes: int
    """Size of the kernel's machine code for an H100 (sm_90)."""
    cubin_seconds: float

    def lines(self) -> list[str]:
        """What a person reads."""
        return [
            f"CUDA {self.cuda}, cuDNN {self.cudnn}, NCCL {self.nccl}",
            f"compiled as user {self.uid} ({self.user}): loss and gradient for the CPU by torch.compile in "
            f"{self.cpu_seconds:.0f} s, {self.error:.1e} from the plain function; a Triton kernel for sm_90 "
            f"in {self.cubin_seconds:.0f} s, {self.cubin_bytes:,} bytes",
            f"only a GPU shows {ONLY_A_GPU}",
        ]


def compile_inside(client: docker.DockerClient, name: str, image: str) -> Compiled:
    """Run the check in a container of `image`. Raises UsageError where something does not compile."""
    status, stdout, stderr = rootfs.run_command(
        client,
        image,
        ["python3", "-c", START, SCRIPT],
        environment=scratch_environment(SCRATCH),
        tmpfs={SCRATCH: "exec,nosuid,nodev,size=512m"},
        working_dir=SCRATCH,
        **ISOLATION_OPTIONS,
    )
    if status:
        raise UsageError(
            f"{name}: {image} compiles nothing: {stderr.strip()[-600:]}",
            hint=f"its base must hold what compiling takes: {rootfs.WITH_COMPILER}",
        )
    found = Compiled(**json.loads(stdout.splitlines()[-1]))
    if not found.error <= LARGEST_ERROR:
        raise UsageError(
            f"{name}: {image} compiles wrongly: loss or gradient {found.error:.1e} from the plain function, "
            f"at most {LARGEST_ERROR:.0e} expected",
            hint="is the base's compiler a released one?",
        )
    return found

"""The table of contestants, lawful and unlawful, with the outcome that every runner must give them.

Each is the honest contestant (honest.py) with something added to its train stage. `rule` is the id under
which run.json records what ended the stage, None for a lawful one. `unlike` is the column of exceptions: the
runner whose outcome differs, what it is there, and why it cannot be made equal (docs/rules.md lists them).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from harness.base.exit_codes import ExitCode
from harness.edition import Limits
from tests.harness.fakes.stage_bench import SMALL

MB = 1_000_000
LIMITS = dataclasses.replace(
    SMALL,
    scratch_bytes=32 * MB,
    shm_bytes=32 * MB,
    checkpoint_bytes=8 * MB,
    log_bytes=100_000,
    out_files=20,
    train_seconds=30,
)
SHORT = dataclasses.replace(LIMITS, train_seconds=1)

HELPERS = """
import ctypes, signal, sys, time

def fill(folder, megabytes, name="filler"):
    path = f"{folder}/{name}-{os.getpid()}"
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(bytes(1_000_000))
    return path

def eat(megabytes):
    return [bytearray(b"x" * 1_000_000) for _ in range(megabytes)]

def child(function):
    pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    return pid

def tolerate(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        pass
"""


class Unlike(NamedTuple):
    """The outcome in one runner that cannot be made equal to the others."""

    rule: str | None
    why: str


class Row(NamedTuple):
    """A contestant, and the outcome of its train stage."""

    does: str
    body: str
    """Statements, run when it has trained and before it says so. `out` is the path of /out."""
    rule: str | None = None
    limit: bool = False
    limits: Limits = LIMITS
    unlike: Mapping[str, Unlike] = {}

    def override(self) -> str:
        """The source that makes the honest contestant this one."""
        lines = "\n    ".join(("out = setup['out']", *self.body.strip().splitlines()))
        return f"{HELPERS}\ndef before_trained(wire, setup):\n    {lines}\n"

    def expected_rule(self, runner: str) -> str | None:
        return self.unlike[runner].rule if runner in self.unlike else self.rule


def exit_code(rule: str | None, limit: bool, allow_open: bool) -> ExitCode:
    """The exit code of a verdict without a witness, the same in every runner: a lawful contestant is
    inconclusive, because C1 to C4 are not shown, and `--allow-open` accepts that.
    """
    if rule is None:
        return ExitCode.VALID if allow_open else ExitCode.INCONCLUSIVE
    return ExitCode.LIMIT if limit else ExitCode.VIOLATION


SAME_USER = "the contestant has the judge's user, who may write the copies (the originals stay as they are)"
SHARED_MEMORY = "/dev/shm is the machine's"
MEASURED = "a folder is measured by walking it, so its depth is limited"

VARIABLES = {
    *("CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT", "HOME", "LANG", "OMP_NUM_THREADS", "PATH"),
    *("PGOLF_SOCKET", "PGOLF_STAGE", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "USER"),
}
"""The environment of every contestant."""
LOOPBACK = """
listener = socket.create_server(("127.0.0.1", 0))
caller = socket.create_connection(listener.getsockname())
listener.accept()[0].sendall(b"x")
assert caller.recv(1) == b"x"
"""
MAP_AS_CODE = """
import mmap
path = fill(os.environ["TMPDIR"], 1)
with open(path, "rb") as file:
    mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
"""
STRICT = "os.umask(0o077); os.makedirs(out + '/checkpoint/a'); fill(out + '/checkpoint/a', 1)"
SHARED = """
held = eat(200)
for _ in range(4):
    child(lambda: time.sleep(60))
time.sleep(1.2)
"""
FILES = "[open(f'{out}/f{i}', 'w').close() for i in range(%d)]"
FILL = "fill(os.environ['TMPDIR'], 40)"
KEEP_FILLING = "tolerate(fill, os.environ['TMPDIR'], 40)"
WRITE = """
held = sum(os.path.getsize(f"{{top}}/{{name}}") for top, _, names in os.walk({folder}) for name in names)
with open({folder} + "/exact", "wb") as file:
    file.write(bytes({size} - held))
"""
TRUNCATE = """
for i, size in enumerate({sizes}):
    with open(os.environ["TMPDIR"] + f"/sparse{{i}}", "wb") as file:
        file.truncate(size)
time.sleep(0.6)
"""
SMALL_FILES = """
for i in range({count}):
    with open(os.environ["TMPDIR"] + f"/small{{i}}", "wb") as file:
        file.write(b"x")
"""
LONG_PATH = """
for _ in range(20):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
"""
MANY_FILES = "[fill(%s, 4, str(i)) for i in range(10)]"
EAT_IN_CHILD = "os.waitpid(child(lambda: eat(640)), 0)"
EAT_TOGETHER = "[child(lambda: (eat(200), time.sleep(60))) for _ in range(4)]; time.sleep(2.5)"
FORK = "[child(lambda: time.sleep(60)) for _ in range(100)]"
NONSENSE = "wire.socket.sendall(b'[]\\n'); wire.receive()"

LAWFUL = (
    Row("does nothing else", "pass"),
    Row("writes 20 MB into $TMPDIR, more than /out may hold", "fill(os.environ['TMPDIR'], 20)"),
    Row("writes 20 MB into shared memory", "os.unlink(fill('/dev/shm', 20))"),
    Row("fills $TMPDIR to its last byte", WRITE.format(folder="os.environ['TMPDIR']", size=32 * MB)),
    Row("fills /out to its last byte", WRITE.format(folder="out", size=8 * MB)),
    Row("makes two sparse files in $TMPDIR", TRUNCATE.format(sizes=(30 * MB, 30 * MB))),
    Row("makes a sparse file larger than $TMPDIR", TRUNCATE.format(sizes=(500 * MB,))),
    Row("writes 7,000 files of one byte", SMALL_FILES.format(count=7000)),
    Row("makes a path longer than the system allows", LONG_PATH),
    Row("takes 300 MB of memory", "eat(300)"),
    Row("takes 300 MB in a child", "os.waitpid(child(lambda: eat(300)), 0)"),
    Row("shares 200 MB with four children", SHARED),
    Row("has 40 processes", "[child(lambda: time.sleep(5)) for _ in range(39)]; time.sleep(0.6)"),
    Row("kills a child of its own", "os.kill(child(lambda: time.sleep(60)), signal.SIGKILL)"),
    Row("leaves a child behind", "child(lambda: time.sleep(600))"),
    Row("has 4,000 files open", "held = [open('/dev/null') for _ in range(4000)]"),
    Row("closes its standard streams", "[os.close(stream) for stream in (0, 1, 2)]"),
    Row("reads its standard input", "assert sys.stdin.read() == ''"),
    Row("writes into its working folder", "open('here', 'w').close()"),
    Row("finds that folder in HOME", "assert os.path.samefile('.', os.environ['HOME'])"),
    Row("connects to itself over the loopback", LOOPBACK),
    Row("has a user's name", "import getpass; assert getpass.getuser()"),
    Row("maps a file of $TMPDIR as machine code", MAP_AS_CODE),
    Row("finds the umask 022", "assert os.umask(0o022) == 0o022"),
    Row("sets the umask 077", STRICT),
    Row("leaves folders on four levels", "os.makedirs(out + '/checkpoint/a/b/c')"),
    Row("is refused to write into /in, or not", "tolerate(fill, os.path.dirname(setup['config']), 1)"),
    Row("has exactly the variables of the protocol", f"assert set(os.environ) == {VARIABLES}"),
    Row("prints some lines", "print('x' * 50_000)"),
)
UNLAWFUL = (
    Row("fills $TMPDIR", FILL, "output", limit=True),
    Row("fills $TMPDIR with several files", MANY_FILES % "os.environ['TMPDIR']", "output", limit=True),
    Row("fills $TMPDIR and goes on", KEEP_FILLING, "output", limit=True),
    Row("fills $TMPDIR and exits", f"{KEEP_FILLING}; os._exit(0)", "output", limit=True),
    Row("fills $TMPDIR and sleeps", f"{KEEP_FILLING}; time.sleep(60)", "output", limit=True, limits=SHORT),
    Row("writes 9,000 files of one byte, a page each", SMALL_FILES.format(count=9000), "output", limit=True),
    Row("fills $TMPDIR below a long path", f"{LONG_PATH.strip()}\nfill('.', 40)", "output", limit=True),
    Row("fills /out", "fill(out, 12)", "output", limit=True),
    Row("fills /out and goes on", "tolerate(fill, out, 12)", "output", limit=True),
    Row("fills /out with files up to its last inode", FILES % 200, "output", limit=True),
    Row("leaves more files than it may", FILES % 21, "output", limit=True),
    Row("leaves folders on six levels", "os.makedirs(out + '/a/b/c/d/e/f')", "output", limit=True),
    Row("leaves a symbolic link", "os.symlink('/etc/passwd', out + '/link')", "output"),
    Row(
        "leaves a file with two names",
        "open(out + '/a', 'w').close(); os.link(out + '/a', out + '/b')",
        "output",
    ),
    Row("leaves a fifo", "os.mkfifo(out + '/fifo')", "output"),
    Row("leaves a name with a space", "open(out + '/a b', 'w').close()", "output"),
    Row("takes too much memory", "held = eat(640)", "memory", limit=True),
    Row("takes too much in a child and goes on", EAT_IN_CHILD, "memory", limit=True),
    Row("takes too much in a child and exits", f"{EAT_IN_CHILD}; os._exit(0)", "memory", limit=True),
    Row(
        "takes too much in a child and closes its socket",
        f"{EAT_IN_CHILD}; wire.socket.close(); time.sleep(60)",
        "memory",
        limit=True,
    ),
    Row("takes too much in a child and sends nonsense", f"{EAT_IN_CHILD}; {NONSENSE}", "memory", limit=True),
    Row("takes too much in four children together", EAT_TOGETHER, "memory", limit=True),
    Row(  # one that ended at once could be gone before a busy judge looks
        "has too many processes and ends with an error",
        f"tolerate(lambda: {FORK}); time.sleep(1.5); raise SystemExit(1)",
        "processes",
        limit=True,
    ),
    Row(
        "has too many processes and goes on",
        f"tolerate(lambda: {FORK}); time.sleep(1.5)",
        "processes",
        limit=True,
    ),
    Row("prints too much", "print('x' * 200_000)", "log", limit=True),
    Row("exits with 0 too early", "os._exit(0)", "contestant"),
    Row("exits with 3", "os._exit(3)", "contestant"),
    Row("fails with an exception", "raise ValueError", "contestant"),
    Row("kills itself with SIGKILL", "os.kill(os.getpid(), signal.SIGKILL)", "contestant"),
    Row("kills itself with SIGTERM", "os.kill(os.getpid(), signal.SIGTERM)", "contestant"),
    Row("kills its process group", "os.killpg(0, signal.SIGKILL)", "contestant"),
    Row("leaves its work to a child", "child(lambda: time.sleep(60)); os._exit(0)", "contestant"),
    Row("aborts", "os.abort()", "contestant"),
    Row("reads where no memory is", "ctypes.string_at(0)", "contestant"),
    Row("closes its socket and stays", "wire.socket.close(); time.sleep(60)", "protocol"),
    Row("sends nonsense", NONSENSE, "protocol"),
    Row("connects a second time", "second = Wire()", "protocol"),
    Row("sleeps past the train clock", "time.sleep(60)", "train-clock", limit=True, limits=SHORT),
)
DIFFERENT = (
    Row(
        "fills shared memory with one file",
        "os.unlink(fill('/dev/shm', 40))",
        "contestant",
        unlike={"local": Unlike(None, SHARED_MEMORY)},
    ),
    Row(
        "fills shared memory with several files",
        f"files = {MANY_FILES % repr('/dev/shm')}; [os.unlink(file) for file in files]",
        "contestant",
        unlike={"local": Unlike(None, SHARED_MEMORY)},
    ),
    Row(
        "insists on writing into /in",
        "open(os.path.dirname(setup['config']) + '/more', 'w')",
        "contestant",
        unlike={"local": Unlike(None, SAME_USER)},
    ),
    Row(
        "makes folders on 40 levels in HOME",
        "os.makedirs(os.environ['HOME'] + 40 * '/d')",
        None,
        limit=True,
        unlike={"local": Unlike("output", MEASURED)},
    ),
)
ROWS = (*LAWFUL, *UNLAWFUL, *DIFFERENT)

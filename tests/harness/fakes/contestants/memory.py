"""A contestant with memory: the scorer leaves what it saw wherever it can, the witness searches for it
and prints what it finds.

Replaces functions of honest.py (conftest.pyz); the test sets MARK and TOKENS. Both roles predict uniformly,
so only the log shows what passed. Standard library only.
"""

import array
import ctypes
import json
import math
import os
import platform
import socket
import time
import zlib

MARK = "pgolf-memory-mark"
TOKENS = "/nowhere/val_000000.bin"
CHUNK = 512
BITS = 1024
PAGE = 4096


def places(setup):
    """A path in every folder that outlives a process on some system, and in the folders of the protocol."""
    named = ("HOME", "TMPDIR")
    folders = [
        "/tmp",
        "/dev/shm",
        "/var/tmp",
        "/dev/mqueue",
        "/run",
        "/run/pgolf",
        "/in",
        "/usr",
        "/",
        ".",
        setup["out"],
        os.path.dirname(setup["tokenizer"]),
        *(os.environ.get(name, "/nowhere") for name in named),
    ]
    return sorted({os.path.abspath(folder) + "/" + MARK for folder in folders})


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
LIBC.shmget.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (-1, -1))
"""System calls without a function in libc."""
USER_KEYRING, SEARCH, UNLINK = -4, 10, 9
CREATE, REMOVE = 0o1600, 0


def segment(flags):
    """The id of this mark's System V shared memory; below zero where there is none or it is not
    accessible.
    """
    return LIBC.shmget(zlib.crc32(MARK.encode()) & 0x7FFFFFFF, PAGE, flags)


def leave_in_kernel(seen):
    """Write a System V shared memory segment and a key in the user's keyring, which outlive every process."""
    at = LIBC.shmat(segment(CREATE), None, 0)
    if at not in (None, ctypes.c_void_p(-1).value):
        ctypes.memmove(at, seen, min(PAGE, len(seen)))
    LIBC.syscall(ADD_KEY, b"user", MARK.encode(), seen[:PAGE], min(PAGE, len(seen)), USER_KEYRING)


def find_in_kernel():
    """Which of the two exist; they are removed."""
    found = []
    if (left := segment(0)) >= 0:
        found.append("System V shared memory")
        LIBC.shmctl(left, REMOVE, None)
    if (key := LIBC.syscall(KEYCTL, SEARCH, USER_KEYRING, b"user", MARK.encode(), 0)) >= 0:
        found.append("keyring")
        LIBC.syscall(KEYCTL, UNLINK, key, USER_KEYRING)
    return found


def leave(setup, seen):
    """Write the tokens to every place, into the kernel, and into a process behind an abstract socket
    that tries to survive.
    """
    leave_in_kernel(seen)
    for place in places(setup):
        try:
            with open(place, "wb") as file:
                file.write(seen)
        except OSError:
            pass
    if os.fork() == 0:
        os.setsid()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind("\0" + MARK)
            listener.listen()
            listener.settimeout(30)
            listener.accept()[0].sendall(seen)
        finally:
            os._exit(0)


def find(setup):
    """The places where something is left of the scorer, and whether the token file exists here."""
    found = [os.path.dirname(place) for place in places(setup) if os.path.exists(place)]
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect("\0" + MARK)
            found.append("abstract socket")
        except OSError:
            pass
    return found + find_in_kernel() + ["token file"] * os.path.exists(TOKENS)


def largest():
    """The largest file of the image: few of its pages are ever read."""
    files = (os.path.join(folder, name) for folder, _, names in os.walk("/usr") for name in names)
    return max((path for path in files if not os.path.islink(path)), key=os.path.getsize)


def pages(path):
    """A descriptor without read-ahead, and one page offset for each bit, far apart."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    apart = os.fstat(file).st_size // PAGE // BITS
    return file, [i * apart * PAGE for i in range(BITS)]


def send(bits):
    """Drop the file's pages from the cache, and read the pages of the bits that are 1."""
    file, offsets = pages(largest())
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    for offset, bit in zip(offsets, bits, strict=True):
        if bit:
            os.pread(file, 1, offset)


def receive():
    """The method, and a 1 for each page in the cache: by RWF_NOWAIT, or where the file system refuses that,
    by the time that a read takes.
    """
    file, offsets = pages(largest())
    try:
        return "nowait", [cached(file, offset) for offset in offsets]
    except OSError:
        took = []
        for offset in offsets:
            begun = time.perf_counter_ns()
            os.pread(file, 1, offset)
            took.append(time.perf_counter_ns() - begun)
        ordered = sorted(took)
        limit = math.sqrt(ordered[len(took) // 4] * ordered[3 * len(took) // 4])
        return "timing", [int(nanoseconds < limit) for nanoseconds in took]


def cached(file, offset):
    """Whether a page can be read without waiting for the disk."""
    try:
        os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT)
        return 1
    except BlockingIOError:
        return 0


def score(wire, setup):
    size, seen, known = setup["vocab_size"], b"", 0
    if setup["role"] == "witness":
        how, bits = receive()
        print(json.dumps({"found": find(setup), "how": how, "bits": bits}), flush=True)
    row = array.array("f", [-math.log(size)] * size).tobytes()
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    while True:
        frame, payload = wire.receive()
        known += len(payload) // 2
        if frame["op"] == "score":
            seen += payload
            numbers = array.array(
                "f", [0.0 if frame["start"] + i == 0 else math.log(size) for i in range(len(payload) // 2)]
            )
            if known == setup["tokens"]:  # before the last answer: the judge may end the process after it
                leave(setup, seen)
                send([seen[2 * i] & 1 for i in range(BITS)])
            wire.send(numbers.tobytes() + row * (known < setup["tokens"]), op="nats", chunk=frame["chunk"])
        elif frame["op"] == "reveal":
            wire.send(op="revealed")
        elif frame["op"] == "predict":
            wire.send(row, op="row")
        else:
            return

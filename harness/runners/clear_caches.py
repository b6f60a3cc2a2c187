"""The script that clears page cache and GPU memory between a scorer and its witness.

It runs in a container of the contestants' image, with the image's Python; the judge never executes it itself.
Two containers of one image share the page cache of its files. One can choose which pages are in memory and
the other can measure it: 1,024 bits with one or two wrong (docs/certificate.md, Isolation). So the script
tells the kernel to drop the pages of every file. Reading every file in full instead would not close the
channel: pages that were loaded one by one are read at a different speed from pages that were read ahead
together. The script also overwrites all free memory of each GPU.

Not covered: pages that this script's own Python or another container's process maps, which stay in memory;
caches inside the processor. Files that the contestants' user cannot open need no clearing.
"""

from __future__ import annotations

SCRIPT = r"""
import os
import sys

SKIPPED = {"proc", "sys", "dev", "in", "out", "tmp"}  # not files of the image, or private to this container
files = 0
for top in sorted(set(os.listdir("/")) - SKIPPED):
    for folder, _, names in os.walk("/" + top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except PermissionError:
                continue
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
            files += 1
print(f"{files:,} files of the image dropped from the page cache", end="")
if int(sys.argv[1]):
    import torch
    for card in range(torch.cuda.device_count()):
        blocks, n_bytes, filled = [], 1 << 30, 0
        while n_bytes >= 1 << 20:
            try:
                blocks.append(torch.full((n_bytes,), 0xA5, dtype=torch.uint8, device=f"cuda:{card}"))
                filled += n_bytes
            except torch.cuda.OutOfMemoryError:
                n_bytes //= 2
        torch.cuda.synchronize(card)
        print(f", {filled:,} bytes of GPU {card} overwritten", end="")
"""

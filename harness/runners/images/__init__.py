"""The parts behind harness/runners/images/build.py: pins and locks, wheels, root filesystems."""

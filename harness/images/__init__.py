"""The parts behind harness/image.py: pins and locks, wheels, root filesystems."""

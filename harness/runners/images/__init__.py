"""The images that contestants run in: pins and locks, wheels, root filesystems, and building from them."""

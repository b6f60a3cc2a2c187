"""Arrays in files: the container, compressors, and entropy coding."""

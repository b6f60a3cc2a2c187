"""Storage of arrays: the file format, compressors, and entropy coding."""

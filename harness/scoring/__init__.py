"""From numbers to statements: bits per byte, significance, certificate. Arrays in, no file, no socket, no
clock."""

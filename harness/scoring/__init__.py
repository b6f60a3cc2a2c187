"""From numbers to statements: bits per byte, significance, certificate. Arrays in; no files, sockets or clocks."""

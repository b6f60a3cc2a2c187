"""What judge and contestant say to each other, in which order and by which clock (docs/protocol.md)."""

PROTOCOL_VERSION = 1
"""What a contestant sends as `protocol` in its `hello`."""

"""What judge and contestant say to each other, in which order and by which clock (docs/protocol.md)."""

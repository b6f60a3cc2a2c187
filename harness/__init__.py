"""The judge of the Parameter Golf challenge: runs a contestant in isolation, reveals the text, and owns the
metric.

Nothing here imports torch or the contestant's package; the socket protocol (docs/protocol.md) is all they
share."""

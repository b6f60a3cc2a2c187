"""The error that ends a stage with one line for people instead of a traceback (golf/__main__.py)."""

from __future__ import annotations


class StageError(RuntimeError):
    """The stage cannot go on for a reason that its author can act on; the text says what to do."""

"""Measurements of the judge itself: `python -m harness.commands.bench.judge`. Only documents and people use
it."""

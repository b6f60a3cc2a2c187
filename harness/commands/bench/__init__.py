"""Measurements of the judge itself, run by hand: `python -m harness.commands.bench.judge`."""

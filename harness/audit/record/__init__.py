"""Reading a record folder: submission*.json, logs of both dialects, README, each fact with its place.

One idea a file: facts (the types), claims (JSON keys), lines and logs (what was printed), headline (which
lines count), assemble (the folder). Not covered: judging what was read (harness/audit/numbers)."""

from harness.audit.record.assemble import read
from harness.audit.record.facts import Record, schema

__all__ = ["Record", "read", "schema"]

"""Read a record folder, each fact with its file and line: submission*.json, logs of both dialects, README.

One subject a file: facts (the types), claims (JSON keys), lines and logs (what was printed), headline (which
lines count), assemble (the folder), report (the seeds of a report). `harness/audit/numbers` judges the facts.
"""

from harness.audit.record.assemble import read
from harness.audit.record.facts import Record, schema

__all__ = ["Record", "read", "schema"]

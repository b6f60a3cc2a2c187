"""Where a contestant runs: `docker` isolates it, `local` only limits it. Both keep one interface
(base.py)."""

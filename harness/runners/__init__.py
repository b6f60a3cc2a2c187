"""Where a contestant runs: `docker` isolates it, `local` only limits it. Both implement the
interface in base.py.
"""

"""An address as messages show it: without what may be secret."""

from __future__ import annotations

import re

from harness.base.text import plain

ADDRESS = re.compile(r"(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.-]*://)?)(?P<place>[^?#]*)(?P<query>.*)", re.DOTALL)


def without_secrets(address: str) -> str:
    """`address`, which need not be a valid one, without user, password, query and fragment."""
    found = ADDRESS.fullmatch(address)
    assert found is not None, "every part may be empty"
    _, at, place = found["place"].rpartition("@")
    if "@" in found["query"]:  # a part of the query, or a password with ? or # in it
        return plain(f"{found['scheme']}...")
    return plain(f"{found['scheme']}{'...@' if at else ''}{place}")

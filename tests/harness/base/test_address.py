"""Addresses are shown without their secrets."""

from __future__ import annotations

import pytest

from harness.base.address import without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://host:8/folder/file", "https://host:8/folder/file"),
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("https://me:secret@host/file?token=secret#secret", "https://...@host/file"),
        ("https://host/file?token=secret", "https://host/file"),
        ("me:secret@host", "...@host"),
        ("tcp://me:sec/ret@host:1", "tcp://...@host:1"),
        ("tcp://me:sec?ret@host:1", "tcp://..."),
        ("https://host/file?mail=me@secret", "https://..."),
        ("tcp://me:sec@ret@host\x1b", "tcp://...@host\\x1b"),
        ("http://me:secret@[bad/x", "http://...@[bad/x"),
    ],
)
def test_user_password_query_and_fragment_are_left_out(address: str, shown: str) -> None:
    assert without_secrets(address) == shown

"""Downloads over a real connection: what is there is not sent again, and a server says when to come back."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.base import download
from harness.base.errors import MachineFault, UsageError
from tests.harness.fakes.hub import Hub

CONTENT = random.Random(0).randbytes(300_000)
FAR = "Mon, 01 Jan 2020 00:00:00 -9999999999999"
"""A date in a time zone that no date can hold."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    stand_in = Hub({"file": CONTENT})
    yield stand_in
    stand_in.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, which does not take place."""
    waited: list[float] = []
    monkeypatch.setattr("harness.base.download.sleep", waited.append)
    return waited


def fetch(hub: Hub, part: Path, n_bytes: int | None = len(CONTENT), path: str = "file") -> bytes:
    download.fetch(hub.url(path), part, max_bytes=1 << 20, n_bytes=n_bytes)
    return part.read_bytes()


@pytest.mark.parametrize("n_bytes", [None, len(CONTENT)])
def test_a_file_arrives_whole(hub: Hub, tmp_path: Path, n_bytes: int | None) -> None:
    assert fetch(hub, tmp_path / "folder" / "part", n_bytes) == CONTENT


def test_what_is_there_is_not_sent_again(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT[:200_000])
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert (hub.ranges, hub.n_sent["file"]) == (["bytes=200000-"], 100_000)
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert hub.n_sent["file"] == 100_000, "a whole part costs no request"


def test_a_part_longer_than_the_file_begins_anew(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(bytes(400_000))
    assert fetch(hub, tmp_path / "part") == CONTENT


def test_a_server_without_ranges_sends_the_whole_file(hub: Hub, tmp_path: Path) -> None:
    hub.no_ranges = True
    (tmp_path / "part").write_bytes(b"x" * 1000)
    assert fetch(hub, tmp_path / "part") == CONTENT


def test_a_file_that_became_shorter_begins_anew(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    (tmp_path / "part").write_bytes(bytes(400_000))
    assert fetch(hub, tmp_path / "part", None) == CONTENT
    assert hub.ranges == ["bytes=400000-"]


def test_a_part_that_has_the_files_size_is_the_file_and_is_not_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    """A kill can come after the last byte; only the server knows the size."""
    (tmp_path / "part").write_bytes(CONTENT)
    assert fetch(hub, tmp_path / "part", None) == CONTENT
    assert (hub.ranges, hub.n_sent["file"]) == (["bytes=300000-"], 0)


def test_a_server_that_breaks_and_then_cannot_continue_is_not_asked_for_ever(
    hub: Hub, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part grows by enough each time, and is thrown away each time."""
    monkeypatch.setattr(download, "MIN_PROGRESS_BYTES", 100_000)

    def next_turn(seconds: float) -> None:
        waits.append(seconds)
        assert len(waits) < 20
        hub.cut["file"] = 250_000
        if (tmp_path / "part").stat().st_size:
            hub.refusals = [("GET", 416, {"Content-Range": "bytes */300000"})]

    monkeypatch.setattr("harness.base.download.sleep", next_turn)
    hub.cut["file"] = 250_000
    with pytest.raises(MachineFault, match="6 times in a row"):
        fetch(hub, tmp_path / "part")
    assert waits == [1, 2, 4, 8, 16]


def test_each_byte_is_kept_and_told_as_it_arrives(
    hub: Hub, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (20, 0.4))
    hub.stall["file"] = 10
    told: list[int] = []

    def on_progress(n_bytes: int) -> None:
        told.append(n_bytes)
        hub.stall.clear()

    download.fetch(hub.url("file"), tmp_path / "part", max_bytes=1 << 20, progress=on_progress)
    assert (told[0], told[-1], hub.ranges[0]) == (10, 300_000, "bytes=10-")


def test_a_server_that_sends_too_slowly_counts_as_one_that_breaks(
    hub: Hub, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(step=3600)
    monkeypatch.setattr(download, "clock", lambda: float(next(hours)))
    monkeypatch.setattr(download, "BLOCK_BYTES", 1000)
    with pytest.raises(MachineFault, match=r"1,000 bytes in 600 s are too few, 6 times in a row"):
        fetch(hub, tmp_path / "part")
    assert (tmp_path / "part").stat().st_size == 6000


def test_a_range_of_a_file_of_another_size_is_not_appended(
    hub: Hub, tmp_path: Path, waits: list[float]
) -> None:
    hub.files["file"] = CONTENT + b"longer"
    (tmp_path / "part").write_bytes(CONTENT[:1000])
    with pytest.raises(UsageError, match="more than the expected 300,000 bytes"):
        fetch(hub, tmp_path / "part")


def test_more_bytes_than_announced_are_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than the expected 1,000 bytes"):
        fetch(hub, tmp_path / "part", 1000)
    with pytest.raises(UsageError, match="more than the expected 99 bytes"):
        download.fetch(hub.url("file"), tmp_path / "other", max_bytes=99)


def test_broken_connections_are_taken_up_and_told(
    hub: Hub, tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.cut["file"] = 150_000
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert waits == [1.0]
    assert "the connection failed (ProtocolError): waiting 1 s (1 of 5)" in capsys.readouterr().err


def test_an_answer_that_ends_early_without_an_error_is_taken_up(
    hub: Hub, tmp_path: Path, waits: list[float]
) -> None:
    """The server believes that the file ends there; the caller's size is another."""
    hub.lies["file"] = CONTENT[:100_000]
    with pytest.raises(MachineFault, match="6 times in a row"):
        fetch(hub, tmp_path / "part")
    hub.lies.clear()
    assert fetch(hub, tmp_path / "part") == CONTENT


def test_a_file_is_not_complete_before_the_size_that_a_range_tells(
    hub: Hub, tmp_path: Path, waits: list[float]
) -> None:
    """The caller does not know the size, and the server sends less than was asked for."""
    (tmp_path / "part").write_bytes(CONTENT[:150_000])
    hub.range_bytes["file"] = 100_000
    assert fetch(hub, tmp_path / "part", None) == CONTENT
    assert (hub.ranges, waits) == (["bytes=150000-", "bytes=250000-"], [1])


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    hub: Hub, tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str], status: int
) -> None:
    in_a_minute = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    hub.refusals = [
        ("GET", status, {"Retry-After": "7"}),
        ("GET", status, {"Retry-After": email.utils.format_datetime(in_a_minute, usegmt=True)}),
        ("GET", status, {"RateLimit": '"resolvers";r=0;t=41'}),
        ("GET", status, {}),
    ]
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert waits[0] == 7 and 50 < waits[1] <= 60 and waits[2:] == [41, 8]
    assert f"file: the server answers {status}: waiting 7 s (1 of 5)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("Retry-After", "86400", "86,400 s"),
        ("Retry-After", "1000000000", "1,000,000,000 s"),
        ("Retry-After", "9" * 400, "1,000,000,000 s"),
        ("RateLimit", '"resolvers";r=0;t=1000000', "1,000,000 s"),
    ],
)
def test_a_server_that_asks_for_hours_ends_the_download_with_that_time(
    hub: Hub, tmp_path: Path, waits: list[float], name: str, value: str, told: str
) -> None:
    hub.refusals = [("GET", 429, {name: value})]
    with pytest.raises(MachineFault, match=f"asks to wait {told}"):
        fetch(hub, tmp_path / "part")
    assert waits == []


@pytest.mark.parametrize("asked", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_asks_for_no_wait_is_asked_again_after_the_ordinary_one(
    hub: Hub, tmp_path: Path, waits: list[float], asked: str
) -> None:
    hub.refusals = [("GET", 503, {"Retry-After": asked})] * 3
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert waits == [1, 2, 4]


def test_a_server_that_stays_busy_is_asked_six_times(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.refusals = [("GET", 503, {})] * 10
    with pytest.raises(MachineFault, match="the server answers 503, 6 times in a row"):
        fetch(hub, tmp_path / "part")
    assert (waits, len(hub.refusals)) == ([1, 2, 4, 8, 16], 4)


@pytest.mark.parametrize("asked", ["soon", "-5", "1e9", "", "Wed, 99 Foo 2026", FAR])
def test_a_time_that_cannot_be_read_counts_as_none(asked: str) -> None:
    assert download.seconds_asked_for({"Retry-After": asked}) is None


def test_a_date_that_has_passed_is_no_wait() -> None:
    assert download.seconds_asked_for({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_a_missing_file_is_refused_at_once(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(MachineFault, match="the server answers 404"):
        fetch(hub, tmp_path / "part", path="absent")
    assert waits == []


@pytest.mark.parametrize(
    "address",
    [
        "ftp://me:secret@host/file?token=secret",
        "http://me:secret@[bad/file",
        "http://me:secret@host:x/file",
        "http://me:secret@\uff20\u2100/file",
        "me:secret@host",
        "",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secrets(
    address: str, tmp_path: Path, waits: list[float]
) -> None:
    with pytest.raises(MachineFault, match="the download failed") as caught:
        download.fetch(address, tmp_path / "part", max_bytes=99)
    assert ("secret" in str(caught.value), waits) == (False, [])


def test_no_message_names_the_signature_of_an_address_that_a_server_redirects_to(
    hub: Hub, tmp_path: Path
) -> None:
    hub.refusals = [("GET", 302, {"Location": "ftp://host/file?signature=secret"})]
    with pytest.raises(MachineFault, match="the download failed") as caught:
        fetch(hub, tmp_path / "part")
    assert "secret" not in str(caught.value)


def test_a_server_without_tls_is_not_asked_again(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(MachineFault, match=r"TLS with the server failed \(") as caught:
        download.fetch(hub.url("file").replace("http:", "https:"), tmp_path / "part", max_bytes=99)
    assert ("REQUESTS_CA_BUNDLE" in caught.value.hint, waits) == (True, [])


def test_signers_of_certificates_that_are_missing_are_not_blamed_on_the_disk(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with pytest.raises(MachineFault, match=r"file: .*certificate.*/nowhere") as caught:
        download.fetch(hub.url("file").replace("http:", "https:"), tmp_path / "part", max_bytes=99)
    assert "cannot be written" not in caught.value.message


def test_no_message_names_the_secrets_of_an_address(hub: Hub, tmp_path: Path) -> None:
    secret = hub.url("absent").replace("127.0.0.1", "me:secret@127.0.0.1") + "?token=secret"
    with pytest.raises(MachineFault) as caught:
        download.fetch(secret, tmp_path / "part", max_bytes=99)
    assert "secret" not in str(caught.value)


def test_a_redirect_is_followed_without_passwords(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(
        "machine 127.0.0.1 login me password secret\nmachine localhost login me password secret\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    hub.elsewhere = True
    (tmp_path / "part").write_bytes(CONTENT[:200_000])
    assert fetch(hub, tmp_path / "part") == CONTENT
    assert hub.n_sent["file"] == 100_000
    assert hub.authorizations == []


def test_a_redirect_to_what_is_no_web_address_ends_the_download(hub: Hub, tmp_path: Path) -> None:
    hub.refusals = [("GET", 302, {"Location": "file:///etc/passwd"})]
    with pytest.raises(MachineFault, match="the download failed"):
        fetch(hub, tmp_path / "part")


def test_a_folder_that_cannot_be_written_is_a_machine_fault(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="cannot be written"):
        fetch(hub, tmp_path / "file" / "part")


def test_a_file_that_changes_between_two_requests_is_not_mixed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is told which file the rest is of (If-Range)."""
    other = bytes(reversed(CONTENT))
    hub.cut["file"] = 150_000
    monkeypatch.setattr("harness.base.download.sleep", lambda seconds: hub.files.update(file=other))
    found = fetch(hub, tmp_path / "part", None)
    assert hashlib.sha256(found).digest() == hashlib.sha256(other).digest()

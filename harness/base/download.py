"""Download a file over HTTP into a part file that a later call, also after a kill, continues.

A request asks for the bytes that are missing; where the server sends the whole file instead, the part begins
anew. A connection that breaks, 429, 503 and other answers that may pass are tried again: after 1, 2, 4, ...
seconds, or the longer time that the server asks for (Retry-After, or `t` of RateLimit), and stderr says what
is waited for. A server that sends less than MIN_PROGRESS_BYTES in SLOWEST_SECONDS counts as
a connection that breaks. No credentials are sent, neither to the server nor to where it redirects, and no
message shows an address with its secrets.

Not covered: whether the bytes are the right ones (callers compare hashes), and a server that sends the head
of its answer letter by letter.
"""

from __future__ import annotations

import datetime
import email.utils
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import requests
import urllib3

from harness.base import disk
from harness.base.address import without_secrets
from harness.base.errors import MachineFault, UsageError
from harness.base.text import plain

MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request can succeed."""
FAILURES = 6
"""The download ends after so many failures between which it did not come MIN_PROGRESS_BYTES further."""
MIN_PROGRESS_BYTES = 1 << 20
SLOWEST_SECONDS = 600.0
"""The longest time in which an answer may bring less than MIN_PROGRESS_BYTES."""
LONGEST_WAIT_SECONDS = 600.0
"""A server that asks for a longer wait ends the download, with the time in the message."""
MOST_SECONDS = 1e9
"""Any number of seconds above this one, some 30 years, is read and shown as this one."""
TIMEOUT_SECONDS = (20, 60)
"""To connect, and between two bytes."""
BLOCK_BYTES = 64 << 10
"""The most that is written at once, and so the most that a kill loses."""
AGAIN_HINT = "is there a network? Run the same command again: it goes on where it stopped"
TLS_HINT = (
    "does the server speak TLS, and does this machine know who signed its certificate? REQUESTS_CA_BUNDLE "
    "names a file of further signers, such as a company's proxy"
)
ADDRESS_HINT = "is the address right? The file may have moved, become private, or be out of reach from here"
CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)")
RATE_LIMIT = re.compile(r";\s*t=([0-9]+)\b")

Value = TypeVar("Value")
sleep, clock = time.sleep, time.monotonic


class MayPass(Exception):
    """A failure after which the same request can succeed.

    `seconds`: how long the server asks to wait, or None.
    """

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.why, self.seconds = why, seconds


def seconds_asked_for(headers: Mapping[str, str]) -> float | None:
    """How long a server asks to wait: Retry-After in seconds or as a date, or `t` of RateLimit; else None."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", asked):
        return min(float(asked), MOST_SECONDS)
    try:
        until = email.utils.parsedate_to_datetime(asked)
    except (ValueError, OverflowError):  # a time zone may be thousands of years away
        limit = RATE_LIMIT.search(headers.get("RateLimit", ""))
        return min(float(limit[1]), MOST_SECONDS) if limit else None
    now = datetime.datetime.now(datetime.UTC)
    return max((until.replace(tzinfo=until.tzinfo or datetime.UTC) - now).total_seconds(), 0.0)


def status_may_pass(status: int, headers: Mapping[str, str]) -> MayPass | None:
    """The failure that an HTTP status stands for, or None for any other status."""
    return MayPass(f"the server answers {status}", seconds_asked_for(headers)) if status in MAY_PASS else None


def connection_failure(error: Exception, what: str) -> MayPass | MachineFault:
    """What it means that a connection failed: MayPass, but for TLS that will fail again, such as for
    a certificate that this machine does not trust.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, ssl.SSLEOFError):
        return MayPass(f"the connection failed ({type(error).__name__})")
    why = f"{what}: TLS with the server failed ({getattr(cause, 'reason', None) or type(cause).__name__})"
    return MachineFault(why, hint=TLS_HINT)


def retrying(action: Callable[[], Value], what: str, n_arrived: Callable[[], int] = lambda: 0) -> Value:
    """The result of `action`, which is called again after a MayPass. Raises MachineFault if it does not pass.

    `what`: the thing that is asked for, for the messages. `n_arrived`: the bytes of it that are there. What
    is thrown away and arrives again is no progress.
    """
    failures = most = 0
    while True:
        try:
            return action()
        except MayPass as error:
            n_bytes = n_arrived()
            failures, most = (1, n_bytes) if n_bytes >= most + MIN_PROGRESS_BYTES else (failures + 1, most)
            seconds = max(2.0 ** (failures - 1), error.seconds or 0)
            why = plain(f"{what}: {error.why}")
            if failures == FAILURES:
                raise MachineFault(f"{why}, {failures} times in a row", hint=AGAIN_HINT) from error
        if seconds > LONGEST_WAIT_SECONDS:
            raise MachineFault(
                f"{why} and asks to wait {seconds:,.0f} s",
                hint="run the same command again after that time: it goes on where it stopped",
            )
        print(f"{why}: waiting {seconds:.0f} s ({failures} of {FAILURES - 1})", file=sys.stderr, flush=True)
        sleep(seconds)


class _Session(requests.Session):
    """Uses the machine's proxies and certificates, and no passwords of ~/.netrc."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request
        self.headers.update({"User-Agent": "pgolf", "Accept-Encoding": "identity"})
        self.max_redirects = 5

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Send nothing to where the server redirects; the library would look into ~/.netrc again."""
        prepared_request.headers.pop("Authorization", None)


class _Download:
    """One file on its way from `url` to `part`."""

    def __init__(
        self, url: str, part: Path, n_bytes: int | None, max_bytes: int, progress: Callable[[int], None]
    ) -> None:
        self.url, self.part, self.n_bytes, self.max_bytes = url, part, n_bytes, max_bytes
        self.progress = progress
        self.name = without_secrets(url)
        self.etag = ""

    def attempt(self) -> None:
        """Ask for what is missing and append it. Raises MayPass, or HarnessError for what will fail again."""
        have = self.n_arrived()
        if self.n_bytes is not None and have > self.n_bytes:
            have = 0
        if have != self.n_bytes:
            with _Session() as session:
                self._receive(session, have)

    def n_arrived(self) -> int:
        return self.part.stat().st_size

    def _ask(self, session: requests.Session, headers: dict[str, str]) -> requests.Response:
        """The head of the server's answer. No error is shown with its text, which may hold the address."""
        try:
            return session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.ProtocolError) as error:
            raise connection_failure(error, self.name) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            why = f"{self.name}: the download failed ({type(error).__name__})"
            raise MachineFault(why, hint=ADDRESS_HINT) from error
        except OSError as error:  # REQUESTS_CA_BUNDLE names no file
            raise MachineFault(f"{self.name}: {plain(str(error))}", hint=TLS_HINT) from error

    def _receive(self, session: requests.Session, have: int) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self.etag:
            headers["If-Range"] = self.etag
        with self._ask(session, headers) as answer:
            if self.n_bytes is None and have and _says_complete(answer, have):
                return
            start, n_bytes = self._start(answer, have)
            self.etag = answer.headers.get("ETag", "")
            with self.part.open("ab") as file:
                file.truncate(start)
                for block in self._blocks(answer):
                    start += len(block)
                    if start > self.max_bytes:
                        raise UsageError(
                            f"{self.name}: more than the expected {self.max_bytes:,} bytes",
                            hint="this is not the file that was meant, or it was replaced",
                        )
                    file.write(block)
                    file.flush()  # a kill loses no more than a block
                    self.progress(start)
        if n_bytes is not None and start < n_bytes:
            raise MayPass(f"the answer ended after {start:,} of {n_bytes:,} bytes")

    def _blocks(self, answer: requests.Response) -> Iterator[bytes]:
        """The content as it arrives, in blocks of at most BLOCK_BYTES. Raises MayPass where too few come."""
        since, n_bytes = clock(), 0
        try:
            while block := answer.raw.read1(BLOCK_BYTES, decode_content=True):
                yield block
                n_bytes += len(block)
                if n_bytes >= MIN_PROGRESS_BYTES:
                    since, n_bytes = clock(), 0
                elif clock() - since > SLOWEST_SECONDS:
                    raise MayPass(f"{n_bytes:,} bytes in {SLOWEST_SECONDS:.0f} s are too few")
        except urllib3.exceptions.HTTPError as error:
            raise MayPass(f"the connection failed ({type(error).__name__})") from error

    def _start(self, answer: requests.Response, have: int) -> tuple[int, int | None]:
        """Where in the file the answer begins, and the file's size where the caller or the answer's range
        tells it. Raises MayPass or MachineFault for another file.
        """
        if (passing := status_may_pass(answer.status_code, answer.headers)) is not None:
            raise passing
        if answer.status_code == 200:
            return 0, self.n_bytes
        found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        total = str(self.n_bytes) if self.n_bytes is not None else "*"
        if (
            answer.status_code == 206
            and found
            and int(found[1]) == have
            and (found[2] == "*" or total in ("*", found[2]))
        ):
            return have, self.n_bytes if found[2] == "*" else int(found[2])
        if answer.status_code in (206, 416) and have:
            os.truncate(self.part, 0)  # the server has another file, or none of the rest: begin anew
            raise MayPass(f"the server cannot continue after {have:,} bytes")
        raise MachineFault(f"{self.name}: the server answers {answer.status_code}", hint=ADDRESS_HINT)


def _says_complete(answer: requests.Response, have: int) -> bool:
    """Whether the server sends nothing because its file has as many bytes as are here: a kill can come
    between the last byte and the caller's next step.
    """
    return answer.status_code == 416 and answer.headers.get("Content-Range", "") == f"bytes */{have}"


def fetch(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    n_bytes: int | None = None,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Bring the file at `url` to `part`, after the bytes that are there already.

    `n_bytes`: the file's size where it is known; `progress` gets the bytes that are there. Raises UsageError
    for a file larger than `max_bytes`, MachineFault for one that the server refuses, for a connection that
    keeps failing, and for a disk that refuses the file.
    """
    download = _Download(url, part, n_bytes, n_bytes if n_bytes is not None else max_bytes, progress)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        retrying(download.attempt, download.name, download.n_arrived)
    except OSError as error:
        raise disk.machine_fault(error, part, f"{part}: cannot be written") from error

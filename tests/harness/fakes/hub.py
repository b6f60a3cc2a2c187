"""A small stand-in of the Hugging Face hub on this machine, with faults on request."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections import Counter

COMMIT = "c" * 40
REPOSITORY = "someone/parameter-golf"


class Hub:
    """Files of one repository over HTTP, as the hub serves them.

    Faults, by path where they concern one file:
        cut            bytes after which the connection breaks, once
        stall          bytes after which nothing more comes until `close`
        range_bytes    the most bytes that an answer with a range brings
        lies           content sent under the true file's hash
        refusals       (method, status, headers): the next answers to that method
        no_ranges      whether every answer is the whole file
        elsewhere      whether a file is redirected to another host name, as the hub does with large ones
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.range_bytes: dict[str, int] = {}
        self.lies: dict[str, bytes] = {}
        self.refusals: list[tuple[str, int, dict[str, str]]] = []
        self.no_ranges = self.elsewhere = False
        self.ranges: list[str] = []
        self.sent: list[str] = []
        self.n_sent: Counter[str] = Counter()
        """Bytes of each file that were sent, or are on their way."""
        self.authorizations: list[str] = []
        self._closed = threading.Event()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str, revision: str = COMMIT) -> str:
        return f"{self.endpoint}/datasets/{REPOSITORY}/resolve/{revision}/{path}"

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        self.authorizations += request.headers.get_all("Authorization", [])
        for index, (method, status, headers) in enumerate(self.refusals):
            if method == request.command:
                del self.refusals[index]
                return self._short(request, status, headers)
        for prefix in (
            f"/datasets/{REPOSITORY}/resolve/{COMMIT}/",
            f"/datasets/{REPOSITORY}/resolve/main/",
            "/cdn/",
        ):
            path = request.path.removeprefix(prefix)
            if request.path.startswith(prefix) and path in self.files:
                if self.elsewhere and prefix != "/cdn/":
                    place = f"http://localhost:{self.server.server_port}/cdn/{path}"
                    size = str(len(self.files[path]))
                    linked = {"Location": place, "X-Linked-Size": size, **self._facts(path, "X-Linked-ETag")}
                    return self._short(request, 302, linked)
                return self._send(request, path, body)
        return self._short(request, 404, {"X-Error-Code": "EntryNotFound"})

    def _facts(self, path: str, etag: str) -> dict[str, str]:
        digest = hashlib.sha256(self.files[path]).hexdigest()
        return {"X-Repo-Commit": COMMIT, etag: f'"{digest}"'}

    def _short(
        self, request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            request.send_header(name, value)
        request.end_headers()

    def _send(self, request: http.server.BaseHTTPRequestHandler, path: str, body: bool) -> None:
        content = self.lies.get(path, self.files[path])
        start = 0
        if body and (wanted := request.headers.get("Range")):
            self.ranges.append(wanted)
            same = request.headers.get("If-Range") in (None, self._facts(path, "ETag")["ETag"])
            if same and not self.no_ranges:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
        if start and start >= len(content):
            return self._short(request, 416, {"Content-Range": f"bytes */{len(content)}"})
        total = len(content)
        if start and path in self.range_bytes:
            content = content[: start + self.range_bytes[path]]
        request.send_response(206 if start else 200)
        for name, value in self._facts(path, "ETag").items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{total}")
        request.end_headers()
        if body:
            self.sent.append(path)
            stalled = path in self.stall
            end = self.stall[path] if stalled else self.cut.pop(path, len(content))
            self.n_sent[path] += max(end - start, 0)
            request.wfile.write(content[start:end])
            if stalled:
                self._closed.wait(120)
            request.close_connection = end < len(content)
        return None

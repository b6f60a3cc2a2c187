"""A process for a model, so that each graph is compiled once and a crash ends one model's rows only.

The call asks with `Worker.ask`; in the process, `Requests.serve` answers with the method of that name. A
process that answers too late is killed, since it may hang in a kernel or the compiler, and every later
question to it raises `Skipped`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, NamedTuple

from golf.bench.gpu.results import Failed, Skipped


class Request(NamedTuple):
    """A question to the process: the method's name and arguments."""

    name: str
    arguments: dict[str, Any]


def _told(error: BaseException) -> str:
    """The first line of an error, with its type unless the type only says what becomes of the row."""
    text = str(error).strip().split("\n")[0]
    return text if isinstance(error, (Failed, Skipped)) else f"{type(error).__name__}: {text}"


class Requests:
    """The end of the pipe in the process of a model."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def answer(self, value: object) -> None:
        """Answer the last request."""
        self.pipe.send(("ok", value))

    def refuse(self, error: BaseException) -> None:
        """Answer the last request with an error, after which the process goes on."""
        self.pipe.send(("skipped" if isinstance(error, Skipped) else "failed", _told(error)))

    def serve(self, handler: object) -> Request:
        """Answer requests with the methods of `handler`, until one comes that it lacks, which is returned.

        An error is printed and answered, and the process goes on. EOFError when the call has ended.
        """
        while True:
            request: Request = self.pipe.recv()
            method = getattr(handler, request.name, None)
            if method is None:
                return request
            try:
                self.answer(method(**request.arguments))
            except Exception as error:
                traceback.print_exc()
                self.refuse(error)

    def serve_all(self, handler: object) -> None:
        """Answer requests until the call ends."""
        while True:
            request = self.serve(handler)
            self.refuse(ValueError(f"no request is called {request.name}"))


Work = Callable[Concatenate[Requests, ...], None]


def _in_process(pipe: Connection, work: Work, arguments: tuple[Any, ...], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    requests = Requests(pipe)
    try:
        work(requests, *arguments)
    except EOFError:  # the call has ended
        sys.exit()
    except BaseException as error:
        traceback.print_exc()
        pipe.send(("ended", f"ended: {_told(error)}"))


class Worker:
    """The process of a model; `work` runs in it and must serve requests."""

    def __init__(self, name: str, work: Work, arguments: tuple[Any, ...], log: Path) -> None:
        self.name, self.log, self.ended = name, log, ""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_in_process, args=(theirs, work, arguments, log))
        self.process.start()
        theirs.close()

    def ask(self, request: str, seconds: float, **arguments: Any) -> Any:
        """The answer of the process's method `request`.

        Raises Failed for an error there, for a process that ended or died, and for no answer within
        `seconds`, after which the process is killed; Skipped if it has ended before.
        """
        if self.ended:
            raise Skipped(f"the process of {self.name} {self.ended}")
        try:
            with suppress(ConnectionError):  # a process that has ended may have said why
                self.pipe.send(Request(request, arguments))
            if not self.pipe.poll(max(seconds, 0.0)):
                self._end(f"was ended: no answer to `{request}` within {seconds:.0f} s")
                raise Failed(f"the process of {self.name} {self.ended}")
            outcome, value = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self._end(f"died with status {self.process.exitcode}; see {self.log.name}")
            raise Failed(f"the process of {self.name} {self.ended}") from None
        if outcome == "ended":
            self._end(str(value))
            raise Failed(f"the process of {self.name} {self.ended}")
        if outcome != "ok":
            raise (Skipped if outcome == "skipped" else Failed)(str(value))
        return value

    def _end(self, how: str) -> None:
        self.ended = how
        self.close()

    def close(self) -> None:
        """End the process; its GPU memory becomes free."""
        self.ended = self.ended or "has ended"
        self.pipe.close()
        self.process.kill()
        self.process.join()


class Absent:
    """Stands for a process that was not started: a row that asks it is skipped with the reason."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.ended = name, why

    def ask(self, request: str, seconds: float, **arguments: Any) -> Any:
        """Raises Skipped."""
        raise Skipped(self.ended)

    def close(self) -> None:
        """Nothing to end."""


Process = Worker | Absent

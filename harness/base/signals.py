"""Signals that end a command: it cleans up as after Ctrl-C.

By default they end a process at once: containers, processes and temporary folders would stay. A closed
terminal sends SIGHUP, Ctrl-\\ SIGQUIT, a limit on CPU time SIGXCPU, and batch systems send SIGUSR1, SIGUSR2
or SIGTERM before they kill a job. Not covered: SIGKILL; what it leaves, a later command removes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPTED = "interrupted: the same command does what is left"
"""What an interrupted command says, also after Ctrl-C."""


def interrupt_on_ending_signals() -> None:
    """From now on the first such signal raises KeyboardInterrupt, and those after it are ignored, because the
    command is cleaning up already. A signal that is ignored now (`nohup`) stays ignored, except for SIGCHLD:
    without it nobody learns how a child ended.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Inside the block no signal interrupts; one that came then does at its end.

    For a short request that must not be left half-way. Other threads than the main one are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {
        number: handler
        for number in (signal.SIGINT, *ENDING)
        if callable(handler := signal.getsignal(number)) and not isinstance(handler, int)
    }
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for first, frame in came[:1]:
            handlers[signal.Signals(first)](first, frame)


def restore_defaults() -> None:
    """What a worker process does, whose parent cleans up."""
    for number in ENDING:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> NoReturn:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt

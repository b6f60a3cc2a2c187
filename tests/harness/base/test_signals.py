"""Signals that end a command, and requests that they must not break off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from harness.base.signals import ENDING, interrupt_on_ending_signals, interrupts_held

HANDLED = (signal.SIGINT, signal.SIGCHLD, *ENDING)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    interrupt_on_ending_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_inside_the_block_interrupts_at_its_end(number: signal.Signals) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))  # nohup may have started the tests
    reached = []

    def block() -> None:
        with interrupts_held():
            signal.raise_signal(number)
            reached.append(number)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached == [number]


def test_an_ignored_signal_stays_ignored_and_the_handlers_come_back() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in HANDLED]
    with interrupts_held():
        signal.raise_signal(signal.SIGUSR1)
    assert [signal.getsignal(number) for number in HANDLED] == before


def test_an_error_inside_the_block_is_raised_where_no_signal_came() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts_held():
        raise ValueError("mine")


def test_another_thread_runs_the_block_as_it_is() -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    seen = []

    def block() -> None:
        with interrupts_held():
            seen.extend(signal.getsignal(number) for number in HANDLED)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == before

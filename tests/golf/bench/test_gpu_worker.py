"""The process of a model answers, and its crash, its error and its silence each end only what they must."""

from __future__ import annotations

import os
import time

import pytest

from golf.bench.gpu.results import Failed, Skipped
from golf.bench.gpu.worker import Absent, Worker


class Handler:
    def double(self, number):
        return 2 * number

    def fail(self):
        raise ValueError("wrong\nby far")

    def skip(self):
        raise Skipped("nothing to do")

    def hang(self):
        time.sleep(600)

    def die(self):
        os._exit(7)


def serve(requests):
    print("a line of the log", flush=True)
    requests.serve_all(Handler())


def broken(requests):
    raise RuntimeError("no model")


@pytest.fixture
def start(tmp_path):
    started = []

    def start(work):
        started.append(Worker("model", work, (), tmp_path / "model.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.mark.slow
def test_it_answers_and_goes_on_after_an_error_and_a_skipped_question(start, tmp_path):
    worker = start(serve)
    with pytest.raises(Failed, match=r"^ValueError: wrong$"):
        worker.ask("fail", 60)
    with pytest.raises(Skipped, match=r"^nothing to do$"):
        worker.ask("skip", 60)
    with pytest.raises(Failed, match="no request is called other"):
        worker.ask("other", 60)
    assert worker.ask("double", 60, number=21) == 42
    assert "a line of the log" in (tmp_path / "model.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "seconds", "text"),
    [("die", 60, "died with status 7"), ("hang", 0.2, "no answer to `hang` within 0 s")],
)
def test_one_that_dies_or_is_silent_is_ended_and_later_questions_are_skipped(start, question, seconds, text):
    worker = start(serve)
    assert worker.ask("double", 60, number=1) == 2
    with pytest.raises(Failed, match=text):
        worker.ask(question, seconds)
    assert not worker.process.is_alive()
    with pytest.raises(Skipped, match=text):
        worker.ask("double", 60, number=1)


@pytest.mark.slow
def test_one_that_cannot_start_says_why_to_all_who_ask(start):
    worker = start(broken)
    with pytest.raises(Failed, match="ended: RuntimeError: no model"):
        worker.ask("double", 60, number=1)
    with pytest.raises(Skipped, match="ended: RuntimeError: no model"):
        worker.ask("double", 60, number=1)


def test_in_place_of_a_process_that_was_not_started_stands_the_reason():
    with pytest.raises(Skipped, match="no script"):
        Absent("#586", "no script").ask("ready", 1)

"""The conversations of setup, describe, train and pack: the lawful ones, and each violation of them."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import Violation
from harness.edition import PROFILES
from harness.protocol import conversation as judging
from harness.protocol.frames import Ready, ScoreReady
from harness.protocol.wire import MAX_DESCRIPTORS, Listener
from tests.harness.fakes.peers import SOON, Peer, connect, conversation, no_watch, talking

V = 8
LIMITS = replace(PROFILES["pocket"], setup_seconds=SOON, train_seconds=SOON, pack_seconds=SOON)


# --- hello, setup, ready


def open_stage(
    script: Callable[[Peer], None], stage: str = "train", seconds: float = SOON, kind: type[Ready] = Ready
) -> tuple[Ready, float]:
    """The `ready` frame and the seconds of a stage whose contestant follows `script`."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        listener = Listener(Path(folder) / "s")
        try:
            with talking(script, connect(listener.path)):
                started = judging.StartedStage(stage, listener, time.monotonic(), no_watch)
                setup = {"seed": 1337, "vocab_size": V}
                limits = replace(LIMITS, setup_seconds=seconds)
                _, frame, setup_seconds = judging.open_stage(started, setup, limits, kind)
        finally:
            listener.close()
    return frame, setup_seconds


def test_every_stage_opens_with_hello_setup_and_ready() -> None:
    received = []

    def script(peer: Peer) -> None:
        peer.say(op="hello", protocol=1, stage="score")
        received.append(peer.hear())
        peer.say(op="progress", fraction=0.1, text="compiling")
        time.sleep(0.2)
        peer.say(op="ready", chunk_tokens=512, adapts=True, context=None, world=2)

    frame, seconds = open_stage(script, "score", kind=ScoreReady)
    assert received == [{"op": "setup", "seed": 1337, "vocab_size": V, "payload": b""}]
    assert isinstance(frame, ScoreReady)
    assert (frame.chunk_tokens, frame.adapts, frame.context, frame.world) == (512, True, None, 2)
    assert 0.2 <= seconds < SOON


HELLO = {"op": "hello", "protocol": 1, "stage": "train"}


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ([{**HELLO, "stage": "score"}], "expected stage 'train', got 'score'"),
        ([{**HELLO, "stage": "tr\x1bain"}], r"got 'tr\\\\x1bain'"),
        ([{**HELLO, "protocol": 2}], "'protocol'"),
        ([{"op": "ready"}], "expected hello or progress"),
        ([HELLO, {"op": "trained", "steps": 1, "tokens": 1}], "expected progress or ready"),
        ([HELLO, HELLO], "expected progress or ready"),
    ],
)
def test_a_wrong_opening_names_what_was_expected_and_what_came(
    sent: list[dict[str, Any]], match: str
) -> None:
    def script(peer: Peer) -> None:
        for frame in sent:
            peer.say(**frame)
        peer.hear()
        peer.hear()

    with pytest.raises(Violation, match=match) as caught:
        open_stage(script)
    assert (caught.value.rule, caught.value.limit) == ("protocol", False)


def test_setup_past_its_clock_is_a_limit_exceeded() -> None:
    def script(peer: Peer) -> None:
        peer.say(op="hello", protocol=1, stage="train")
        peer.stall()

    with pytest.raises(Violation, match=r"setup of train did not end within 0.4 s") as caught:
        open_stage(script, seconds=0.4)
    assert (caught.value.rule, caught.value.limit) == ("setup-clock", True)


# --- describe, train, pack


def test_a_description_is_returned_with_its_types() -> None:
    with conversation(
        lambda peer: peer.say(
            op="description", parameters=27_038_810, techniques=["hadamard"], estimated_bytes=15_600_000
        )
    ) as judge:
        described = judging.describe(judge, SOON)
    assert (described.parameters, described.techniques, described.variants) == (27_038_810, ["hadamard"], [])


def variants(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "config": f"# {name}"} for name in names]


def test_variants_may_come_in_several_frames_and_change_training_by_default() -> None:
    def script(peer: Peer) -> None:
        peer.say(
            op="description",
            parameters=1,
            techniques=[],
            estimated_bytes=1,
            unquantised="u",
            variants=variants("a"),
            more=True,
        )
        peer.say(op="variants", variants=[], more=True)
        peer.say(
            op="variants",
            variants=[{**variants("b")[0], "unquantised": "x", "changes": "pack"}, *variants("c")],
        )

    with conversation(script) as judge:
        described = judging.describe(judge, SOON)
    assert [(each.name, each.unquantised, each.changes) for each in described.variants] == [
        ("a", None, "train"),
        ("b", "x", "pack"),
        ("c", None, "train"),
    ]
    assert described.unquantised == "u"


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ([variants("a", "a")], "2 variants with 1 different names"),
        ([variants("a"), variants("a")], "2 variants with 1 "),
        ([variants(*map(str, range(200))), variants(*map(str, range(200, 300)))], "300 variants"),
        ([[{"name": "a", "config": "", "changes": "score and pack"}]], "'variants.0.changes'"),
        ([[{"name": "a", "config": "", "unquantised": 1}]], "'variants.0.unquantised'"),
        ([[{"name": "a\n", "config": ""}]], "'variants.0.name'"),
        ([[{"name": "a"}]], "'variants.0.config'"),
    ],
)
def test_variants_that_share_a_name_are_too_many_or_have_wrong_types_are_refused(
    sent: list[Any], match: str
) -> None:
    def script(peer: Peer) -> None:
        peer.say(
            op="description",
            parameters=1,
            techniques=[],
            estimated_bytes=1,
            variants=sent[0],
            more=len(sent) > 1,
        )
        for more in sent[1:]:
            peer.say(op="variants", variants=more)

    with pytest.raises(Violation, match=match) as caught, conversation(script) as judge:
        judging.describe(judge, SOON)
    assert caught.value.rule == "protocol"


@pytest.mark.parametrize(
    ("requested", "done", "lawful"), [(None, 7, True), (3, 3, True), (3, 2, False), (3, 4, False)]
)
def test_steps_are_sent_only_if_requested_and_must_be_exact(
    tmp_path: Path, requested: int | None, done: int, lawful: bool
) -> None:
    received = []

    def script(peer: Peer) -> None:
        received.append(peer.hear())
        peer.say(op="trained", steps=done, tokens=1)

    with conversation(script) as judge:
        if lawful:
            assert judging.train(judge, shards(tmp_path, 1), LIMITS, requested)[0].steps == done
        else:
            with pytest.raises(Violation, match=f"trained {done} steps, asked for 3"):
                judging.train(judge, shards(tmp_path, 1), LIMITS, requested)
    assert received[0].get("steps") == requested


def shards(folder: Path, count: int) -> list[judging.ShardToSend]:
    for index in range(count):
        (folder / f"train_{index:06}.bin").write_bytes(b"%06d" % index)
    return [
        judging.ShardToSend(path.stem, path, 100 + index)
        for index, path in enumerate(sorted(folder.iterdir()))
    ]


@pytest.mark.parametrize("count", [1, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 2 * MAX_DESCRIPTORS + 50])
def test_shards_arrive_in_order_as_read_only_descriptors_over_as_many_frames_as_needed(
    tmp_path: Path, count: int
) -> None:
    frames: list[dict[str, Any]] = []
    contents: list[bytes] = []
    writable = []

    def script(peer: Peer) -> None:
        while True:
            frames.append(peer.hear())
            for descriptor in peer.descriptors:
                contents.append(os.pread(descriptor, 10, 0))
                try:
                    os.write(descriptor, b"x")
                    writable.append(descriptor)
                except OSError:
                    os.close(descriptor)
            peer.descriptors.clear()
            if not frames[-1].get("more", False):
                break
        peer.say(op="trained", steps=10, tokens=1000)

    with conversation(script) as judge:
        trained, seconds = judging.train(judge, shards(tmp_path, count), LIMITS)
    assert (trained.steps, trained.tokens) == (10, 1000)
    assert 0 < seconds < SOON
    assert contents == [b"%06d" % index for index in range(count)]
    assert not writable
    assert [shard["name"] for frame in frames for shard in frame["shards"]] == [
        f"train_{i:06}" for i in range(count)
    ]
    assert [shard["tokens"] for frame in frames for shard in frame["shards"]] == [
        100 + i for i in range(count)
    ]
    assert all(frame["op"] == "train" and frame["seconds"] == SOON for frame in frames)
    assert [frame.get("more", False) for frame in frames] == [True] * (-(-count // MAX_DESCRIPTORS) - 1) + [
        False
    ]


def test_the_train_clock_runs_until_trained_and_accepts_the_last_step_overshoot(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.hear()
        time.sleep(0.45)
        peer.say(op="trained", steps=1, tokens=1)

    with conversation(script) as judge:
        limits = replace(LIMITS, train_seconds=0.4, grace_seconds=SOON)
        _, seconds = judging.train(judge, shards(tmp_path, 1), limits)
    assert seconds >= 0.45


def test_trained_after_limit_and_grace_is_a_limit_exceeded(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.hear()
        peer.stall()

    begun = time.monotonic()
    with (
        conversation(script) as judge,
        pytest.raises(Violation, match=r"training did not end within 0.2 s") as caught,
    ):
        judging.train(judge, shards(tmp_path, 1), replace(LIMITS, train_seconds=0.2, grace_seconds=0.2))
    assert time.monotonic() - begun >= 0.4
    assert (caught.value.rule, caught.value.limit) == ("train-clock", True)


def test_a_contestant_that_never_reads_its_shards_exceeds_the_train_clock(tmp_path: Path) -> None:
    with conversation(Peer.stall) as judge, pytest.raises(Violation) as caught:
        judging.train(judge, shards(tmp_path, 1), replace(LIMITS, train_seconds=0.2, grace_seconds=0.1))
    assert caught.value.rule == "train-clock"


def test_the_pack_clock_runs_from_ready_to_packed() -> None:
    waiting = threading.Event()  # set by the watch, which the judge calls while its clock runs

    def script(peer: Peer) -> None:
        waiting.wait(SOON)
        time.sleep(0.1)
        peer.say(op="packed")

    with conversation(script, waiting.set) as judge:
        assert judging.pack(judge, LIMITS) >= 0.1
    with conversation(Peer.stall) as judge, pytest.raises(Violation) as caught:
        judging.pack(judge, replace(LIMITS, pack_seconds=0.1))
    assert (caught.value.rule, caught.value.limit) == ("pack-clock", True)


def test_an_answer_of_another_stage_is_refused() -> None:
    wrong = conversation(lambda peer: peer.say(op="trained", steps=1, tokens=1))
    with wrong as judge, pytest.raises(Violation, match="expected packed or progress"):
        judging.pack(judge, LIMITS)

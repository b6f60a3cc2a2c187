"""The conversations that open a stage, hand over the shards and end a stage: the lawful ones and the broken
ones."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import Violation
from harness.edition import PROFILES
from harness.protocol import conversation as referee
from harness.protocol.frames import Ready, ScoreReady
from harness.protocol.wire import MAX_DESCRIPTORS, Listener
from tests.harness.peers import SOON, Peer, conversation, talking

V = 8
LIMITS = replace(PROFILES["pocket"], setup_seconds=SOON, train_seconds=SOON, pack_seconds=SOON)


def nothing() -> None:
    """A watch that never sees anything wrong."""


# --- hello, setup, ready
# ---------------------------------------------------------------------------------------------


def opened(
    script: Callable[[Peer], None], stage: str = "train", seconds: float = SOON, kind: type[Ready] = Ready
) -> tuple[Ready, float]:
    """What `open_stage` returns for a contestant that follows `script`."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        listener = Listener(Path(folder) / "s")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(listener.path))
        try:
            with talking(script, sock):
                _, frame, timing = referee.open_stage(
                    listener,
                    stage,
                    {"seed": 1337, "vocab_size": V},
                    time.monotonic(),
                    replace(LIMITS, setup_seconds=seconds),
                    nothing,
                    kind,
                )
        finally:
            listener.close()
    return frame, timing


def test_every_stage_opens_with_hello_setup_and_ready() -> None:
    heard = []

    def script(peer: Peer) -> None:
        peer.say(op="hello", protocol=1, stage="score")
        heard.append(peer.hear())
        peer.say(op="progress", fraction=0.1, text="compiling")
        time.sleep(0.2)
        peer.say(op="ready", chunk_tokens=512, adapts=True, context=None, world=2)

    frame, seconds = opened(script, "score", kind=ScoreReady)
    assert heard == [{"op": "setup", "seed": 1337, "vocab_size": V, "payload": b""}]
    assert isinstance(frame, ScoreReady)
    assert (frame.chunk_tokens, frame.adapts, frame.context, frame.world) == (512, True, None, 2)
    assert 0.2 <= seconds < SOON


HELLO = {"op": "hello", "protocol": 1, "stage": "train"}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ([{**HELLO, "stage": "score"}], "expected stage 'train', came 'score'"),
        ([{**HELLO, "stage": "tr\x1bain"}], r"came 'tr\\\\x1bain'"),
        ([{**HELLO, "protocol": 2}], "'protocol'"),
        ([{"op": "ready"}], "expected hello or progress"),
        ([HELLO, {"op": "trained", "steps": 1, "tokens": 1}], "expected progress or ready"),
        ([HELLO, HELLO], "expected progress or ready"),
    ],
)
def test_a_wrong_opening_names_what_was_expected_and_what_came(
    said: list[dict[str, Any]], match: str
) -> None:
    def script(peer: Peer) -> None:
        for frame in said:
            peer.say(**frame)
        peer.hear()
        peer.hear()

    with pytest.raises(Violation, match=match) as caught:
        opened(script)
    assert (caught.value.rule, caught.value.limit) == ("protocol", False)


def test_setup_past_its_clock_is_a_limit_exceeded() -> None:
    def script(peer: Peer) -> None:
        peer.say(op="hello", protocol=1, stage="train")
        time.sleep(1)

    with pytest.raises(Violation, match=r"setup of train did not end within 0.4 s") as caught:
        opened(script, seconds=0.4)
    assert (caught.value.rule, caught.value.limit) == ("setup-clock", True)


# --- describe, train, pack
# -------------------------------------------------------------------------------------------


def test_a_description_is_taken_as_it_is_typed() -> None:
    with conversation(
        lambda peer: peer.say(
            op="description", parameters=27_038_810, techniques=["hadamard"], estimated_bytes=15_600_000
        )
    ) as judge:
        described = referee.describe(judge, SOON)
    assert (described.parameters, described.techniques, described.variants) == (27_038_810, ["hadamard"], [])


def variants(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "config": f"# {name}"} for name in names]


def test_variants_come_in_as_many_frames_as_it_takes_and_change_training_unless_they_say_otherwise() -> None:
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
        described = referee.describe(judge, SOON)
    assert [(each.name, each.unquantised, each.changes) for each in described.variants] == [
        ("a", None, "train"),
        ("b", "x", "pack"),
        ("c", None, "train"),
    ]
    assert described.unquantised == "u"


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ([variants("a", "a")], "2 variants, 1 of them with a name of their own"),
        ([variants("a"), variants("a")], "2 variants, 1 of"),
        ([variants(*map(str, range(200))), variants(*map(str, range(200, 300)))], "300 variants"),
        ([[{"name": "a", "config": "", "changes": "score and pack"}]], "'variants.0.changes'"),
        ([[{"name": "a", "config": "", "unquantised": 1}]], "'variants.0.unquantised'"),
        ([[{"name": "a\n", "config": ""}]], "'variants.0.name'"),
        ([[{"name": "a"}]], "'variants.0.config'"),
    ],
)
def test_variants_of_one_name_too_many_and_untyped_ones_are_refused(said: list[Any], match: str) -> None:
    def script(peer: Peer) -> None:
        peer.say(
            op="description",
            parameters=1,
            techniques=[],
            estimated_bytes=1,
            variants=said[0],
            more=len(said) > 1,
        )
        for more in said[1:]:
            peer.say(op="variants", variants=more)

    with pytest.raises(Violation, match=match) as caught, conversation(script) as judge:
        referee.describe(judge, SOON)
    assert caught.value.rule == "protocol"


@pytest.mark.parametrize(
    ("asked", "done", "lawful"), [(None, 7, True), (3, 3, True), (3, 2, False), (3, 4, False)]
)
def test_steps_are_sent_only_where_they_are_asked_for_and_are_exact(
    tmp_path: Path, asked: int | None, done: int, lawful: bool
) -> None:
    heard = []

    def script(peer: Peer) -> None:
        heard.append(peer.hear())
        peer.say(op="trained", steps=done, tokens=1)

    with conversation(script) as judge:
        if lawful:
            assert referee.train(judge, shards(tmp_path, 1), LIMITS, asked)[0].steps == done
        else:
            with pytest.raises(Violation, match=f"trained {done} steps, asked for 3"):
                referee.train(judge, shards(tmp_path, 1), LIMITS, asked)
    assert heard[0].get("steps") == asked


def shards(folder: Path, count: int) -> list[referee.ShardToSend]:
    for index in range(count):
        (folder / f"train_{index:06}.bin").write_bytes(b"%06d" % index)
    return [
        referee.ShardToSend(path.stem, path, 100 + index)
        for index, path in enumerate(sorted(folder.iterdir()))
    ]


@pytest.mark.parametrize("count", [1, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 2 * MAX_DESCRIPTORS + 50])
def test_shards_arrive_in_order_as_read_only_descriptors_in_as_many_frames_as_it_takes(
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
        trained, seconds = referee.train(judge, shards(tmp_path, count), LIMITS)
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


def training(folder: Path, delay: float) -> tuple[Any, float]:
    """Training with a limit of 0.4 s and a grace of 0.4 s, by a contestant that says `trained` after
    `delay`."""

    def script(peer: Peer) -> None:
        peer.hear()
        time.sleep(delay)
        peer.say(op="trained", steps=1, tokens=1)

    with conversation(script) as judge:
        return referee.train(judge, shards(folder, 1), replace(LIMITS, train_seconds=0.4, grace_seconds=0.4))


def test_the_train_clock_runs_until_trained_and_accepts_the_last_step_overshoot(tmp_path: Path) -> None:
    _, seconds = training(tmp_path, 0.45)
    assert 0.45 <= seconds < 0.8


def test_trained_after_limit_and_grace_is_a_limit_exceeded(tmp_path: Path) -> None:
    with pytest.raises(Violation, match=r"training did not end within 0.4 s") as caught:
        training(tmp_path, 1.0)
    assert (caught.value.rule, caught.value.limit) == ("train-clock", True)


def test_a_contestant_that_never_reads_its_shards_runs_into_the_train_clock(tmp_path: Path) -> None:
    with conversation(lambda peer: time.sleep(1)) as judge, pytest.raises(Violation) as caught:
        referee.train(judge, shards(tmp_path, 1), replace(LIMITS, train_seconds=0.2, grace_seconds=0.1))
    assert caught.value.rule == "train-clock"


def test_the_pack_clock_runs_from_ready_to_packed() -> None:
    def script(peer: Peer) -> None:
        time.sleep(0.3)
        peer.say(op="packed")

    with conversation(script) as judge:
        assert 0.3 <= referee.pack(judge, LIMITS) < SOON
    with conversation(script) as judge, pytest.raises(Violation) as caught:
        referee.pack(judge, replace(LIMITS, pack_seconds=0.1))
    assert (caught.value.rule, caught.value.limit) == ("pack-clock", True)


def test_an_answer_of_another_stage_is_out_of_turn() -> None:
    wrong = conversation(lambda peer: peer.say(op="trained", steps=1, tokens=1))
    with wrong as judge, pytest.raises(Violation, match="expected packed or progress"):
        referee.pack(judge, LIMITS)

"""The judge's end of the socket against peers that stall, flood, leave, connect twice and never read."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.base.errors import MachineFault, UsageError, Violation
from harness.protocol.frames import MAX_LINE, Nats, Packed, Progress, Ready
from harness.protocol.wire import (
    MAX_DESCRIPTORS,
    PATH_LIMIT,
    PROGRESS_BURST,
    Connection,
    ContestantLeft,
    DeadlineExpired,
    Listener,
)
from tests.harness.fakes.peers import PROMPT, SOON, Peer, connect, conversation, no_watch, soon, talking


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because the path of a socket is limited to about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        yield Path(name)


def elapsed(begun: float) -> float:
    return time.monotonic() - begun


# --- reading


def test_a_frame_and_its_payload_arrive_whole_however_they_are_cut() -> None:
    payload = os.urandom(1000)

    def script(peer: Peer) -> None:
        whole = b'{"op":"nats","chunk":0,"bytes":1000}\n' + payload + b'{"op":"packed"}\n'
        for at in range(0, len(whole), 97):
            peer.raw(whole[at : at + 97])

    with conversation(script) as judge:
        frame = judge.receive(soon(), Nats)
        assert judge.payload(1000, frame.n_bytes, "nats", soon()) == payload
        assert isinstance(judge.receive(soon(), Packed), Packed)


@pytest.mark.slow
def test_one_byte_at_a_time_does_not_move_the_deadline() -> None:
    def script(peer: Peer) -> None:
        for byte in b'{"op":"packed", "remark":"' + b"x" * 1000:
            peer.raw(bytes([byte]))
            time.sleep(0.05)

    with conversation(script) as judge:
        begun = time.monotonic()
        with pytest.raises(DeadlineExpired):
            judge.receive(begun + 0.5, Packed)
        assert 0.5 <= elapsed(begun) < PROMPT


@pytest.mark.slow
def test_a_payload_at_one_byte_at_a_time_does_not_move_the_deadline() -> None:
    def script(peer: Peer) -> None:
        peer.raw(b'{"op":"nats","chunk":0,"bytes":4000}\n')
        for _ in range(4000):
            peer.raw(b"\0")
            time.sleep(0.05)

    with conversation(script) as judge:
        begun = time.monotonic()
        frame = judge.receive(begun + 0.5, Nats)
        with pytest.raises(DeadlineExpired):
            judge.payload(4000, frame.n_bytes, "nats", begun + 0.5)
        assert 0.5 <= elapsed(begun) < PROMPT


def test_a_silent_peer_ends_at_the_deadline() -> None:
    with conversation(Peer.stall) as judge:
        begun = time.monotonic()
        with pytest.raises(DeadlineExpired):
            judge.receive(begun + 0.3, Packed)
        assert elapsed(begun) < PROMPT


def test_a_deadline_in_the_past_raises_even_if_a_frame_is_waiting() -> None:
    with conversation(lambda peer: peer.say(op="packed")) as judge, pytest.raises(DeadlineExpired):
        judge.receive(time.monotonic() - 1, Packed)


def test_the_longest_lawful_line_is_read_and_one_byte_more_is_refused() -> None:
    head, tail = b'{"op":"packed","x":"', b'"}\n'
    longest = head + b"x" * (MAX_LINE - len(head) - len(tail)) + tail
    assert len(longest) == MAX_LINE
    with conversation(lambda peer: peer.raw(longest)) as judge:
        judge.receive(soon(), Packed)
    with conversation(lambda peer: peer.raw(longest.replace(b"x", b"xx", 1))) as judge:
        with pytest.raises(Violation, match="a line of more than 65536 bytes") as caught:
            judge.receive(soon(), Packed)
        assert len(caught.value.message) < 300


def test_an_endless_line_is_refused_and_the_buffer_stays_bounded() -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.raw(b"[" * 65_536)

    with conversation(script) as judge:
        with pytest.raises(Violation, match="more than"):
            judge.receive(soon(), Packed)
        assert len(judge.buffer) <= MAX_LINE


@pytest.mark.parametrize("declared", [0, 396, 404, 2**52])
def test_a_payload_of_an_unexpected_size_is_refused_before_it_is_read(declared: int) -> None:
    with conversation(lambda peer: peer.say(op="nats", chunk=0, bytes=declared)) as judge:
        frame = judge.receive(soon(), Nats)
        with pytest.raises(
            Violation, match=f"expected a payload of 400 bytes, the frame declares {declared}\n"
        ):
            judge.payload(400, frame.n_bytes, "nats of chunk 0", soon())


@pytest.mark.parametrize(
    "sent", [b"", b'{"op":"pac', b'{"op":"packed"', b'{"op":"nats","chunk":0,"bytes":400}\n' + b"\0" * 399]
)
def test_a_peer_that_closes_in_the_middle_raises_contestant_left_whatever_it_sent_before(sent: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.raw(sent)
        peer.socket.shutdown(socket.SHUT_RDWR)

    def nats(judge: Connection) -> bytes:
        return judge.payload(400, judge.receive(soon(), Nats).n_bytes, "nats", soon())

    with conversation(script) as judge, pytest.raises(ContestantLeft, match="closed the socket"):
        nats(judge)


# --- writing


@pytest.mark.slow
def test_writing_to_a_peer_that_never_reads_ends_at_the_deadline() -> None:
    with conversation(Peer.stall) as judge:
        begun = time.monotonic()
        with pytest.raises(DeadlineExpired):
            judge.send({"op": "score", "bytes": 1 << 24}, begun + 0.5, bytes(1 << 24))
        assert 0.5 <= elapsed(begun) < PROMPT


def test_a_large_payload_reaches_a_slow_reader_byte_for_byte() -> None:
    payload = os.urandom(3 << 20)
    received = []

    def script(peer: Peer) -> None:
        time.sleep(0.1)
        received.append(peer.hear())
        peer.say(op="packed")

    with conversation(script) as judge:
        judge.send({"op": "score", "bytes": len(payload)}, soon(), payload)
        judge.receive(soon(), Packed)
    assert received[0]["payload"] == payload


def test_a_peer_that_left_is_noticed_when_the_judge_writes() -> None:
    with conversation(lambda peer: peer.socket.close()) as judge, pytest.raises(ContestantLeft):
        judge.send({"op": "score", "bytes": 1 << 24}, soon(), bytes(1 << 24))


def test_descriptors_come_with_the_first_byte_of_their_frame_and_read_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    received = []

    def script(peer: Peer) -> None:
        peer.hear()
        peer.say(op="ready")
        received.append(peer.hear())
        received.append([os.pread(fd, 100, 0) for fd in peer.descriptors])
        received.append(peer.first_descriptor_at)
        for fd in peer.descriptors:
            os.close(fd)

    with conversation(script) as judge, (tmp_path / "a").open("rb") as a, (tmp_path / "b").open("rb") as b:
        judge.send({"op": "setup"}, soon())
        judge.receive(soon(), Ready)
        judge.send({"op": "train", "shards": ["a", "b"]}, soon(), descriptors=[a.fileno(), b.fileno()])
        time.sleep(0.05)
    before = len(b'{"op":"setup"}\n')
    assert received == [
        {"op": "train", "shards": ["a", "b"], "payload": b""},
        [b"first", b"second"],
        [before],
    ]


def test_a_frame_carries_up_to_the_maximum_number_of_descriptors() -> None:
    counted = []

    def script(peer: Peer) -> None:
        peer.hear()
        counted.append(len(peer.descriptors))
        for fd in peer.descriptors:
            os.close(fd)
        peer.say(op="ready")

    with conversation(script) as judge, Path(os.devnull).open("rb") as null:
        judge.send({"op": "train"}, soon(), descriptors=[null.fileno()] * MAX_DESCRIPTORS)
        judge.receive(soon(), Ready)
        with pytest.raises(AssertionError):
            judge.send({"op": "train"}, soon(), descriptors=[null.fileno()] * (MAX_DESCRIPTORS + 1))
    assert counted == [MAX_DESCRIPTORS]


# --- progress


def test_progress_frames_go_to_the_callback_and_do_not_count_as_the_answer() -> None:
    def script(peer: Peer) -> None:
        for step in range(10):
            peer.say(op="progress", fraction=step / 10, text=f"step {step}")
        peer.say(op="packed")

    seen: list[Progress] = []
    with conversation(script) as judge:
        judge.on_progress = seen.append
        judge.receive(soon(), Packed)
    assert [frame.text for frame in seen] == [f"step {step}" for step in range(10)]


def test_a_flood_of_progress_is_a_violation_long_before_the_deadline() -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.say(op="progress", fraction=0.5)

    seen: list[Progress] = []
    with conversation(script) as judge:
        judge.on_progress = seen.append
        with pytest.raises(Violation, match="flood"):
            judge.receive(soon(), Packed)
    assert PROGRESS_BURST <= len(seen) <= PROGRESS_BURST + 20


@pytest.mark.slow
def test_progress_does_not_move_the_deadline() -> None:
    def script(peer: Peer) -> None:
        for _ in range(400):
            peer.say(op="progress", fraction=0.5)
            time.sleep(0.1)

    with conversation(script) as judge:
        begun = time.monotonic()
        with pytest.raises(DeadlineExpired):
            judge.receive(begun + 0.6, Packed)
        assert elapsed(begun) < PROMPT


# --- watching


def memory_exceeded() -> None:
    raise Violation("memory", "too much", limit=True)


@pytest.mark.parametrize("pause", [0.01, 0.8])
@pytest.mark.slow
def test_a_contestant_is_watched_whether_it_sends_without_pause_or_stays_silent(pause: float) -> None:
    def script(peer: Peer) -> None:
        for _ in range(100):
            peer.raw(b" ")
            time.sleep(pause)

    with conversation(script, memory_exceeded) as judge, pytest.raises(Violation) as caught:
        judge.receive(soon(), Packed)
    assert caught.value.rule == "memory"


def test_a_contestant_is_watched_while_the_judge_writes() -> None:
    with conversation(Peer.stall, memory_exceeded) as judge, pytest.raises(Violation) as caught:
        judge.send({"op": "score", "bytes": 1 << 24}, soon(), bytes(1 << 24))
    assert caught.value.rule == "memory"


def test_a_machine_fault_raised_by_the_watch_is_not_a_violation() -> None:
    def engine_gone() -> None:
        raise MachineFault("the engine went away")

    with conversation(Peer.stall, engine_gone) as judge, pytest.raises(MachineFault):
        judge.receive(soon(), Packed)


@pytest.mark.slow
def test_frames_of_a_contestant_that_has_exited_are_read_before_its_exit_is_raised() -> None:
    ended = threading.Event()

    def watch() -> None:
        ended.wait(SOON)  # `watch` runs just when the contestant sends its last frame and exits
        raise Violation("contestant", "ended with exit code 0")

    def script(peer: Peer) -> None:
        time.sleep(0.5)
        peer.say(op="packed")
        ended.set()

    with conversation(script, watch) as judge:
        assert isinstance(judge.receive(soon(), Packed), Packed)
        with pytest.raises(Violation, match="exit code 0"):
            judge.receive(soon(), Packed)


# --- listening


def test_a_contestant_connects_once_and_a_second_connection_ends_the_stage(folder: Path) -> None:
    listener = Listener(folder / "s")
    first = connect(listener.path)
    judge = listener.accept(soon(), no_watch)
    with talking(lambda peer: peer.say(op="ready"), first):
        judge.receive(soon(), Ready)
        with connect(listener.path):
            first.sendall(b'{"op":"packed"}\n')
            with pytest.raises(Violation, match="a second connection"):
                judge.receive(soon(), Packed)
    listener.close()


def test_waiting_for_a_contestant_that_never_connects_ends_at_the_deadline(folder: Path) -> None:
    listener = Listener(folder / "s")
    begun = time.monotonic()
    with pytest.raises(DeadlineExpired):
        listener.accept(begun + 0.3, no_watch)
    assert 0.3 <= elapsed(begun) < PROMPT
    listener.close()


def test_waiting_for_a_contestant_that_died_ends_at_once(folder: Path) -> None:
    listener = Listener(folder / "s")

    def watch() -> None:
        raise Violation("contestant", "ended with exit code 1")

    begun = time.monotonic()
    with pytest.raises(Violation, match="exit code 1"):
        listener.accept(soon(), watch)
    assert elapsed(begun) < PROMPT
    listener.close()


def test_a_closed_listener_leaves_no_socket_file_and_ends_the_conversation(folder: Path) -> None:
    listener = Listener(folder / "s")
    with connect(listener.path) as contestant:
        listener.accept(soon(), no_watch)
        listener.close()
        contestant.settimeout(SOON)
        assert contestant.recv(1) == b""
    assert list(folder.iterdir()) == []


def test_any_user_may_connect_to_the_socket_itself(folder: Path) -> None:
    listener = Listener(folder / "s")
    assert listener.path.stat().st_mode & 0o777 == 0o666
    listener.close()


def test_a_path_of_a_hundred_bytes_is_used_and_a_longer_one_is_refused_before_a_file_is_created(
    folder: Path,
) -> None:
    fits = folder / ("s" * (PATH_LIMIT - len(str(folder)) - 1))
    Listener(fits).close()
    longer = folder / (fits.name + "s")
    with pytest.raises(UsageError, match="101 bytes"):
        Listener(longer)
    assert list(folder.iterdir()) == []


def test_the_first_frame_after_the_connection_may_be_in_the_same_packet(folder: Path) -> None:
    listener = Listener(folder / "s")
    with connect(listener.path) as contestant:
        contestant.sendall(b'{"op":"ready"}\n{"op":"packed"}\n')
        judge: Connection = listener.accept(soon(), no_watch)
        judge.receive(soon(), Ready)
        judge.receive(soon(), Packed)
        listener.close()

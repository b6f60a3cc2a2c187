"""The contestant's end of the socket: descriptors reach their frame, and unexpected frames are errors."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from golf.runtime.wire import MAX_LINE, Closed, Frame, Setup, Wire, WireError, send_with_descriptors

SETUP = {
    "op": "setup",
    "seed": 1,
    "profile": "pocket",
    "vocab_size": 8,
    "tokenizer": "/t",
    "config": "/c",
    "out": "/o",
    "limits": {},
}


@pytest.fixture
def pair():
    ours, judge = socket.socketpair()
    yield Wire(ours), judge
    ours.close()
    judge.close()


def line(**fields) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def files(folder: Path, n: int) -> list[int]:
    for i in range(n):
        (folder / str(i)).write_text(f"file {i}")
    return [os.open(folder / str(i), os.O_RDONLY) for i in range(n)]


def test_descriptors_of_two_frames_sent_at_once_go_to_their_own_frames_in_order(pair, tmp_path):
    wire, judge = pair
    mine = files(tmp_path, 5)
    socket.send_fds(judge, [line(op="train", shards=[1, 2, 3], more=True)], mine[:3])
    socket.send_fds(judge, [line(op="train", shards=[4, 5])], mine[3:])
    frames = [wire.receive("train"), wire.receive("train")]
    texts = [[os.pread(fd, 20, 0) for fd in frame.descriptors] for frame in frames]
    assert texts == [[b"file 0", b"file 1", b"file 2"], [b"file 3", b"file 4"]]
    for fd in (*mine, *frames[0].descriptors, *frames[1].descriptors):
        os.close(fd)


def test_a_frame_without_its_descriptors_is_an_error(pair):
    wire, judge = pair
    judge.sendall(line(op="train", shards=[1]))
    with pytest.raises(WireError, match="announces 1 shards but brings 0"):
        wire.receive("train")


def test_payloads_arrive_whole_in_any_pieces(pair):
    wire, judge = pair
    for byte in line(op="score", bytes=3) + b"\n\n\n" + line(op="bye"):
        judge.sendall(bytes([byte]))
    assert wire.receive("score", max_bytes=3).payload == b"\n\n\n"
    assert wire.receive("score", "bye").op == "bye"


@pytest.mark.parametrize(
    "message",
    [
        line(op="adapt"),
        line(op="score", bytes=9),
        line(op="score", bytes=-1),
        line(op="score", bytes=True),
        b"3\n",
        b'{"op":"score","op":"bye"}\n',
        b'{"op":"score","x":NaN}\n',
        b"{\n",
        line(op=3),
        b"x" * (MAX_LINE + 1),
    ],
)
def test_an_unexpected_or_malformed_frame_is_an_error(pair, message):
    wire, judge = pair
    judge.sendall(message)
    with pytest.raises(ValueError, match=r"\w"):
        wire.receive("score", max_bytes=8)


def test_a_judge_that_closes_the_socket_ends_the_stage(pair):
    wire, judge = pair
    judge.sendall(b'{"op":"sc')
    judge.close()
    with pytest.raises(Closed):
        wire.receive("score")
    with pytest.raises(Closed):
        wire.send("ready")


def test_progress_is_sent_at_most_ten_times_a_second(pair):
    wire, judge = pair
    seconds = [0.0]
    wire.clock = lambda: seconds[0]
    for i in range(101):
        seconds[0] = i / 100
        wire.progress(1.5, "x" * 300)
    lines = judge.recv(1 << 16).splitlines()
    assert len(lines) <= 10
    assert json.loads(lines[0]) == {"op": "progress", "fraction": 1.0, "text": "x" * 200}


def test_other_ranks_receive_what_rank_0_receives_and_send_nothing(pair, tmp_path):
    wire, judge = pair
    near, far = socket.socketpair()
    wire.peers, peer = (near,), Wire(far, muted=True)
    descriptors = files(tmp_path, 1)
    socket.send_fds(judge, [line(op="train", shards=["a"], bytes=2) + b"hi"], descriptors)
    received = [wire.receive("train", max_bytes=2), peer.receive("train", max_bytes=2)]
    assert received[0].fields == received[1].fields
    assert received[1].payload == b"hi"
    assert os.pread(received[1].descriptors[0], 10, 0) == b"file 0"
    peer.send("trained")
    far.setblocking(False)
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.recv(1)
    for end in (near, far):
        end.close()
    for fd in (*descriptors, *received[0].descriptors, *received[1].descriptors):
        os.close(fd)


class PeerClosesAtOnce(socket.socket):
    """A socket whose other end closes as soon as something was written."""

    def sendall(self, message, *flags):
        super().sendall(message, *flags)
        self.other.close()

    def sendmsg(self, *arguments):
        sent = super().sendmsg(*arguments)
        self.other.close()
        return sent


def test_a_receiver_may_close_the_moment_it_has_the_whole_message():
    for send in (
        lambda ours: Wire(ours).send("trained", steps=1),
        lambda ours: send_with_descriptors(ours, b"{}\n", (ours.fileno(),)),
    ):
        ours, theirs = socket.socketpair()
        with PeerClosesAtOnce(fileno=ours.detach()) as connection:
            connection.other = theirs
            send(connection)


def test_setup_is_read_strictly():
    setup = Setup.from_frame(Frame(SETUP | {"checkpoint": "/k", "news": 1}), "pack")
    assert setup.checkpoint == Path("/k")
    for key, value in (("seed", True), ("seed", 1.0), ("config", 3), ("limits", [])):
        with pytest.raises(WireError, match=key):
            Setup.from_frame(Frame(SETUP | {key: value}), "train")
    with pytest.raises(WireError, match="artifact"):
        Setup.from_frame(Frame(SETUP), "score")


def test_what_the_first_rank_decides_reaches_the_others_between_the_frames_of_the_judge():
    judge, ours = socket.socketpair()
    here, there = socket.socketpair()
    first, second = Wire(ours, peers=(here,)), Wire(there, muted=True)
    with judge, ours, here, there:
        judge.sendall(line(op="train", seconds=1.5))
        first.receive("train")
        decisions = [first.from_first("clock", finished=done, fraction=0.1 + 0.2) for done in (False, True)]
        second.receive("train")
        assert [second.from_first("clock", finished=None) for _ in decisions] == decisions
        assert decisions[0].fields == {"op": "clock", "finished": False, "fraction": 0.1 + 0.2}


def test_a_rank_whose_first_rank_has_ended_does_not_blame_the_judge():
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(Closed, match="rank 0 closed the socket"):
        Wire(theirs, muted=True).from_first("clock")

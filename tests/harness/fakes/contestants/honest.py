"""The smallest honest contestant: a uniform distribution, all stages, standard library only.

Tests build hostile ones by replacing single functions of this source (tests/harness/fakes/contestant.py).
"""

import array
import json
import math
import os
import socket


class Wire:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(os.environ["PGOLF_SOCKET"])
        self.buffer = b""
        self.descriptors = []

    def send(self, payload=b"", **frame):
        if payload:
            frame["bytes"] = len(payload)
        self.socket.sendall(json.dumps(frame).encode() + b"\n" + payload)

    def fill(self):
        size = array.array("i").itemsize
        piece, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_LEN(200 * size))
        for _, _, data in ancillary:
            self.descriptors += array.array("i", data[: len(data) - len(data) % size])
        if not piece:
            raise SystemExit("the judge left")
        self.buffer += piece

    def receive(self):
        while b"\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\n", 1)
        frame = json.loads(line)
        while len(self.buffer) < frame.get("bytes", 0):
            self.fill()
        payload, self.buffer = self.buffer[: frame.get("bytes", 0)], self.buffer[frame.get("bytes", 0) :]
        return frame, payload


def train(wire, setup):
    wire.send(op="ready")
    tokens, more = 0, True
    while more:
        frame, _ = wire.receive()
        tokens += sum(shard["tokens"] for shard in frame["shards"])
        more = frame.get("more", False)
    os.makedirs(setup["out"] + "/checkpoint")
    with open(setup["out"] + "/checkpoint/weights", "wb") as file:
        file.write(os.pread(wire.descriptors[0], 2048, 0))
    with open(setup["out"] + "/config.resolved.yaml", "w") as file:
        file.write("{}\n")
    before_trained(wire, setup)
    wire.send(op="trained", steps=1, tokens=tokens)
    wire.receive()


def before_trained(wire, setup):
    pass


def pack(wire, setup):
    wire.send(op="ready")
    with open(setup["checkpoint"] + "/weights", "rb") as file:
        content = file.read()
    with open(setup["out"] + "/artifact.bin", "wb") as file:
        file.write(content)
    wire.send(op="packed")


def describe(wire, setup):
    wire.send(op="ready")
    wire.send(op="description", parameters=0, techniques=[], estimated_bytes=2048, variants=[])


def floats(*values):
    return array.array("f", values).tobytes()


def witness(wire, setup):
    size = setup["vocab_size"]
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    while True:
        frame, _ = wire.receive()
        if frame["op"] == "bye":
            return
        if frame["op"] == "reveal":
            wire.send(op="revealed")
        elif frame["op"] == "lanes":
            wire.send(floats(*lane_row(size) * len(frame["starts"])), op="rows")
        else:
            wire.send(floats(*[-math.log(size)] * size), op="row")


def lane_row(size):
    return [-math.log(size)] * size


def score(wire, setup):
    if setup["role"] == "witness":
        return witness(wire, setup)
    size, total, seen = setup["vocab_size"], setup["tokens"], 0
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        n = len(payload) // 2
        seen += n
        numbers = [math.log(size)] * n
        if frame["start"] == 0:
            numbers[0] = 0.0
        row = [-math.log(size)] * size if seen < total else []
        answer(wire, frame, numbers, row)


CHUNK = 4096


def answer(wire, frame, numbers, row):
    wire.send(floats(*numbers, *row), op="nats", chunk=frame["chunk"])


def main():
    stage = os.environ["PGOLF_STAGE"]
    wire = Wire()
    wire.send(op="hello", protocol=1, stage=stage)
    setup, _ = wire.receive()
    {"describe": describe, "train": train, "pack": pack, "score": score}[stage](wire, setup)


if __name__ == "__main__":
    main()

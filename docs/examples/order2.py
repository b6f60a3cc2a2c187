"""A complete contestant without torch: a mixture of orders 0 to 2 that learns only at `adapt`.

    pgolf score --contestant "python docs/examples/order2.py" --tokens val.bin --tokenizer tokenizer.model

    P_0(x) = (n(x) + 1/2) / (t + V/2)        P_k(x) = (n(ctx x) + s(ctx) P_k-1(x)) / (n(ctx) + s(ctx))

Here n counts the text learned so far, and s(ctx) is the number of different tokens seen after ctx (Witten and
Bell 1991), so every row sums to 1. Reported losses and rows come from the same expression, so scorer and
witness agree to the last bit. See docs/protocol.md for the frames.
"""

import json
import os
import socket

import numpy as np

CHUNK_TOKENS = 65_536


class Counts:
    """Counts by key, in sorted arrays."""

    def __init__(self):
        self.keys, self.counts = np.zeros(1, np.int64) - 1, np.zeros(1, np.int64)

    def add(self, keys):
        new, counts = np.unique(keys, return_counts=True)
        at = np.searchsorted(self.keys, new)
        known = self.keys[np.minimum(at, len(self.keys) - 1)] == new
        self.counts[at[known]] += counts[known]
        self.keys = np.insert(self.keys, at[~known], new[~known])
        self.counts = np.insert(self.counts, at[~known], counts[~known])
        return new[~known]

    def of(self, keys):
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.counts[at], 0)


class Order2:
    """The predictor. `text` holds two tokens of context, then those seen since the last chunk was learned."""

    def __init__(self, vocab_size):
        self.vocab_size, self.text, self.learned = vocab_size, np.zeros(2, np.int64), 2
        self.single = np.zeros(vocab_size, np.int64)
        self.full, self.context, self.distinct = ([Counts(), Counts()] for _ in range(3))

    def see(self, tokens):
        # Of the text that was learned, only two tokens of context are needed.
        self.text = np.concatenate([self.text[self.learned - 2 :], tokens.astype(np.int64)])
        self.learned = 2

    def contexts(self, start, stop):
        """Keys of the one token and of the two tokens before each position start .. stop - 1."""
        before, last = self.text[start - 2 : stop - 2], self.text[start - 1 : stop - 1]
        return last, before * self.vocab_size + last

    def learn(self):
        tokens = self.text[self.learned :]
        self.single += np.bincount(tokens, minlength=self.vocab_size)
        for order, context in enumerate(self.contexts(self.learned, len(self.text))):
            new = self.full[order].add(context * self.vocab_size + tokens)
            self.context[order].add(context)
            self.distinct[order].add(new // self.vocab_size)
        self.learned = len(self.text)

    def probabilities(self, tokens, contexts):
        """P(token | context) for arrays of both; `claims` and `row` both use this formula."""
        p = (self.single[tokens] + 0.5) / (self.single.sum() + 0.5 * self.vocab_size)
        for order, context in enumerate(contexts):
            distinct, total = self.distinct[order].of(context), self.context[order].of(context)
            found = self.full[order].of(context * self.vocab_size + tokens)
            p = np.where(total > 0, (found + distinct * p) / np.maximum(total + distinct, 1), p)
        return p

    def claims(self, tokens):
        """-ln p of newly revealed tokens, which count as seen from here on."""
        first = len(self.text) - self.learned + 2
        self.see(tokens)
        return -np.log(self.probabilities(self.text[first:], self.contexts(first, len(self.text))))

    def row(self):
        """ln p of every possible next token."""
        end = len(self.text)
        contexts = [np.repeat(key, self.vocab_size) for key in self.contexts(end, end + 1)]
        return np.log(self.probabilities(np.arange(self.vocab_size), contexts))


class Wire:
    """One JSON object per line, followed by as many raw bytes as its key `bytes` says."""

    def __init__(self, connection):
        self.file = connection.makefile("rwb")

    def hear(self):
        frame = json.loads(self.file.readline() or '{"op":"bye"}')
        return frame, np.frombuffer(self.file.read(frame.get("bytes", 0)), "<u2")

    def say(self, op, numbers=None, **keys):
        payload = b"" if numbers is None else np.asarray(numbers, "<f4").tobytes()
        frame = {"op": op, **keys, **({"bytes": len(payload)} if payload else {})}
        self.file.write(json.dumps(frame).encode() + b"\n" + payload)
        self.file.flush()


def serve(wire, make=Order2, chunk_tokens=CHUNK_TOKENS):
    """Serve as scorer or witness: the same predictor answers both."""
    wire.say("hello", protocol=1, stage="score")
    setup, _ = wire.hear()
    model = make(setup["vocab_size"])
    wire.say("ready", chunk_tokens=chunk_tokens, adapts=True, context=2, world=1)
    while True:
        frame, tokens = wire.hear()
        if frame["op"] == "score":
            nats = model.claims(tokens)
            if frame["start"] == 0:
                nats[0] = 0.0
            wire.say("nats", nats, chunk=frame["chunk"])
        elif frame["op"] == "reveal":
            model.see(tokens)
            wire.say("revealed")
        elif frame["op"] == "predict":
            wire.say("row", model.row())
        elif frame["op"] == "adapt":
            model.learn()
            wire.say("adapted", model.row(), chunk=frame["chunk"])
        else:
            return


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as to_judge:
        to_judge.connect(os.environ["PGOLF_SOCKET"])
        serve(Wire(to_judge))

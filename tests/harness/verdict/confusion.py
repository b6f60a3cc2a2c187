"""The hostile suite: every contestant of mutants.py and siblings.py against the real judge, as a confusion
matrix.

    python -m tests.harness.verdict.confusion

Contestants are threads on real sockets. One round of PROBES probes, and a second one of every token where
the certificate asks for it. A cheat is refused (by the conversation), accused (a condition fails),
reported (by the scan of documents), open (some condition is unknown), charged (it passes with a bound
above what it gained) or missed.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from harness.base.errors import Violation
from harness.data.byte_table import ByteTable
from harness.edition import PROFILES
from harness.protocol import conversation, probe
from harness.protocol.frames import Hello, ScoreReady
from harness.protocol.wire import Connection
from harness.scoring import bpb, low_bpb_documents
from harness.scoring.certificate import reference_model, sampling
from harness.scoring.certificate.certificate import Certificate, certify
from harness.scoring.certificate.responses import Responses
from harness.verdict.rules import conditions
from tests.harness.fakes.contestants import mutants, siblings
from tests.harness.fakes.contestants.mutants import TOKENS
from tests.harness.fakes.peers import Peer, soon, talking

VOCAB, PROBES = 64, 2_500
TABLE = ByteTable(np.full(VOCAB, 3), np.zeros(VOCAB, bool), np.zeros(VOCAB, bool))
SEED = bytes(range(32))
HONEST: dict[str, Any] = {**mutants.HONEST, **siblings.HONEST}
CHEATS: dict[str, Any] = {**mutants.CHEATS, **siblings.CHEATS}


class Row(NamedTuple):
    """One contestant: what was found, by which part of the judge, and the evidence."""

    name: str
    honest: bool
    found: str
    by: str
    gained_nats: float | None
    bound_nats: float | None
    evidence: str


def text() -> Any:
    """A noisy walk over the vocabulary, a document every 250 tokens."""
    rng = np.random.default_rng(5)
    steps_T = np.where(rng.random(TOKENS) < 0.6, 1, rng.integers(0, VOCAB - 4, TOKENS))
    tokens_T = (4 + steps_T.cumsum() % (VOCAB - 4)).astype(np.uint16)
    tokens_T[:: mutants.DOCUMENT] = mutants.BOS
    return tokens_T


class Suite:
    """The text, the reference model's probabilities, and the honest example's responses at every token, which
    are the witness of all contestants that cheat in scoring only.
    """

    def __init__(self) -> None:
        self.tokens_T = text()
        mutants.Paid.text_T = self.tokens_T
        self.reference_T = reference_model.probabilities(self.tokens_T, VOCAB)
        self.limits = replace(PROFILES["pocket"], chunk_tokens=mutants.Largest.chunk_tokens)
        self.known: dict[tuple[str, int], tuple[Any, Any, list[Any]]] = {}

    def scored(self, model: Any) -> conversation.ScoringPass:
        with self._contestant(model, "scorer", 0) as (connection, ready):
            return conversation.score(connection, ready, self.tokens_T, VOCAB, self.limits, lambda done: None)

    def asked(
        self, model: Any, scored: conversation.ScoringPass, asked_P: Any, number: int
    ) -> probe.ProbeResult:
        with self._contestant(model, "witness", number) as (connection, ready):
            patience = getattr(model, "patience", 10.0)
            context = probe.ProbeContext(connection, ready, self.tokens_T, scored, VOCAB, patience, soon(120))
            return probe.probe(context, asked_P)

    def _contestant(self, model: Any, role: str, number: int) -> Any:
        return _Opened(lambda size: model(size, role, number), role, model.chunk_tokens)

    def responses(
        self, model: Any, scored: conversation.ScoringPass, asked_P: Any, number: int
    ) -> probe.ProbeResult:
        """The witness's responses, over the socket; where a model's rows are the example's, the example's
        kept ones.
        """
        if any(
            getattr(model, name) != getattr(mutants.Honest, name)
            for name in ("row", "see", "learn", "chunk_tokens")
        ):
            return self.asked(model, scored, asked_P, number)
        if ("example", 0) not in self.known:
            plain = self.scored(mutants.Honest)
            every = self.asked(mutants.Honest, plain, np.arange(1, TOKENS), 0)
            self.known["example", 0] = (every.responses.nats_P, every.responses.logsumexp_P, every.boundaries)
        nats_T, sums_T, boundaries = self.known["example", 0]
        before = {boundary.position: boundary.before_nats for boundary in scored.boundaries}
        passed = [
            boundary._replace(scorer_nats=before[boundary.position])
            for boundary in boundaries
            if boundary.position <= asked_P[-1]
        ]
        return probe.ProbeResult(
            Responses(nats_T[asked_P - 1], sums_T[asked_P - 1]), passed, None, probe.Timing()
        )

    def certificate(
        self, model: Any, scored: conversation.ScoringPass, round_number: int
    ) -> tuple[Certificate, float]:
        """The certificate of one round, and the estimated mean gain."""
        reported = sampling.ReportedScore(
            self.tokens_T, scored.nats_T, self.reference_T, 3 * (TOKENS - 1), scored.chunk_tokens
        )
        plan = sampling.draw(
            SEED, reported, PROBES if round_number == 1 else TOKENS, round_number=round_number
        )
        first = self.responses(model, scored, plan.asked_P, 1)
        second = self.responses(model, scored, plan.asked_P, 2) if model.draws else first
        made = certify(
            reported, plan, [first.responses, second.responses], boundaries=first.boundaries, adapts=True
        )
        return made, made.mean_gain_nats


class _Opened:
    """A contestant in a thread, after its hello, setup and ready."""

    def __init__(self, make: Any, role: str, chunk: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

        def script(peer: Peer) -> None:
            with suppress(EOFError, ValueError):
                mutants.order2.serve(mutants.order2.Wire(peer.socket), make, chunk)
            peer.socket.shutdown(socket.SHUT_RDWR)  # as when a process ends

        self.connection, self.role, self.thread = (
            Connection(ours, lambda: None),
            role,
            talking(script, theirs),
        )

    def __enter__(self) -> tuple[Connection, ScoreReady]:
        self.thread.__enter__()
        self.connection.receive(soon(), Hello)
        self.connection.send(
            {"op": "setup", "vocab_size": VOCAB, "role": self.role, "tokens": TOKENS}, soon()
        )
        return self.connection, self.connection.receive(soon(), ScoreReady)

    def __exit__(self, *error: Any) -> None:
        self.connection.close()
        self.thread.__exit__(None, None, None)


def judge(suite: Suite, name: str) -> Row:
    """Score one contestant, query its witnesses, and judge it."""
    honest = name in HONEST
    model = HONEST[name] if honest else CHEATS[name]
    try:
        scored = suite.scored(model)
    except Violation as violation:
        return Row(name, honest, "refused", "referee", None, None, violation.message)
    boundaries = conditions.check_boundaries([boundary._asdict() for boundary in scored.boundaries])
    made, gained = suite.certificate(model, scored, 1)
    if made.wants_second_round:
        made, gained = suite.certificate(model, scored, 2)
    measured = bpb.measure(suite.tokens_T, scored.nats_T, TABLE)
    cheap = low_bpb_documents.scan(measured.bits_D, measured.bytes_D, measured.starts_D)
    failed = [c for c in made.conditions if c.outcome == "fail"]
    left = [c for c in made.conditions if c.outcome == "unknown"]
    if failed:
        found, by, evidence = "accused", failed[0].condition, failed[0].evidence
    elif boundaries.outcome == "fail":
        found, by, evidence = "accused", "border rows", boundaries.evidence
    elif cheap["outcome"] != "pass":
        found, by, evidence = "reported", "documents", cheap["text"]
    elif left:
        found, by, evidence = "open", left[0].condition, left[0].evidence
    else:
        found = "passed" if honest else "charged" if made.G_nats >= gained else "missed"
        by, evidence = "G", made.conditions[0].evidence
    return Row(name, honest, found, by, gained, made.G_nats, evidence)


def matrix() -> list[Row]:
    """All contestants, honest ones first."""
    suite = Suite()
    return [judge(suite, name) for name in (*HONEST, *CHEATS)]


def shown(rows: list[Row]) -> str:
    """Markdown: the matrix, then a row for each contestant."""
    outcomes = ("refused", "accused", "reported", "open", "charged", "passed", "missed")
    lines = ["| | " + " | ".join(outcomes) + " |", "|---|" + "---|" * len(outcomes)]
    for honest in (True, False):
        counts = [sum(row.found == outcome and row.honest == honest for row in rows) for outcome in outcomes]
        lines.append(f"| {'honest' if honest else 'cheats'} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "| contestant | | found | by | mean gain, nats | G, nats |", "|---|---|---|---|---|---|"]
    for row in rows:
        numbers = [f"{value:.5f}" if value is not None else "" for value in (row.gained_nats, row.bound_nats)]
        kind = "honest" if row.honest else "cheat"
        lines.append(f"| {row.name} | {kind} | {row.found} | {row.by} | {numbers[0]} | {numbers[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    began = time.monotonic()
    table = matrix()
    print(shown(table))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if "-v" in sys.argv:
        print("\n".join(f"{row.name}: {row.evidence}" for row in table), file=sys.stderr)

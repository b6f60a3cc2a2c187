"""Query fresh witnesses for one round, by strict prefixes or in batches, and combine their responses.

    session = WitnessSession(job, tokens_T, scored, on_progress)
    session.begin_round()
    responses = query(session, plan)

A witness is a fresh copy of the scorer. Before each one the runner clears what it could share with the
scorer. A witness that cannot be queried leaves its reason in `session.ends` and no response. Which tokens are
asked: scoring/certificate/sampling.py. What follows from the responses: certify.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.base.errors import Violation
from harness.base.progress import ProgressCallback, no_progress
from harness.data.shards import Tokens
from harness.edition import TOLERANCES
from harness.protocol import batched_probe
from harness.protocol.conversation import ScoringPass
from harness.protocol.frames import ScoreReady
from harness.protocol.probe import Positions, ProbeContext, ProbeResult, Timing, probe
from harness.run import stages
from harness.run.cpu_use import measured
from harness.run.stages import StageJob
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import SamplingPlan

ANSWER_FACTOR, LEAST_ANSWER_SECONDS = 1.5, 15.0
"""Time limit of one answer: ANSWER_FACTOR times the scorer's mean time for a chunk, and at least
LEAST_ANSWER_SECONDS, because a busy machine may stall for that long."""
TOTAL_FACTOR, ROW_SHARE, LEAST_TOTAL_SECONDS = 10.0, 0.1, 120.0
"""Time limit of all answers, the longest of: TOTAL_FACTOR times the scorer's time for all chunks; for each
row, ROW_SHARE of its mean time for a chunk; LEAST_TOTAL_SECONDS."""

Ask = Callable[[ProbeContext, Positions], ProbeResult]


class RoundResponses(NamedTuple):
    """What the witnesses of a round answered: the first one's responses, and a second's where one was
    needed.
    """

    responses: list[Responses]
    boundaries: list[BoundaryPair]
    strict: RoundResponses | None = None
    """Beside batches: the responses to strict prefixes; None where no witness could be queried for them."""
    comparison: dict[str, Any] | None = None
    """How batches and strict prefixes compare, JSON-ready."""


class WitnessEnd(NamedTuple):
    """How one witness ended: the reason if it ended early, and its time."""

    reason: str | None
    timing: Timing


@dataclass
class WitnessSession:
    """Queries fresh witnesses about one score, and records how each witness of the round ended."""

    job: StageJob
    tokens_T: Tokens
    scored: ScoringPass
    on_progress: ProgressCallback
    round_number: int = 0
    n_witnesses: int = 0
    """Witnesses started in this round so far."""
    cleared: str = ""
    """What the runner cleared before the last of them."""
    ends: list[WitnessEnd] = field(default_factory=list)
    """One for each witness of the round that was asked, in order."""

    def begin_round(self) -> None:
        self.round_number, self.n_witnesses, self.ends = self.round_number + 1, 0, []

    def ask(self, positions_P: Positions, ask: Ask = probe) -> ProbeResult | None:
        """A fresh witness's answers; None where it cannot be queried. Raises MachineFault."""
        self.n_witnesses += 1
        self.cleared = self.job.runner.clear_channels(self.job.limits)
        try:
            result = self.query_witness(positions_P, ask)
        except Violation as violation:
            self.ends.append(WitnessEnd(violation.message, Timing()))
            return None
        self.ends.append(WitnessEnd(result.ended, result.timing))
        return result

    def query_witness(self, positions_P: Positions, ask: Ask) -> ProbeResult:
        """Start a copy of the scorer and ask it. Its log is the only thing written.

        It gets about the scorer's time: a slower, better witness would mask a gain. Where it ended early, the
        reason names what became of its process.
        """
        job, scored = self.job, self.scored
        inputs, log = {"artifact.bin": job.folder.artifact}, f"witness-{self.round_number}{self.n_witnesses}"
        with stages.running(job, "score", inputs, job.limits.counted_bytes, log) as process:
            connection, ready, _ = stages.open_conversation(
                job,
                process,
                "score",
                no_progress,
                ScoreReady,
                artifact=process.inside("artifact.bin"),
                role="witness",
                tokens=len(self.tokens_T),
            )
            chunks = -(-len(self.tokens_T) // scored.chunk_tokens)
            context = ProbeContext(
                connection,
                ready,
                self.tokens_T,
                scored,
                job.terms.vocab_size,
                answer_seconds=max(LEAST_ANSWER_SECONDS, ANSWER_FACTOR * scored.seconds / chunks),
                deadline=time.monotonic() + total_seconds(scored.seconds, chunks, len(positions_P)),
                on_progress=self._report(len(positions_P)),
            )
            with measured(process.cpu_seconds, job.on_cpu_use):
                result = ask(context, positions_P)
            if result.ended is not None:
                try:
                    stages.raise_exit_reason(process)
                except Violation as violation:
                    return result._replace(ended=violation.message)
            return result

    def _report(self, total: int) -> Callable[[int], None]:
        title = f"witness {self.n_witnesses}, round {self.round_number}"
        return lambda done: self.on_progress(done / max(total, 1), f"{title}: {done:,} of {total:,} rows")


def total_seconds(score_seconds: float, chunks: int, rows: int) -> float:
    """Seconds for all answers of a witness whose scorer took `score_seconds` for all chunks."""
    return max(LEAST_TOTAL_SECONDS, TOTAL_FACTOR * score_seconds, ROW_SHARE * score_seconds / chunks * rows)


def query(session: WitnessSession, plan: SamplingPlan) -> RoundResponses:
    """Query by strict prefixes: one witness, and a second one if any answer of the first differs from the
    reported number.
    """
    first = session.ask(plan.asked_P)
    if first is None:
        return RoundResponses([], [])
    second = None if _repeats_exactly(session.scored, plan, first) else session.ask(plan.asked_P)
    return RoundResponses(
        [result.responses for result in (first, second) if result is not None], first.boundaries
    )


def query_batched(session: WitnessSession, plan: SamplingPlan, strict: SamplingPlan) -> RoundResponses:
    """Query two witnesses in batches at all positions of both plans, then query those of `strict` by strict
    prefixes too.
    """
    context = session.scored.context
    assert context is not None, "batches need a declared context"
    boundaries_P = np.array(
        [each.position for each in session.scored.boundaries if each.position < plan.covered], np.int64
    )
    all_P = np.unique(np.concatenate([plan.asked_P, strict.asked_P, boundaries_P]))
    parts = [
        (part_P, session.ask(part_P, batched_probe.probe_batched))
        for part_P in batched_probe.stretches(all_P, context)
    ]
    answered = [(part_P, result) for part_P, result in parts if result is not None]
    if not answered:
        return RoundResponses([], [])
    joined = _join(all_P, answered)
    responses = [_select(joined, all_P, plan.asked_P)]
    boundaries = sorted(boundary for _, result in answered for boundary in result.boundaries)
    alone = query(session, strict)
    if not alone.responses:
        return RoundResponses(responses, boundaries)
    comparison = _compare(_select(joined, all_P, strict.asked_P), alone.responses[0])
    return RoundResponses(responses, boundaries, alone, comparison)


def _join(all_P: Positions, parts: list[tuple[Positions, ProbeResult]]) -> Responses:
    nats_P, logsumexp_P = np.full(len(all_P), np.inf), np.full(len(all_P), np.nan)
    for part_P, result in parts:
        at_P = np.searchsorted(all_P, part_P)
        nats_P[at_P], logsumexp_P[at_P] = result.responses.nats_P, result.responses.logsumexp_P
    return Responses(nats_P, logsumexp_P)


def _select(responses: Responses, all_P: Positions, wanted_P: Positions) -> Responses:
    at_P = np.searchsorted(all_P, wanted_P)
    return Responses(responses.nats_P[at_P], responses.logsumexp_P[at_P])


def _compare(batched: Responses, strict: Responses) -> dict[str, Any]:
    """Whether batches and strict prefixes gave each true token the same nats, and where only one of them gave
    a row. JSON-ready.
    """
    both_P = batched.answered_P & strict.answered_P
    difference = float(np.abs(batched.nats_P - strict.nats_P)[both_P].max(initial=0.0))
    lost = int((batched.answered_P != strict.answered_P).sum())
    text = (
        f"{int(both_P.sum()):,} rows of batched contexts differ from those after strict prefixes by "
        f"{difference:.1e} nats at most" + (f", and {lost:,} came in one way only" if lost else "")
    )
    return {
        "largest_difference_nats": difference,
        "in_one_way_only": lost,
        "agree": difference <= TOLERANCES.batched_nats and not lost,
        "text": text,
    }


def _repeats_exactly(scored: ScoringPass, plan: SamplingPlan, result: ProbeResult) -> bool:
    """Whether every answer is the reported number: then there is no noise for a second witness to measure."""
    difference_P = np.abs(result.responses.charged_P() - scored.nats_T[plan.asked_P])
    return bool((difference_P <= TOLERANCES.exact_nats).all())

"""Hearing the witnesses of one look: fresh ones, by strict prefixes or by lanes, and what they say put
together.

    voice = Voice(job, seed, folder, tokens_T, scored, report);  voice.begin_look();  heard = hear(voice, plan)

Before each witness the runner clears what it could share with the scorer. One that cannot be asked leaves a
reason in `voice.ended` and no answer. Not covered: which tokens are asked (certificate/coins.py), and what
follows (witness.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.base.errors import Violation
from harness.base.progress import ProgressCallback
from harness.data.shards import Tokens
from harness.edition import TOLERANCES
from harness.protocol import batched_probe, conversation, probe
from harness.protocol.batched_probe import Positions
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.stages import StageJob
from harness.scoring.certificate import sampling
from harness.scoring.certificate.responses import BoundaryPair, Responses


class RoundResponses(NamedTuple):
    """What the witnesses of a look say: the first's answers, a second's where one was needed; beside lanes
    what strict prefixes brought (`alone`, None where they could not be asked) and how the two compare."""

    responses: list[Responses]
    boundaries: list[BoundaryPair]
    alone: RoundResponses | None = None
    compared: dict[str, Any] | None = None


@dataclass
class WitnessSession:
    """Asks fresh witnesses, and keeps how each of a look's ended and how long it took."""

    job: StageJob
    seed: int
    folder: SeedFolder
    tokens_T: Tokens
    scored: conversation.ScoringPass
    report: ProgressCallback
    round_number: int = 0
    cleared: str = ""
    """What the runner did before the last of them."""
    asked: int = 0
    ended: list[str | None] = field(default_factory=list)
    timing: list[probe.Timing] = field(default_factory=list)

    def begin_round(self) -> None:
        self.round_number, self.asked, self.ended, self.timing = self.round_number + 1, 0, [], []

    def ask(
        self, positions_P: Positions, ask: Callable[..., probe.ProbeResult] = probe.probe
    ) -> probe.ProbeResult | None:
        """A fresh witness's answers; None where it cannot be asked, and the last of `ended` says why."""
        self.asked += 1
        number = self.asked

        def telling(done: int) -> None:
            text = f"witness {number}, look {self.round_number}: {done:,} of {len(positions_P):,} rows"
            self.report(done / max(len(positions_P), 1), text)

        self.cleared = self.job.runner.clear_channels(self.job.limits)
        try:
            asked = stages.witness(
                self.job,
                self.seed,
                self.folder,
                self.tokens_T,
                self.scored,
                positions_P,
                telling,
                f"witness-{self.round_number}{number}",
                ask,
            )
        except Violation as violation:
            self.ended.append(violation.message)
            return None
        self.ended.append(asked.ended)
        self.timing.append(asked.timing)
        return asked


def query(session: WitnessSession, plan: sampling.SamplingPlan) -> RoundResponses:
    """What witnesses say to strict prefixes: one, and a second where some answer of the first is not the
    claim itself."""
    first = session.ask(plan.asked_P)
    if first is None:
        return RoundResponses([], [])
    second = None if _exact(session.scored, plan, first) else session.ask(plan.asked_P)
    return RoundResponses([each.responses for each in (first, second) if each is not None], first.boundaries)


def query_batched(
    session: WitnessSession, plan: sampling.SamplingPlan, strict: sampling.SamplingPlan
) -> RoundResponses:
    """Two witnesses for all questions of both plans, by lanes, joined as one; then strict prefixes for those
    of `strict`."""
    assert session.scored.context is not None, "lanes need a declared context"
    borders_P = np.array(
        [boundary.position for boundary in session.scored.boundaries if boundary.position < plan.covered],
        np.int64,
    )
    every_P = np.unique(np.concatenate([plan.asked_P, strict.asked_P, borders_P]))
    parts = [
        (part_P, session.ask(part_P, batched_probe.probe_batched))
        for part_P in batched_probe.stretches(every_P, session.scored.context)
    ]
    answered = [(part_P, asked) for part_P, asked in parts if asked is not None]
    if not answered:
        return RoundResponses([], [])
    together = _join(every_P, answered)
    responses = [_select(together, every_P, plan.asked_P)]
    boundaries = sorted(boundary for _, part in answered for boundary in part.boundaries)
    alone = query(session, strict)
    if not alone.responses:
        return RoundResponses(responses, boundaries)
    return RoundResponses(
        responses, boundaries, alone, _compare(_select(together, every_P, strict.asked_P), alone.responses[0])
    )


def _join(every_P: Positions, parts: list[tuple[Positions, probe.ProbeResult]]) -> Responses:
    nats_P, sums_P = np.full(len(every_P), np.inf), np.full(len(every_P), np.nan)
    for part_P, asked in parts:
        at_P = np.searchsorted(every_P, part_P)
        nats_P[at_P], sums_P[at_P] = asked.responses.nats_P, asked.responses.logsumexp_P
    return Responses(nats_P, sums_P)


def _select(responses: Responses, every_P: Positions, wanted_P: Positions) -> Responses:
    at_P = np.searchsorted(every_P, wanted_P)
    return Responses(responses.nats_P[at_P], responses.logsumexp_P[at_P])


def _compare(together: Responses, alone: Responses) -> dict[str, Any]:
    """Whether lanes and strict prefixes brought the same rows, as far as the true tokens' numbers tell."""
    both_P = together.answered_P & alone.answered_P
    apart = float(np.abs(together.nats_P - alone.nats_P)[both_P].max(initial=0.0))
    lost = int((together.answered_P != alone.answered_P).sum())
    text = (
        f"{int(both_P.sum()):,} rows of lanes differ from those after strict prefixes by {apart:.1e} nats at "
        "most" + (f", and {lost:,} came in one way only" if lost else "")
    )
    return {
        "largest_difference_nats": apart,
        "in_one_way_only": lost,
        "agree": apart <= TOLERANCES.batched_nats and not lost,
        "text": text,
    }


def _exact(scored: conversation.ScoringPass, plan: sampling.SamplingPlan, asked: probe.ProbeResult) -> bool:
    """Whether every question was answered by the claim itself."""
    apart_P = np.abs(asked.responses.charged_P() - scored.nats_T[plan.asked_P])
    return bool((apart_P <= TOLERANCES.exact_nats).all())

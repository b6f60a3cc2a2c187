"""Hearing the witnesses of one look: fresh ones, by strict prefixes or by lanes, and what they say put together.

    voice = Voice(job, seed, folder, tokens_T, scored, report);  voice.begin_look();  heard = hear(voice, plan)

Before each witness the runner clears what it could share with the scorer. One that cannot be asked leaves a reason in
`voice.ended` and no answer. Not covered: which tokens are asked (certificate/coins.py), and what follows (witness.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.base.errors import Violation
from harness.base.progress import Report
from harness.data.shards import Tokens
from harness.protocol import batched_probe, conversation, probe
from harness.protocol.batched_probe import Positions
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.stages import Job
from harness.scoring.certificate import sampling
from harness.scoring.certificate.responses import Answers, Border

LANES_NATS = 0.05
"""Rows that differ by more are not the same predictor's: bfloat16 in another batch brings 0.02."""
EXACT_NATS = 1e-3
"""Where no answer is further from its claim, there is no noise that a second witness could measure."""


class Heard(NamedTuple):
    """What the witnesses of a look say: the first's answers, a second's where one was needed; beside lanes what strict prefixes
    brought (`alone`, None where they could not be asked) and how the two compare."""

    answers: list[Answers]
    borders: list[Border]
    alone: Heard | None = None
    compared: dict[str, Any] | None = None


@dataclass
class Voice:
    """Asks fresh witnesses, and keeps how each of a look's ended and how long it took."""

    job: Job
    seed: int
    folder: SeedFolder
    tokens_T: Tokens
    scored: conversation.Scored
    report: Report
    look: int = 0
    cleared: str = ""
    """What the runner did before the last of them."""
    asked: int = 0
    ended: list[str | None] = field(default_factory=list)
    took: list[probe.Took] = field(default_factory=list)

    def begin_look(self) -> None:
        self.look, self.asked, self.ended, self.took = self.look + 1, 0, [], []

    def ask(self, positions_P: Positions, ask: Callable[..., probe.Asked] = probe.ask) -> probe.Asked | None:
        """A fresh witness's answers; None where it cannot be asked, and the last of `ended` says why."""
        self.asked += 1
        number = self.asked

        def telling(done: int) -> None:
            text = f"witness {number}, look {self.look}: {done:,} of {len(positions_P):,} rows"
            self.report(done / max(len(positions_P), 1), text)

        self.cleared = self.job.runner.clear_channels(self.job.limits)
        try:
            asked = stages.witness(self.job, self.seed, self.folder, self.tokens_T, self.scored, positions_P, telling,
                                   f"witness-{self.look}{number}", ask)
        except Violation as violation:
            self.ended.append(violation.message)
            return None
        self.ended.append(asked.ended)
        self.took.append(asked.took)
        return asked


def hear(voice: Voice, plan: sampling.Plan) -> Heard:
    """What witnesses say to strict prefixes: one, and a second where some answer of the first is not the claim itself."""
    first = voice.ask(plan.asked_P)
    if first is None:
        return Heard([], [])
    second = None if _exact(voice.scored, plan, first) else voice.ask(plan.asked_P)
    return Heard([each.answers for each in (first, second) if each is not None], first.borders)


def hear_lanes(voice: Voice, plan: sampling.Plan, strict: sampling.Plan) -> Heard:
    """Two witnesses for all questions of both plans, by lanes, joined as one; then strict prefixes for those of `strict`."""
    assert voice.scored.context is not None, "lanes need a declared context"
    borders_P = np.array([border.position for border in voice.scored.borders if border.position < plan.covered], np.int64)
    every_P = np.unique(np.concatenate([plan.asked_P, strict.asked_P, borders_P]))
    parts = [(part_P, voice.ask(part_P, batched_probe.ask)) for part_P in batched_probe.stretches(every_P, voice.scored.context)]
    heard = [(part_P, asked) for part_P, asked in parts if asked is not None]
    if not heard:
        return Heard([], [])
    together = _joined(every_P, heard)
    answers = [_picked(together, every_P, plan.asked_P)]
    borders = sorted(border for _, part in heard for border in part.borders)
    alone = hear(voice, strict)
    if not alone.answers:
        return Heard(answers, borders)
    return Heard(answers, borders, alone, _compare(_picked(together, every_P, strict.asked_P), alone.answers[0]))


def _joined(every_P: Positions, parts: list[tuple[Positions, probe.Asked]]) -> Answers:
    nats_P, sums_P = np.full(len(every_P), np.inf), np.full(len(every_P), np.nan)
    for part_P, asked in parts:
        at_P = np.searchsorted(every_P, part_P)
        nats_P[at_P], sums_P[at_P] = asked.answers.nats_P, asked.answers.logsumexp_P
    return Answers(nats_P, sums_P)


def _picked(answers: Answers, every_P: Positions, wanted_P: Positions) -> Answers:
    at_P = np.searchsorted(every_P, wanted_P)
    return Answers(answers.nats_P[at_P], answers.logsumexp_P[at_P])


def _compare(together: Answers, alone: Answers) -> dict[str, Any]:
    """Whether lanes and strict prefixes brought the same rows, as far as the true tokens' numbers tell."""
    both_P = together.answered_P & alone.answered_P
    apart = float(np.abs(together.nats_P - alone.nats_P)[both_P].max(initial=0.0))
    lost = int((together.answered_P != alone.answered_P).sum())
    text = (f"{int(both_P.sum()):,} rows of lanes differ from those after strict prefixes by {apart:.1e} nats at most"
            + (f", and {lost:,} came in one way only" if lost else ""))
    return {"largest_difference_nats": apart, "in_one_way_only": lost, "agree": apart <= LANES_NATS and not lost, "text": text}


def _exact(scored: conversation.Scored, plan: sampling.Plan, asked: probe.Asked) -> bool:
    """Whether every question was answered by the claim itself."""
    apart_P = np.abs(asked.answers.charged_P() - scored.nats_T[plan.asked_P])
    return bool((apart_P <= EXACT_NATS).all())

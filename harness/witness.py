"""The witnesses of one score: coins, looks, questions, and the certificate that comes of the answers.

    request = Request(4096)                                  by strict prefixes; lanes=True: many contexts at once
    certificate = certify_score(job, seed, folder, tokens_T, scored, n_bytes, request, progress.stage(...))

The seed of the coins is drawn after the ledger closed and written down before the first question, so that a look which
was cut off goes on with the same coins: nobody tries again until they fall well. What was answered is kept beside it
(witness-<look>.npz), so that anyone can compute the bound again. A second witness measures noise, and is asked only where
the first one's rows are not the claims themselves; a second look only where the first leaves something unexplained.
Not covered: what the answers prove (certificate/), and what a condition's outcome is on this runner (rules/conditions.py).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import asking, lanes, referee, rundir, stages
from harness.certificate import coins, floor
from harness.certificate.answers import Answers
from harness.certificate.certificate import SECOND_LOOK, certify
from harness.edition import PROBES
from harness.errors import UsageError, Violation
from harness.lanes import Positions
from harness.progress import Report
from harness.rundir import SeedFolder
from harness.shards import Tokens
from harness.stages import Job

STRICT_PROBES = 512
"""Asked by strict prefixes too where lanes are used."""
LANES_NATS = 0.05
"""Rows that differ by more are not the same predictor's: bfloat16 in another batch brings 0.02."""
EXACT_NATS = 1e-3
"""Where no answer is further from its claim, there is no noise that a second witness could measure."""


@dataclass(frozen=True)
class Request:
    """What is asked of a witness: `probes` on average, over at most `chunks` chunks (a random prefix of them), or all."""

    probes: int
    chunks: int | None = None
    lanes: bool = False
    """Ask many contexts at once, and STRICT_PROBES by strict prefixes beside."""


def request(profile: str, probes: int | None = None, chunks: int | None = None, lanes: bool = False) -> Request | None:
    """What a command asks for; None for no witness. Without a number it is the profile's.

    Raises UsageError for an unknown profile.
    """
    if profile not in PROBES:
        raise UsageError(f"unknown profile {profile!r}", hint=f"one of {', '.join(PROBES)}")
    probes = PROBES[profile] if probes is None else probes
    return Request(probes, chunks, lanes) if probes else None


class Begun(BaseModel):
    """witness.json: the coins, and every look with how its witnesses ended; written before a look's first question."""

    model_config = ConfigDict(extra="forbid")

    seed: str = Field(pattern="^[0-9a-f]{64}$")
    ledger_sha256: str
    probes: int = Field(gt=0)
    chunks: int | None = None
    lanes: bool = False
    times_begun: int = 1
    looks: list[dict[str, Any]] = []


def certify_score(job: Job, seed: int, folder: SeedFolder, tokens_T: Tokens, scored: referee.Scored, n_bytes: int,
                  request: Request, report: Report) -> dict[str, Any]:
    """{"certificate": verdict.json's, or null; "unasked": why there is none, or null}, JSON-ready.

    Witnesses that cannot be asked, or that end early, cost the contestant its certificate or make G large; they never fail a
    score. Raises MachineFault, after which the same call goes on with the same coins, and UsageError where lanes are wanted of
    a contestant that adapts or declares no context.
    """
    if request.lanes and (scored.adapts or scored.context is None):
        raise UsageError("--witness-lanes: lanes need a contestant that declares its context and does not adapt",
                         hint="leave it out: the witness is then shown strict prefixes, which fits any contestant")
    begun = _begin(folder, scored.ledger_sha256, request)
    claimed = coins.Scored(tokens_T, scored.nats_T, floor.prices(tokens_T, job.vocab_size), n_bytes, scored.chunk_tokens)
    made, unasked, cleared, compared = None, None, "", None
    while made is None or made.wants_second_look:
        look = len(begun.looks) + 1
        plan = _plan(begun, claimed, look)
        rundir.write_json(folder.witness, begun.model_dump())
        voice = _Voice(job, seed, folder, tokens_T, scored, look, report)
        if begun.lanes:
            heard, ended, compared = _hear_lanes(voice, begun, claimed, plan)
        else:
            heard, ended = _hear(voice, plan)
        cleared = voice.cleared
        if heard:
            second = heard[1].answers if len(heard) == 2 else None
            made = certify(claimed, plan, heard[0].answers, second, borders=heard[0].borders, adapts=scored.adapts,
                           lanes=begun.lanes)
            _keep(folder, look, plan, claimed, heard)
        begun.looks.append({"look": look, "asked": len(plan.asked_P), "witnesses": len(heard), "ended": ended,
                            "seconds": [asdict(each.took) for each in heard], "G_bpb": made.G_bpb if heard and made else None})
        if not heard:
            unasked = ended[-1] if made is None else None
            break
    rundir.write_json(folder.witness, begun.model_dump())
    if made is None:
        return {"certificate": None, "unasked": f"the witness could not be asked: {unasked}"}
    facts = {"seed": begun.seed, "times_begun": begun.times_begun, "looks": begun.looks, "between": cleared,
             "lanes": compared}
    shown = {**made.public(), **facts}
    if compared is not None and not compared["agree"]:
        shown["conditions"] = [condition if condition["condition"] == "C2" else
                               {**condition, "outcome": "unknown", "evidence": f"{compared['text']}; {condition['evidence']}"}
                               for condition in shown["conditions"]]
    return {"certificate": shown, "unasked": None}


def _begin(folder: SeedFolder, ledger_sha256: str, request: Request) -> Begun:
    """Fresh coins, or those of an attempt at the same ledger that was cut off; its looks are asked again from the first."""
    if not folder.witness.exists():
        return Begun(seed=os.urandom(32).hex(), ledger_sha256=ledger_sha256, probes=request.probes, chunks=request.chunks,
                     lanes=request.lanes)
    try:
        earlier = Begun.model_validate(rundir.read_json(folder.witness))
    except ValidationError as error:
        raise UsageError(f"{folder.witness}: {error.errors(include_url=False)[0]['msg']}",
                         hint="the file was changed by hand; --again runs the seed anew") from error
    if earlier.ledger_sha256 != ledger_sha256:
        raise UsageError(f"{folder.witness}: its coins belong to another ledger", hint="--again runs the seed anew")
    return earlier.model_copy(update={"times_begun": earlier.times_begun + 1, "looks": []})


def _plan(begun: Begun, claimed: coins.Scored, look: int) -> coins.Plan:
    coin_seed = bytes.fromhex(begun.seed)
    probes = min(begun.probes * SECOND_LOOK ** (look - 1), len(claimed.tokens_T))
    covered = None if begun.chunks is None else coins.prefix(coin_seed, claimed, begun.chunks)
    return coins.draw(coin_seed, claimed, probes, look=look, covered=covered)


@dataclass
class _Voice:
    """All that asking one more witness of a look needs."""

    job: Job
    seed: int
    folder: SeedFolder
    tokens_T: Tokens
    scored: referee.Scored
    look: int
    report: Report
    asked: int = 0
    cleared: str = ""
    """What the runner did before the last of them."""

    def ask(self, positions_P: Positions, ask: Callable[..., asking.Asked] = asking.ask) -> asking.Asked:
        """A fresh witness's answers. Raises Violation where it cannot be asked."""
        self.asked += 1
        number = self.asked

        def telling(done: int) -> None:
            text = f"witness {number}, look {self.look}: {done:,} of {len(positions_P):,} rows"
            self.report(done / max(len(positions_P), 1), text)

        self.cleared = self.job.runner.clear_channels(self.job.limits)
        return stages.witness(self.job, self.seed, self.folder, self.tokens_T, self.scored, positions_P, telling,
                              f"witness-{self.look}{number}", ask)


def _hear(voice: _Voice, plan: coins.Plan) -> tuple[list[asking.Asked], list[str | None]]:
    """What the witnesses of a look say to strict prefixes, and why each ended early, if it did."""
    heard: list[asking.Asked] = []
    ended: list[str | None] = []
    for _ in range(2):
        try:
            heard.append(voice.ask(plan.asked_P))
        except Violation as violation:
            return heard, [*ended, str(violation)]
        ended.append(heard[-1].ended)
        if _exact(voice.scored, plan, heard[-1]):
            break
    return heard, ended


def _hear_lanes(voice: _Voice, begun: Begun, claimed: coins.Scored, plan: coins.Plan
                ) -> tuple[list[asking.Asked], list[str | None], dict[str, Any] | None]:
    """Two witnesses for all questions, by lanes, joined as one, and a third by strict prefixes for some of them, to compare."""
    strict = coins.draw(bytes.fromhex(begun.seed), claimed, min(begun.probes, STRICT_PROBES), covered=plan.covered)
    borders_P = np.array([border.position for border in voice.scored.borders if border.position < plan.covered], np.int64)
    every_P = np.unique(np.concatenate([plan.asked_P, strict.asked_P, borders_P]))
    assert voice.scored.context is not None
    parts: list[tuple[Positions, asking.Asked]] = []
    try:
        parts += [(part_P, voice.ask(part_P, lanes.ask)) for part_P in lanes.stretches(every_P, voice.scored.context)]
        alone = voice.ask(strict.asked_P)
    except Violation as violation:
        return [], [str(violation)], None
    together = _joined(every_P, parts)
    again = _picked(together, every_P, strict.asked_P)
    compared = _compare(again, alone.answers)
    compared |= {"probes": int(strict.coin_P.sum()),
                 "G_bpb": certify(claimed, strict, alone.answers, borders=alone.borders).G_bpb}
    heard = asking.Asked(_picked(together, every_P, plan.asked_P), sorted(border for _, part in parts for border in part.borders),
                         parts[0][1].ended or parts[1][1].ended, parts[0][1].took)
    return [heard], [each.ended for each in (*(part for _, part in parts), alone)], compared


def _joined(every_P: Positions, parts: list[tuple[Positions, asking.Asked]]) -> Answers:
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
    text = (f"{len(both_P):,} rows of lanes differ from those after strict prefixes by {apart:.1e} nats at most"
            + (f", and {lost:,} came in one way only" if lost else ""))
    return {"largest_difference_nats": apart, "in_one_way_only": lost, "agree": apart <= LANES_NATS and not lost, "text": text}


def _exact(scored: referee.Scored, plan: coins.Plan, asked: asking.Asked) -> bool:
    """Whether every question was answered by the claim itself."""
    apart_P = np.abs(asked.answers.charged_P() - scored.nats_T[plan.asked_P])
    return bool((apart_P <= EXACT_NATS).all())


def _keep(folder: SeedFolder, look: int, plan: coins.Plan, claimed: coins.Scored, heard: list[asking.Asked]) -> None:
    """All that the bound is made of: a row for each question, in nats. inf where no usable row came."""
    columns: dict[str, Any] = {"position": plan.asked_P, "coin": plan.coin_P, "pi": plan.pi_P, "largest_gain": plan.largest_P,
               "price": plan.price_P, "claim": claimed.nats_T[plan.asked_P]}
    for number, each in enumerate(heard, 1):
        columns |= {f"witness_{number}": each.answers.charged_P(), f"logsumexp_{number}": each.answers.logsumexp_P}
    packed = io.BytesIO()
    np.savez_compressed(packed, **columns)
    rundir.write_bytes(folder.answers(look), packed.getvalue())

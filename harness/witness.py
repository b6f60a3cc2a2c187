"""The witnesses of one score: coins, looks, questions, and the certificate that comes of the answers.

    request = Request(4096)                                  by strict prefixes; lanes=True: many contexts at once
    certificate = certify_score(job, seed, folder, tokens_T, scored, n_bytes, request, progress.stage(...))

The seed of the coins is drawn after the ledger closed and written down before the first question, so that a look which
was cut off goes on with the same coins: nobody tries again until they fall well. What was answered is kept beside it
(witness-<look>.npz), so that anyone can compute the bound again. A second witness of strict prefixes measures noise, and is
asked only where the first one's rows are not the claims themselves; a second look only where the first leaves something
unexplained.
Not covered: what the answers prove (certificate/), and what a condition's outcome is on this runner (rules/conditions.py).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import asking, lanes, referee, rundir, stages
from harness.certificate import coins, floor
from harness.certificate.answers import Answers, Border
from harness.certificate.certificate import SECOND_LOOK, Certificate, certify
from harness.edition import PROBES
from harness.errors import UsageError, Violation
from harness.lanes import Positions
from harness.progress import Report
from harness.rundir import SeedFolder
from harness.runners.base import COOPERATIVE
from harness.shards import Tokens
from harness.stages import Job

STRICT_PROBES = 512
"""Asked by strict prefixes too where lanes are used."""
LANES_NATS = 0.05
"""Rows that differ by more are not the same predictor's: bfloat16 in another batch brings 0.02."""
OF_THE_BOUND = ("G_nats", "G_bpb", "G_covered_nats", "alpha", "parts_nats", "guarantee")
"""What a certificate says by its bound alone."""
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
    score. Raises MachineFault, after which the same call goes on with the same coins, whatever its request is.
    """
    if request.lanes and (scored.adapts or scored.context is None):
        return {"certificate": None, "unasked": "lanes were wanted of a contestant that adapts or declares no context: without "
                "--witness-lanes the witness is shown strict prefixes, which fits any"}
    begun = _begin(folder, scored.ledger_sha256, request)
    claimed = coins.Scored(tokens_T, scored.nats_T, floor.prices(tokens_T, job.vocab_size), n_bytes, scored.chunk_tokens)
    voice = _Voice(job, seed, folder, tokens_T, scored, report)
    made: list[Certificate] = []
    strict: Certificate | None = None
    compared: dict[str, Any] | None = None
    while not made or made[-1].wants_second_look:
        voice.begin_look()
        plan = _plan(begun, claimed, voice.look)
        rundir.write_json(folder.witness, begun.model_dump())
        heard = _hear_lanes(voice, begun, claimed, plan) if begun.lanes else _hear(voice, plan)
        if heard.answers:
            made.append(certify(claimed, plan, heard.answers[0], *heard.answers[1:], borders=heard.borders, adapts=scored.adapts,
                                lanes=begun.lanes))
            _keep(folder, voice.look, plan, claimed, heard.answers)
            if heard.strict is not None:
                strict, compared = heard.strict, heard.compared
        begun.looks.append({"look": voice.look, "asked": len(plan.asked_P), "witnesses": voice.asked, "ended": voice.ended,
                            "seconds": [asdict(took) for took in voice.took], "G_bpb": made[-1].G_bpb if heard.answers else None})
        if not heard.answers:
            break
    rundir.write_json(folder.witness, begun.model_dump())
    if not made:
        return {"certificate": None, "unasked": f"the witness could not be asked: {voice.ended[-1]}"}
    shown = _best_bound(made)
    conditions = list(shown["conditions"])
    if begun.lanes:
        conditions = _with_strict(conditions, strict, compared)
    if not job.runner.isolated:
        conditions = [_cooperative(condition) for condition in conditions]
    lanes_shown = None if not begun.lanes else {**(compared or {}), "G_bpb": strict.G_bpb if strict else None,
                                                "probes": strict.n_probes if strict else 0}
    return {"certificate": {**shown, "conditions": conditions, "seed": begun.seed, "times_begun": begun.times_begun,
                            "looks": begun.looks, "between": voice.cleared, "lanes": lanes_shown}, "unasked": None}


def _best_bound(made: list[Certificate]) -> dict[str, Any]:
    """The last look's certificate with the smallest bound of all: each holds at its own alpha, which together are the 1 %."""
    best, last = min(made, key=lambda each: each.G_nats).public(), made[-1].public()
    return {**last, **{key: best[key] for key in OF_THE_BOUND}}


def _with_strict(conditions: list[dict[str, Any]], strict: Certificate | None, compared: dict[str, Any] | None
                 ) -> list[dict[str, Any]]:
    """Lanes show a condition only where strict prefixes show it too and brought the same rows; what those accuse stays."""
    alone = {} if strict is None else {condition.condition: condition for condition in strict.conditions}
    merged = []
    for condition in conditions:
        beside = alone.get(condition["condition"])
        if beside is not None and beside.outcome == "fail":
            condition = beside._asdict()
        elif condition["outcome"] != "fail":
            open_ = [] if compared and compared["agree"] else [compared["text"] if compared else
                                                               "lanes were not compared with strict prefixes"]
            open_ += [beside.evidence] if beside is not None and beside.outcome == "unknown" else []
            if open_:
                condition = {**condition, "outcome": "unknown", "evidence": "; ".join([*open_, condition["evidence"]])}
        merged.append(condition)
    return merged


def _cooperative(condition: dict[str, Any]) -> dict[str, Any]:
    """What a runner that excludes no channel leaves open; that a row is a distribution is seen on the socket all the same."""
    if condition["outcome"] != "pass" or condition["condition"] == "C2":
        return condition
    return {**condition, "outcome": "unknown", "cooperative": True,
            "evidence": f"{COOPERATIVE}; but for that, {condition['evidence']}"}


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


class _Heard(NamedTuple):
    """What the witnesses of a look say: the first's answers, a second's where one was needed; with lanes a certificate of strict
    prefixes beside."""

    answers: list[Answers]
    borders: list[Border]
    strict: Certificate | None = None
    compared: dict[str, Any] | None = None


@dataclass
class _Voice:
    """Asks fresh witnesses, and keeps how each of a look's ended and how long it took."""

    job: Job
    seed: int
    folder: SeedFolder
    tokens_T: Tokens
    scored: referee.Scored
    report: Report
    look: int = 0
    cleared: str = ""
    """What the runner did before the last of them."""
    asked: int = 0
    ended: list[str | None] = field(default_factory=list)
    took: list[asking.Took] = field(default_factory=list)

    def begin_look(self) -> None:
        self.look, self.asked, self.ended, self.took = self.look + 1, 0, [], []

    def ask(self, positions_P: Positions, ask: Callable[..., asking.Asked] = asking.ask) -> asking.Asked | None:
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


def _hear(voice: _Voice, plan: coins.Plan) -> _Heard:
    """What witnesses say to strict prefixes: one, and a second where some answer of the first is not the claim itself."""
    first = voice.ask(plan.asked_P)
    if first is None:
        return _Heard([], [])
    second = None if _exact(voice.scored, plan, first) else voice.ask(plan.asked_P)
    return _Heard([each.answers for each in (first, second) if each is not None], first.borders)


def _hear_lanes(voice: _Voice, begun: Begun, claimed: coins.Scored, plan: coins.Plan) -> _Heard:
    """Two witnesses for all questions, by lanes, joined as one; then strict prefixes for some, to compare and to accuse."""
    probes = min(begun.probes, STRICT_PROBES)
    strict = coins.draw(bytes.fromhex(begun.seed), claimed, probes, covered=plan.covered)
    borders_P = np.array([border.position for border in voice.scored.borders if border.position < plan.covered], np.int64)
    every_P = np.unique(np.concatenate([plan.asked_P, strict.asked_P, borders_P]))
    assert voice.scored.context is not None
    parts = [(part_P, voice.ask(part_P, lanes.ask)) for part_P in lanes.stretches(every_P, voice.scored.context)]
    heard = [(part_P, asked) for part_P, asked in parts if asked is not None]
    if not heard:
        return _Heard([], [])
    together = _joined(every_P, heard)
    alone = _hear(voice, strict)
    borders = sorted(border for _, part in heard for border in part.borders)
    answers = [_picked(together, every_P, plan.asked_P)]
    if not alone.answers:
        return _Heard(answers, borders)
    _keep(voice.folder, f"{voice.look}-strict", strict, claimed, alone.answers)
    return _Heard(answers, borders, certify(claimed, strict, alone.answers[0], *alone.answers[1:], borders=alone.borders),
                  _compare(_picked(together, every_P, strict.asked_P), alone.answers[0]))


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


def _keep(folder: SeedFolder, look: int | str, plan: coins.Plan, claimed: coins.Scored, heard: list[Answers]) -> None:
    """All that the bound is made of: a row for each question, in nats. inf where no usable row came."""
    columns: dict[str, Any] = {"position": plan.asked_P, "coin": plan.coin_P, "pi": plan.pi_P, "largest_gain": plan.largest_P,
               "price": plan.price_P, "claim": claimed.nats_T[plan.asked_P]}
    for number, each in enumerate(heard, 1):
        columns |= {f"witness_{number}": each.charged_P(), f"logsumexp_{number}": each.logsumexp_P}
    packed = io.BytesIO()
    np.savez_compressed(packed, **columns)
    rundir.write_bytes(folder.answers(look), packed.getvalue())

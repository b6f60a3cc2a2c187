"""The witness of one score: its coins, its looks, and the certificate that comes of the answers (hearing.py asks).

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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base.errors import UsageError
from harness.base.progress import Report
from harness.data.shards import Tokens
from harness.edition import PROBES
from harness.protocol import conversation
from harness.run import folder as rundir
from harness.run.folder import SeedFolder
from harness.run.stages import Job
from harness.run.witnesses import Voice, hear, hear_lanes
from harness.runners.base import COOPERATIVE
from harness.scoring.certificate import reference_model, sampling
from harness.scoring.certificate.certificate import SECOND_LOOK, Certificate, certify
from harness.scoring.certificate.responses import Answers

STRICT_PROBES = 512
"""Asked by strict prefixes too where lanes are used."""
OF_THE_BOUND = ("G_nats", "G_bpb", "G_covered_nats", "alpha", "parts_nats", "guarantee")
"""What a certificate says by its bound alone."""


@dataclass(frozen=True)
class Request:
    """What is asked of a witness: `probes` on average, over at most `chunks` chunks (a random prefix of them), or all."""

    probes: int
    chunks: int | None = None
    lanes: bool = False
    """Ask many contexts at once, and STRICT_PROBES by strict prefixes beside."""


def request_of(profile: str, probes: int | None = None, chunks: int | None = None, lanes: bool = False) -> Request | None:
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


    def request(self) -> Request:
        """What was asked for when it began."""
        return Request(self.probes, self.chunks, self.lanes)


def begun_in(folder: SeedFolder) -> Begun | None:
    """The witness that was begun for a seed, None for none. Raises UsageError where its file was changed."""
    if not folder.witness.exists():
        return None
    try:
        return Begun.model_validate(rundir.read_json(folder.witness))
    except ValidationError as error:
        raise UsageError(f"{folder.witness}: {error.errors(include_url=False)[0]['msg']}",
                         hint="the file was changed by hand; --again runs the seed anew") from error


def certify_score(job: Job, seed: int, folder: SeedFolder, tokens_T: Tokens, scored: conversation.Scored, n_bytes: int,
                  request: Request, report: Report) -> dict[str, Any]:
    """{"certificate": verdict.json's, or null; "unasked": why there is none, or null}, JSON-ready.

    Witnesses that cannot be asked, or that end early, cost the contestant its certificate or make G large; they never fail a
    score. Raises MachineFault, after which the same call goes on with the same coins, whatever its request is.
    """
    if request.lanes and (scored.adapts or scored.context is None):
        return {"certificate": None, "unasked": "lanes were wanted of a contestant that adapts or declares no context: without "
                "--witness-lanes the witness is shown strict prefixes, which fits any"}
    begun = _begin(folder, scored.ledger_sha256, request)
    claimed = sampling.Scored(tokens_T, scored.nats_T, reference_model.prices(tokens_T, job.vocab_size), n_bytes,
                              scored.chunk_tokens)
    voice = Voice(job, seed, folder, tokens_T, scored, report)
    made: list[Certificate] = []
    few = _plan(begun, claimed, 1, min(begun.probes, STRICT_PROBES)) if begun.lanes else None
    strict: Certificate | None = None
    compared: dict[str, Any] | None = None
    while not made or made[-1].wants_second_look:
        voice.begin_look()
        plan = _plan(begun, claimed, voice.look, begun.probes)
        rundir.write_json(folder.witness, begun.model_dump())
        heard = hear(voice, plan) if few is None else hear_lanes(voice, plan, few)
        if heard.answers:
            made.append(certify(claimed, plan, heard.answers[0], *heard.answers[1:], borders=heard.borders, adapts=scored.adapts,
                                lanes=begun.lanes))
            _keep(folder, voice.look, plan, claimed, heard.answers)
            if few is not None and (alone := heard.alone) is not None:
                strict = certify(claimed, few, alone.answers[0], *alone.answers[1:], borders=alone.borders)
                compared = heard.compared
                _keep(folder, f"{voice.look}-strict", few, claimed, alone.answers)
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
    earlier = begun_in(folder)
    if earlier is None:
        return Begun(seed=os.urandom(32).hex(), ledger_sha256=ledger_sha256, **asdict(request))
    if earlier.ledger_sha256 != ledger_sha256:
        raise UsageError(f"{folder.witness}: its coins belong to another ledger", hint="--again runs the seed anew")
    return earlier.model_copy(update={"times_begun": earlier.times_begun + 1, "looks": []})


def _plan(begun: Begun, claimed: sampling.Scored, look: int, probes: int) -> sampling.Plan:
    coin_seed = bytes.fromhex(begun.seed)
    probes = min(probes * SECOND_LOOK ** (look - 1), len(claimed.tokens_T))
    covered = None if begun.chunks is None else sampling.prefix(coin_seed, claimed, begun.chunks)
    return sampling.draw(coin_seed, claimed, probes, look=look, covered=covered)


def _keep(folder: SeedFolder, look: int | str, plan: sampling.Plan, claimed: sampling.Scored, heard: list[Answers]) -> None:
    """All that the bound is made of: a row for each question, in nats. inf where no usable row came."""
    columns: dict[str, Any] = {"position": plan.asked_P, "coin": plan.coin_P, "pi": plan.pi_P, "largest_gain": plan.largest_P,
               "price": plan.price_P, "claim": claimed.nats_T[plan.asked_P]}
    for number, each in enumerate(heard, 1):
        columns |= {f"witness_{number}": each.charged_P(), f"logsumexp_{number}": each.logsumexp_P}
    packed = io.BytesIO()
    np.savez_compressed(packed, **columns)
    rundir.write_bytes(folder.answers(look), packed.getvalue())

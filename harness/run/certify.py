"""The witness of one score: its coins, its looks, and the certificate that comes of the answers (hearing.py
asks).

    request = Request(4096)                                  by strict prefixes; lanes=True: many contexts at once
    certificate = certify_score(job, seed, folder, tokens_T, scored, n_bytes, request, progress.stage(...))

The seed of the coins is drawn after the ledger closed and written down before the first question, so that a
look which was cut off goes on with the same coins: nobody tries again until they fall well. What was answered
is kept beside it (witness-<look>.npz), so that anyone can compute the bound again. A second witness of strict
prefixes measures noise, and is asked only where the first one's rows are not the claims themselves; a second
look only where the first leaves something unexplained. Not covered: what the answers prove (certificate/),
and what a condition's outcome is on this runner (rules/conditions.py)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base import files
from harness.base.arrays import write_arrays
from harness.base.errors import UsageError
from harness.base.progress import ProgressCallback
from harness.data.shards import Tokens
from harness.edition import PROBES
from harness.protocol import conversation
from harness.run.folder import SeedFolder
from harness.run.stages import StageJob
from harness.run.witnesses import WitnessSession, query, query_batched
from harness.runners.base import COOPERATIVE
from harness.scoring.certificate import reference_model, sampling
from harness.scoring.certificate.certificate import SECOND_ROUND_FACTOR, Certificate, certify
from harness.scoring.certificate.responses import Responses

STRICT_PROBES = 512
"""Asked by strict prefixes too where lanes are used."""
BOUND_KEYS = ("G_nats", "G_bpb", "G_covered_nats", "alpha", "parts_nats", "guarantee")
"""What a certificate says by its bound alone."""


@dataclass(frozen=True)
class WitnessRequest:
    """What is asked of a witness: `probes` on average, over at most `chunks` chunks (a random prefix of
    them), or all."""

    probes: int
    chunks: int | None = None
    lanes: bool = False
    """Ask many contexts at once, and STRICT_PROBES by strict prefixes beside."""


def witness_request(
    profile: str, probes: int | None = None, chunks: int | None = None, lanes: bool = False
) -> WitnessRequest | None:
    """What a command asks for; None for no witness. Without a number it is the profile's.

    Raises UsageError for an unknown profile.
    """
    if profile not in PROBES:
        raise UsageError(f"unknown profile {profile!r}", hint=f"one of {', '.join(PROBES)}")
    probes = PROBES[profile] if probes is None else probes
    return WitnessRequest(probes, chunks, lanes) if probes else None


class WitnessState(BaseModel):
    """witness.json: the coins, and every look with how its witnesses ended; written before a look's first
    question."""

    model_config = ConfigDict(extra="forbid")

    seed: str = Field(pattern="^[0-9a-f]{64}$")
    ledger_sha256: str
    probes: int = Field(gt=0)
    chunks: int | None = None
    lanes: bool = False
    times_begun: int = 1
    looks: list[dict[str, Any]] = []

    def request(self) -> WitnessRequest:
        """What was asked for when it began."""
        return WitnessRequest(self.probes, self.chunks, self.lanes)


def load_state(folder: SeedFolder) -> WitnessState | None:
    """The witness that was begun for a seed, None for none. Raises UsageError where its file was changed."""
    if not folder.witness.exists():
        return None
    try:
        return WitnessState.model_validate(files.read_json(folder.witness))
    except ValidationError as error:
        raise UsageError(
            f"{folder.witness}: {error.errors(include_url=False)[0]['msg']}",
            hint="the file was changed by hand; --again runs the seed anew",
        ) from error


def certify_score(
    job: StageJob,
    seed: int,
    folder: SeedFolder,
    tokens_T: Tokens,
    scored: conversation.ScoringPass,
    n_bytes: int,
    request: WitnessRequest,
    report: ProgressCallback,
) -> dict[str, Any]:
    """{"certificate": verdict.json's, or null; "unasked": why there is none, or null}, JSON-ready.

    Witnesses that cannot be asked, or that end early, cost the contestant its certificate or make G large;
    they never fail a score. Raises MachineFault, after which the same call goes on with the same coins,
    whatever its request is."""
    if request.lanes and (scored.adapts or scored.context is None):
        return {
            "certificate": None,
            "unasked": "lanes were wanted of a contestant that adapts or declares no context: without "
            "--witness-lanes the witness is shown strict prefixes, which fits any",
        }
    state = _begin_or_resume(folder, scored.ledger_sha256, request)
    reported = sampling.ReportedScore(
        tokens_T,
        scored.nats_T,
        reference_model.probabilities(tokens_T, job.vocab_size),
        n_bytes,
        scored.chunk_tokens,
    )
    session = WitnessSession(job, seed, folder, tokens_T, scored, report)
    made: list[Certificate] = []
    few = _draw_plan(state, reported, 1, min(state.probes, STRICT_PROBES)) if state.lanes else None
    strict: Certificate | None = None
    compared: dict[str, Any] | None = None
    while not made or made[-1].wants_second_round:
        session.begin_round()
        plan = _draw_plan(state, reported, session.round_number, state.probes)
        files.write_json(folder.witness, state.model_dump())
        responses = query(session, plan) if few is None else query_batched(session, plan, few)
        if responses.responses:
            made.append(
                certify(
                    reported,
                    plan,
                    responses.responses,
                    boundaries=responses.boundaries,
                    adapts=scored.adapts,
                    batched=state.lanes,
                )
            )
            _save_responses(folder, session.round_number, plan, reported, responses.responses)
            if few is not None and (alone := responses.alone) is not None:
                strict = certify(reported, few, alone.responses, boundaries=alone.boundaries)
                compared = responses.compared
                _save_responses(folder, f"{session.round_number}-strict", few, reported, alone.responses)
        state.looks.append(
            {
                "look": session.round_number,
                "asked": len(plan.asked_P),
                "witnesses": session.asked,
                "ended": session.ended,
                "seconds": [asdict(timing) for timing in session.timing],
                "G_bpb": made[-1].G_bpb if responses.responses else None,
            }
        )
        if not responses.responses:
            break
    files.write_json(folder.witness, state.model_dump())
    if not made:
        return {"certificate": None, "unasked": f"the witness could not be asked: {session.ended[-1]}"}
    shown = _best_bound(made)
    conditions = list(shown["conditions"])
    if state.lanes:
        conditions = _with_strict(conditions, strict, compared)
    if not job.runner.isolated:
        conditions = [_cooperative(condition) for condition in conditions]
    lanes_shown = (
        None
        if not state.lanes
        else {
            **(compared or {}),
            "G_bpb": strict.G_bpb if strict else None,
            "probes": strict.n_probes if strict else 0,
        }
    )
    return {
        "certificate": {
            **shown,
            "conditions": conditions,
            "seed": state.seed,
            "times_begun": state.times_begun,
            "looks": state.looks,
            "between": session.cleared,
            "lanes": lanes_shown,
        },
        "unasked": None,
    }


def _best_bound(made: list[Certificate]) -> dict[str, Any]:
    """The last look's certificate with the smallest bound of all: each holds at its own alpha, which together
    are the 1 %."""
    best, last = min(made, key=lambda each: each.G_nats).public(), made[-1].public()
    return {**last, **{key: best[key] for key in BOUND_KEYS}}


def _with_strict(
    conditions: list[dict[str, Any]], strict: Certificate | None, compared: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Lanes show a condition only where strict prefixes show it too and brought the same rows; what those
    accuse stays."""
    alone = {} if strict is None else {condition.condition: condition for condition in strict.conditions}
    merged = []
    for condition in conditions:
        beside = alone.get(condition["condition"])
        if beside is not None and beside.outcome == "fail":
            condition = beside._asdict()
        elif condition["outcome"] != "fail":
            open_ = (
                []
                if compared and compared["agree"]
                else [compared["text"] if compared else "lanes were not compared with strict prefixes"]
            )
            open_ += [beside.evidence] if beside is not None and beside.outcome == "unknown" else []
            if open_:
                condition = {
                    **condition,
                    "outcome": "unknown",
                    "evidence": "; ".join([*open_, condition["evidence"]]),
                }
        merged.append(condition)
    return merged


def _cooperative(condition: dict[str, Any]) -> dict[str, Any]:
    """What a runner that excludes no channel leaves open; that a row is a distribution is seen on the socket
    all the same."""
    if condition["outcome"] != "pass" or condition["condition"] == "C2":
        return condition
    return {
        **condition,
        "outcome": "unknown",
        "cooperative": True,
        "evidence": f"{COOPERATIVE}; but for that, {condition['evidence']}",
    }


def _begin_or_resume(folder: SeedFolder, ledger_sha256: str, request: WitnessRequest) -> WitnessState:
    """Fresh coins, or those of an attempt at the same ledger that was cut off; its looks are asked again from
    the first."""
    earlier = load_state(folder)
    if earlier is None:
        return WitnessState(seed=os.urandom(32).hex(), ledger_sha256=ledger_sha256, **asdict(request))
    if earlier.ledger_sha256 != ledger_sha256:
        raise UsageError(
            f"{folder.witness}: its coins belong to another ledger", hint="--again runs the seed anew"
        )
    return earlier.model_copy(update={"times_begun": earlier.times_begun + 1, "looks": []})


def _draw_plan(
    state: WitnessState, reported: sampling.ReportedScore, round_number: int, probes: int
) -> sampling.SamplingPlan:
    coin_seed = bytes.fromhex(state.seed)
    probes = min(probes * SECOND_ROUND_FACTOR ** (round_number - 1), len(reported.tokens_T))
    covered = None if state.chunks is None else sampling.draw_prefix(coin_seed, reported, state.chunks)
    return sampling.draw(coin_seed, reported, probes, round_number=round_number, covered=covered)


def _save_responses(
    folder: SeedFolder,
    round_number: int | str,
    plan: sampling.SamplingPlan,
    reported: sampling.ReportedScore,
    responses: list[Responses],
) -> None:
    """All that the bound is made of: a row for each question, in nats. inf where no usable row came."""
    columns: dict[str, Any] = {
        "position": plan.asked_P,
        "coin": plan.selected_P,
        "pi": plan.pi_P,
        "largest_gain": plan.largest_P,
        "price": plan.reference_P,
        "claim": reported.nats_T[plan.asked_P],
    }
    for number, each in enumerate(responses, 1):
        columns |= {f"witness_{number}": each.charged_P(), f"logsumexp_{number}": each.logsumexp_P}
    write_arrays(folder.responses(round_number), columns, compress=True)

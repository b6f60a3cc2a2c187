"""Verify one scored seed: sample tokens, query fresh copies of the contestant, compute the certificate.

    found = certify_score(job, tokens_T, scored, n_bytes, WitnessRequest(4096), on_progress)

The responses are kept beside witness.json (witness-<round>.npz), so that anyone can compute the bound again.
A second witness measures noise; it is asked only where the first one's rows are not the reported numbers. A
second round is held only where the first leaves something unexplained. What responses prove:
scoring/certificate/. What a condition's outcome is on this runner: verdict/rules/conditions.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.base.arrays import write_arrays
from harness.base.progress import ProgressCallback
from harness.base.text import count
from harness.data.shards import Tokens
from harness.protocol.conversation import ScoringPass
from harness.run.folder import SeedFolder
from harness.run.stages import StageJob
from harness.run.witness_state import WitnessRequest, WitnessState, begin_or_resume
from harness.run.witnesses import WitnessSession, query, query_batched
from harness.runners.base import COOPERATIVE
from harness.scoring.certificate import reference_model, sampling
from harness.scoring.certificate.certificate import SECOND_ROUND_FACTOR, Certificate, certify
from harness.scoring.certificate.forecast import DECISIVE_NATS, decisive_nats, forecast
from harness.scoring.certificate.responses import Responses
from harness.scoring.certificate.sampling import ReportedScore, SamplingPlan

NO_BATCHES = (
    "batches need a contestant that declares a context and does not adapt; without --witness-lanes any "
    "contestant can be queried, by strict prefixes"
)
STRICT_PROBES = 512
"""Asked by strict prefixes too where contexts are batched."""
BOUND_KEYS = ("G_nats", "G_bpb", "G_covered_nats", "alpha", "parts_nats", "guarantee")
"""What a certificate says by its bound alone."""


def certify_score(
    job: StageJob,
    tokens_T: Tokens,
    scored: ScoringPass,
    n_bytes: int,
    request: WitnessRequest,
    on_progress: ProgressCallback,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """{"certificate": verdict.json's, or null; "unasked": why there is none, or null}, JSON-ready.

    `n_bytes` of text were scored. `say` is told what the probes can decide, before the first question.

    Witnesses that cannot be queried, or that end early, cost the contestant
    its certificate or make G large; they never fail a score. Raises MachineFault, after which the same call
    resumes with the same random seed, whatever its request is.
    """
    if request.batched and not takes_batches(scored.adapts, scored.context):
        return _without(NO_BATCHES)
    state = begin_or_resume(job.folder, scored.ledger_sha256, request)
    session = WitnessSession(job, tokens_T, scored, on_progress)
    reference_T = reference_model.probabilities(tokens_T, job.terms.vocab_size)
    reported = ReportedScore(tokens_T, scored.nats_T, reference_T, n_bytes, scored.chunk_tokens)
    rounds = _hold_rounds(state, session, reported, say)
    state.save(job.folder)
    if not rounds.certificates:
        return _without(f"the witness could not be asked: {session.ends[-1].reason}")
    return {"certificate": _public(rounds, state, session), "unasked": None}


def takes_batches(adapts: bool, context: int | None) -> bool:
    """Whether a contestant that declares this can be queried in batches."""
    return not adapts and context is not None


def _without(reason: str) -> dict[str, Any]:
    return {"certificate": None, "unasked": reason}


@dataclass
class _Rounds:
    """The certificate of each round; in batches, also that of the last round's strict prefixes."""

    certificates: list[Certificate] = field(default_factory=list)
    strict: Certificate | None = None
    comparison: dict[str, Any] | None = None

    @property
    def unexplained(self) -> bool:
        """Whether another round is due: always a first one."""
        return not self.certificates or self.certificates[-1].wants_second_round


def _hold_rounds(
    state: WitnessState, session: WitnessSession, reported: ReportedScore, say: Callable[[str], None]
) -> _Rounds:
    """Sample, query and certify until nothing is unexplained or no witness answers; each round goes into
    `state`.
    """
    folder, rounds = session.job.folder, _Rounds()
    decisive = decisive_nats(session.job.terms.profile)
    strict_plan = None
    if state.batched:
        strict_plan = _draw_plan(state, reported, 1, min(state.probes, STRICT_PROBES))
    while rounds.unexplained:
        session.begin_round()
        plan = _draw_plan(state, reported, session.round_number, state.probes)
        if session.round_number == 1:
            say(_announce(session.job, reported, plan))
        state.save(folder)
        found = query(session, plan) if strict_plan is None else query_batched(session, plan, strict_plan)
        if found.responses:
            rounds.certificates.append(
                certify(
                    reported,
                    plan,
                    found.responses,
                    boundaries=found.boundaries,
                    adapts=session.scored.adapts,
                    batched=state.batched,
                    decisive=decisive,
                )
            )
            _save_responses(folder, str(session.round_number), plan, reported, found.responses)
        if strict_plan is not None and found.strict is not None:
            strict = found.strict
            rounds.strict = certify(
                reported, strict_plan, strict.responses, boundaries=strict.boundaries, decisive=DECISIVE_NATS
            )
            rounds.comparison = found.comparison
            _save_responses(folder, f"{session.round_number}-strict", strict_plan, reported, strict.responses)
        last = rounds.certificates[-1] if found.responses else None
        state.rounds.append(_round_facts(session, plan, last))
        if last is None:
            break
    return rounds


def _announce(job: StageJob, reported: ReportedScore, plan: SamplingPlan) -> str:
    """What this number of probes can decide, in bits per byte, and which number could."""
    expected = forecast(reported, plan, job.terms.profile)
    needed = expected.probes_to_decide
    if expected.G_bpb <= expected.decisive_bpb:
        reach = "so they can decide C1"
    elif needed is None:
        reach = "so they cannot decide C1, and no number of probes of this part of the text can"
    else:
        reach = f"so they cannot decide C1; {count(needed, 'probe')} could, asked from the start of a run"
    text = (
        f"seed {job.seed} witness: {count(round(plan.n_expected), 'probe')} bound what is unearned at about "
        f"{expected.G_bpb:.4f} bits per byte, a pass needs {expected.decisive_bpb:.4f} or less, {reach}"
    )
    return text if job.runner.isolated else f"{text}; without isolation C1, C3 and C4 stay open all the same"


def _draw_plan(state: WitnessState, reported: ReportedScore, round_number: int, probes: int) -> SamplingPlan:
    """The tokens to ask in a round: the second asks SECOND_ROUND_FACTOR times as many as the first."""
    seed = bytes.fromhex(state.seed)
    probes = min(probes * SECOND_ROUND_FACTOR ** (round_number - 1), len(reported.tokens_T))
    covered = None if state.chunks is None else sampling.draw_prefix(seed, reported, state.chunks)
    return sampling.draw(seed, reported, probes, round_number=round_number, covered=covered)


def _round_facts(
    session: WitnessSession, plan: SamplingPlan, certificate: Certificate | None
) -> dict[str, Any]:
    """One round in witness.json: `ended` and `seconds` have one entry for each witness, in the same order."""
    return {
        "look": session.round_number,
        "asked": len(plan.asked_P),
        "witnesses": session.n_witnesses,
        "ended": [end.reason for end in session.ends],
        "seconds": [asdict(end.timing) for end in session.ends],
        "G_bpb": certificate and certificate.G_bpb,
    }


def _save_responses(
    folder: SeedFolder,
    round_name: str,
    plan: SamplingPlan,
    reported: ReportedScore,
    responses: list[Responses],
) -> None:
    """Everything the bound is computed from: a row for each question, in nats; +inf where no usable row
    came.
    """
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
    write_arrays(folder.responses(round_name), columns, compress=True)


def _public(rounds: _Rounds, state: WitnessState, session: WitnessSession) -> dict[str, Any]:
    """The certificate as verdict.json holds it."""
    shown = _best_bound(rounds.certificates)
    conditions = list(shown["conditions"])
    if state.batched:
        conditions = _merge_strict(conditions, rounds.strict, rounds.comparison)
    if shown["unanswered"] and (reasons := [end.reason for end in session.ends if end.reason]):
        conditions = [_with_reason(condition, reasons[0]) for condition in conditions]
    if not session.job.runner.isolated:
        conditions = [_cooperative(condition) for condition in conditions]
    batched = None
    if state.batched:
        batched = {
            **(rounds.comparison or {}),
            "G_bpb": rounds.strict.G_bpb if rounds.strict else None,
            "probes": rounds.strict.n_probes if rounds.strict else 0,
        }
    return {
        **shown,
        "conditions": conditions,
        "seed": state.seed,
        "times_begun": state.times_begun,
        "looks": state.rounds,
        "between": session.cleared,
        "lanes": batched,
    }


def _best_bound(certificates: list[Certificate]) -> dict[str, Any]:
    """The last round's certificate, but with the smallest bound of all rounds.

    All bounds hold together, because the alphas of the rounds sum to 1 %.
    """
    best = min(certificates, key=lambda each: each.G_nats).public()
    return {**certificates[-1].public(), **{key: best[key] for key in BOUND_KEYS}}


def _merge_strict(
    conditions: list[dict[str, Any]], strict: Certificate | None, comparison: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Combine the conditions found by batched contexts with those found by strict prefixes.

    A condition fails where either way fails it; it passes only where both pass it and brought the same rows.
    """
    by_strict = {} if strict is None else {each.condition: each for each in strict.conditions}
    merged = []
    for condition in conditions:
        beside = by_strict.get(condition["condition"])
        if beside is not None and beside.outcome == "fail":
            condition = beside._asdict()
        elif condition["outcome"] != "fail":
            reasons = []
            if comparison is None:
                reasons.append("batched contexts were not compared with strict prefixes")
            elif not comparison["agree"]:
                reasons.append(comparison["text"])
            if beside is not None and beside.outcome == "unknown":
                reasons.append(beside.evidence)
            if reasons:
                evidence = "; ".join([*reasons, condition["evidence"]])
                why = condition["why"] or "batches unlike strict prefixes"
                condition = {**condition, "outcome": "unknown", "evidence": evidence, "why": why}
        merged.append(condition)
    return merged


def _with_reason(condition: dict[str, Any], reason: str) -> dict[str, Any]:
    """The condition with the reason why the witness answered no more, where it is open."""
    if condition["outcome"] != "unknown":
        return condition
    return {**condition, "evidence": f"{condition['evidence']}; the witness ended early: {reason}"}


def _cooperative(condition: dict[str, Any]) -> dict[str, Any]:
    """The condition on a runner without isolation: a pass becomes unknown, except for C2, which is about the
    rows that came over the socket.
    """
    if condition["outcome"] != "pass" or condition["condition"] == "C2":
        return condition
    return {
        **condition,
        "outcome": "unknown",
        "cooperative": True,
        "why": "no isolation",
        "evidence": f"{COOPERATIVE}; but for that, {condition['evidence']}",
    }

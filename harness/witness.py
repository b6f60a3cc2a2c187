"""The witnesses of one score: coins, looks, questions, and the certificate that comes of the answers.

    request = Request(4096)
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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import asking, referee, rundir, stages
from harness.certificate import coins, floor
from harness.certificate.certificate import SECOND_LOOK, certify
from harness.edition import PROBES
from harness.errors import UsageError, Violation
from harness.progress import Report
from harness.rundir import SeedFolder
from harness.shards import Tokens
from harness.stages import Job

EXACT_NATS = 1e-3
"""Where no answer is further from its claim, there is no noise that a second witness could measure."""


@dataclass(frozen=True)
class Request:
    """What is asked of a witness: `probes` on average, over at most `chunks` chunks (a random prefix of them), or all."""

    probes: int
    chunks: int | None = None


def request(profile: str, probes: int | None = None, chunks: int | None = None) -> Request | None:
    """What a command asks for; None for no witness. Without a number it is the profile's."""
    probes = PROBES[profile] if probes is None else probes
    return Request(probes, chunks) if probes else None


class Begun(BaseModel):
    """witness.json: the coins, and every look with how its witnesses ended; written before a look's first question."""

    model_config = ConfigDict(extra="forbid")

    seed: str = Field(pattern="^[0-9a-f]{64}$")
    ledger_sha256: str
    probes: int = Field(gt=0)
    chunks: int | None = None
    times_begun: int = 1
    looks: list[dict[str, Any]] = []


def certify_score(job: Job, seed: int, folder: SeedFolder, tokens_T: Tokens, scored: referee.Scored, n_bytes: int,
                  request: Request, report: Report) -> dict[str, Any]:
    """{"certificate": verdict.json's, or null; "unasked": why there is none, or null}, JSON-ready.

    Witnesses that cannot be asked, or that end early, cost the contestant its certificate or make G large; they never fail a
    score. Raises MachineFault, after which the same call goes on with the same coins.
    """
    begun = _begin(folder, scored.ledger_sha256, request)
    claimed = coins.Scored(tokens_T, scored.nats_T, floor.prices(tokens_T, job.vocab_size), n_bytes, scored.chunk_tokens)
    made, unasked, isolated_by = None, None, ""
    while made is None or made.wants_second_look:
        look = len(begun.looks) + 1
        plan = _plan(begun, claimed, look)
        rundir.write_json(folder.witness, begun.model_dump())
        heard, ended, isolated_by = _hear(job, seed, folder, tokens_T, scored, plan, look, report)
        if heard:
            second = heard[1].answers if len(heard) == 2 else None
            made = certify(claimed, plan, heard[0].answers, second, borders=heard[0].borders, adapts=scored.adapts)
            _keep(folder, look, plan, claimed, heard)
        begun.looks.append({"look": look, "asked": len(plan.asked_P), "witnesses": len(heard), "ended": ended,
                            "seconds": [asdict(each.took) for each in heard], "G_bpb": made.G_bpb if heard and made else None})
        if not heard:
            unasked = ended[-1] if made is None else None
            break
    rundir.write_json(folder.witness, begun.model_dump())
    if made is None:
        return {"certificate": None, "unasked": f"the witness could not be asked: {unasked}"}
    facts = {"seed": begun.seed, "times_begun": begun.times_begun, "looks": begun.looks, "between": isolated_by}
    return {"certificate": {**made.public(), **facts}, "unasked": None}


def _begin(folder: SeedFolder, ledger_sha256: str, request: Request) -> Begun:
    """Fresh coins, or those of an attempt at the same ledger that was cut off; its looks are asked again from the first."""
    if not folder.witness.exists():
        return Begun(seed=os.urandom(32).hex(), ledger_sha256=ledger_sha256, probes=request.probes, chunks=request.chunks)
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


def _hear(job: Job, seed: int, folder: SeedFolder, tokens_T: Tokens, scored: referee.Scored, plan: coins.Plan, look: int,
          report: Report) -> tuple[list[asking.Asked], list[str | None], str]:
    """What the witnesses of a look say, why each ended early if it did, and what the runner did before the last of them."""
    heard: list[asking.Asked] = []
    ended: list[str | None] = []
    cleared = ""
    for number in (1, 2):
        def telling(done: int, number: int = number) -> None:
            report(done / max(len(plan.asked_P), 1), f"witness {number}, look {look}: {done:,} of {len(plan.asked_P):,} rows")

        cleared = job.runner.clear_channels(job.limits)
        try:
            heard.append(stages.witness(job, seed, folder, tokens_T, scored, plan.asked_P, telling, f"witness-{look}{number}"))
        except Violation as violation:
            return heard, [*ended, str(violation)], cleared
        ended.append(heard[-1].ended)
        if _exact(scored, plan, heard[-1]):
            break
    return heard, ended, cleared


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

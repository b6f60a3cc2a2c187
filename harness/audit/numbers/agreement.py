"""README, submission.json and logs tell the same numbers.

#86's log is of another configuration; #1732's README lists other seeds' scores than its JSON and logs. A difference is a question: logs are mixed
up more often than numbers are. Not covered: prose.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import Texts, places, shown
from harness.audit.record.facts import RANK, Number, Record, Run, Score, Stated, half_unit


def claim_and_logs(record: Record, texts: Texts) -> Iterator[Finding]:
    """The stated score and the stated seeds against the logs."""
    claim = record.claim()
    if claim is None or not record.runs:
        yield Finding("json-and-logs", None, "unknown", "no log of a run" if claim else "no submission*.json that can be read", (), "both")
        return
    for one in claim.results:
        run = next((run for run, _ in record.chosen() if one.seed in (run.seed, run.named_seed)), None)
        wrong = _differs(one, run) if run else None
        if run and wrong:
            name, stated, logged = wrong
            yield Finding("json-and-logs", None, "question", f"seed {one.seed}: {claim.file} states {name} {stated.value:,.10g}, {run.file} prints "
                          f"{logged.value:,.10g}", places(texts, (stated, logged)), "which of the two the submission stands on")
    if claim.bpb is None:
        return
    if record.confirmed:
        yield Finding("json-and-logs", None, "pass", f"the logs say {claim.bpb.value} as {claim.file} does", places(texts, (claim.bpb,)))
        return
    lines = [(run, score) for run in record.runs for score in run.scores if RANK[score.kind] > RANK["training"]]
    near = min(lines, key=lambda line: abs(line[1].bpb.value - (claim.bpb.value if claim.bpb else 0)), default=None)
    if near is None:
        yield Finding("json-and-logs", None, "unknown", "the logs print no final score", (), "the end of the logs")
    else:
        yield _unconfirmed(claim.bpb, near, texts, claim.file)


def _unconfirmed(stated: Number, near: tuple[Run, Score], texts: Texts, file: str) -> Finding:
    run, score = near
    kind = " of the unquantised model" if score.kind == "pre-quantization" else ""
    return Finding("json-and-logs", None, "question", f"{file} states {stated.value}, and neither a log nor the mean of the seeds does; the nearest "
                   f"line{kind}, `{score.label}` of {shown(run)}, has {score.bpb.value}", places(texts, (stated, score.bpb)),
                   "the logs of the runs that make the headline")


def _differs(one: Stated, run: Run) -> tuple[str, Number, Number] | None:
    pairs = (("bytes", one.counted_bytes, run.counted_bytes, 1.0), ("steps", one.steps, run.steps, 1.0))
    for name, stated, logged, slack in pairs:
        if stated and logged and abs(stated.value - logged.value) > slack and stated.value != (run.model_bytes.value if run.model_bytes else None):
            return name, stated, logged
    return None


def readme(record: Record, texts: Texts) -> Iterator[Finding]:
    """Rows of headline seeds in README tables against all scores that logs and JSON give those seeds."""
    claim = record.claim()
    known: dict[int, list[Number]] = {}
    for run in record.runs:
        for seed in {run.seed, int(run.logged_seed.value) if run.logged_seed else run.seed}:
            if seed is not None:
                known.setdefault(seed, []).extend(score.bpb for score in run.scores)
    for one in claim.results if claim else ():
        if one.seed is not None and one.bpb:
            known.setdefault(one.seed, []).append(one.bpb)
    heads = {run.seed for run, _ in record.chosen()}
    wrong = [(seed, file, line, scores) for seed, file, line, numbers in record.readme_seeds if seed in heads and "readme" in file.lower()
             for scores in [[value for value in numbers if 0.2 < value < 3 and value != round(value, 2)]]
             if scores and not any(_said(value, bpb) for value in scores for bpb in known.get(seed, ()))]
    right = {seed for seed, _, _, numbers in record.readme_seeds if any(_said(value, bpb) for value in numbers for bpb in known.get(seed, ()))}
    for seed, file, line, scores in wrong:
        if seed not in right:  # a second table may be of an ablation or of the baseline
            nearest = min(known[seed], key=lambda bpb: abs(bpb.value - scores[-1]))
            yield Finding("readme-and-logs", None, "question", f"{file} gives seed {seed} {', '.join(map(str, scores[:4]))}; no log and no JSON "
                          f"has any of them, the nearest is {nearest.value}",
                          (Evidence(file, line, texts[file].split("\n")[line - 1].strip()[:200]), *places(texts, (nearest,))),
                          "the table brought up to date")
            return


def _said(value: float, bpb: Number) -> bool:
    """Whether a README's number is the score, rounded or cut."""
    return abs(value - bpb.value) <= 2 * half_unit(repr(value)) + bpb.half + 1e-9

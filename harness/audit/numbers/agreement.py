"""Check that README, submission.json and logs state the same numbers.

#86's log is of another configuration; #1732's README gives its seeds other scores than its JSON and logs do.
A difference is a question: people mix up logs more often than they invent numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import MAX_TEXT, Evidence, Finding
from harness.audit.numbers.findings import Texts, passed, question, quote, run_name, unknown
from harness.audit.record.facts import RANK, Number, Record, Run, Stated, half_unit
from harness.verdict.rule_info import RuleInfo

LEAST_BPB, MOST_BPB = 0.2, 3.0
"""Numbers of a README row that may be scores."""


JSON_AND_LOGS = RuleInfo(
    id="json-and-logs",
    title="submission.json and logs differ",
    condition=None,
    source="README R7, #86, #561",
    checks="the stated score against all score lines and their means; the stated bytes and steps of each "
    "seed against its log",
    example="#86: 1.1502 stated, 1.1666 in the log",
    not_covered="what only one of the two states",
)


def claim_and_logs(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the stated score, and each seed's stated bytes and steps, with the logs."""
    claim = record.claim()
    if claim is None or not record.runs:
        reason = "no log of a run" if claim else "no submission*.json that can be read"
        yield unknown(JSON_AND_LOGS, reason, "a submission.json and the logs of its runs")
        return
    for one in claim.results:
        run = next((run for run, _ in record.chosen() if one.seed in (run.seed, run.named_seed)), None)
        mismatch = _differs(one, run) if run else None
        if run and mismatch:
            name, stated, logged = mismatch
            yield question(
                JSON_AND_LOGS,
                f"seed {one.seed}: {claim.file} states {stated.value:,.0f} {name}, {logged.file} prints "
                f"{logged.value:,.0f}",
                quote(texts, stated, logged),
                "which of the two the submission stands on",
            )
    if claim.bpb and record.confirmed:
        yield passed(
            JSON_AND_LOGS, f"the logs say {claim.bpb.value} as {claim.file} does", quote(texts, claim.bpb)
        )
    elif claim.bpb:
        yield _unconfirmed(record, claim.bpb, texts)


def _unconfirmed(record: Record, stated: Number, texts: Texts) -> Finding:
    lines = [
        (run, score) for run in record.runs for score in run.scores if RANK[score.kind] > RANK["training"]
    ]
    if not lines:
        return unknown(JSON_AND_LOGS, "the logs print no final score", "the end of the logs")
    run, score = min(lines, key=lambda line: abs(line[1].bpb.value - stated.value))
    kind = " of the unquantised model" if score.kind == "pre-quantization" else ""
    return question(
        JSON_AND_LOGS,
        f"{stated.file} states {stated.value}, and no log and no mean of seeds does; the nearest "
        f"line{kind}, `{score.label}` of {run_name(run)}, has {score.bpb.value}",
        quote(texts, stated, score.bpb),
        "the logs of the runs that make the headline",
    )


def _differs(one: Stated, run: Run) -> tuple[str, Number, Number] | None:
    model = run.model_bytes.value if run.model_bytes else None
    for name, stated, logged in (
        ("bytes", one.counted_bytes, run.counted_bytes),
        ("steps", one.steps, run.steps),
    ):
        if stated and logged and abs(stated.value - logged.value) > 1 and stated.value != model:
            return name, stated, logged
    return None


README_AND_LOGS = RuleInfo(
    id="readme-and-logs",
    title="README and logs differ",
    condition=None,
    source="README R7, #1732",
    checks="rows of README tables that begin with a headline seed, against all scores of that seed",
    example="#1732: 1.0784 in the README, 1.0783 in log and JSON",
    not_covered="the prose of the README",
)


def readme(record: Record, texts: Texts) -> Iterator[Finding]:
    """Compare the headline seeds' rows in README tables with all scores that logs and JSON give those seeds.

    A seed with one matching row raises no question: other tables may be of an ablation or of the baseline.
    """
    known = _known(record)
    headline_seeds = {run.seed for run, _ in record.chosen()}
    rows = [
        (seed, file, line, scores)
        for seed, file, line, numbers in record.readme_seeds
        if seed in headline_seeds and known.get(seed) and "readme" in file.lower()
        for scores in [_scores(numbers)]
        if scores
    ]
    matching = {
        seed
        for seed, _, _, scores in rows
        if any(_is_rounded(value, bpb) for value in scores for bpb in known[seed])
    }
    mismatch = next((row for row in rows if row[0] not in matching), None)
    if mismatch:
        seed, file, line, scores = mismatch
        nearest = min(known[seed], key=lambda bpb: min(abs(bpb.value - value) for value in scores))
        row = Evidence(file, line, texts[file].split("\n")[line - 1].strip()[:MAX_TEXT])
        yield question(
            README_AND_LOGS,
            f"{file} gives seed {seed} {', '.join(map(str, scores[:4]))}, and no log and no JSON "
            f"has any of them; the nearest is {nearest.value}",
            (row, *quote(texts, nearest)),
            "the table brought up to date",
        )
    elif rows:
        yield passed(
            README_AND_LOGS, f"README tables give {len(matching)} seeds scores that logs or JSON have"
        )
    else:
        yield unknown(
            README_AND_LOGS, "no README table gives scores of the headline's seeds", "a table by seed"
        )


def _known(record: Record) -> dict[int, list[Number]]:
    claim = record.claim()
    known: dict[int, list[Number]] = {}
    for run in record.runs:
        for seed in {run.seed, int(run.logged_seed.value) if run.logged_seed else run.seed}:
            if seed is not None:
                known.setdefault(seed, []).extend(score.bpb for score in run.scores)
    for one in claim.results if claim else ():
        if one.seed is not None and one.bpb:
            known.setdefault(one.seed, []).append(one.bpb)
    return known


def _scores(numbers: tuple[float, ...]) -> list[float]:
    return [value for value in numbers if LEAST_BPB < value < MOST_BPB and value != round(value, 2)]


def _is_rounded(value: float, bpb: Number) -> bool:
    """Whether a README's number is the score, rounded or truncated."""
    return abs(value - bpb.value) <= 2 * half_unit(repr(value)) + bpb.half + 1e-9


RULES = (JSON_AND_LOGS, README_AND_LOGS)
CHECKS = (claim_and_logs, readme)

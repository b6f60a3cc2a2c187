"""README, submission.json and logs tell the same numbers.

#86's log is of another configuration; #1732's README gives other scores of its seeds than its JSON and logs.
A difference is a question: logs are mixed up more often than numbers are. Not covered: prose."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.finding import Evidence, Finding
from harness.audit.numbers.ask import MAX_TEXT, Texts, asked, passed, places, shown, unknown
from harness.audit.record.facts import RANK, Number, Record, Run, Stated, half_unit

LEAST_BPB, MOST_BPB = 0.2, 3.0
"""Numbers of a README row that may be scores."""


def claim_and_logs(record: Record, texts: Texts) -> Iterator[Finding]:
    """The stated score, and the stated bytes and steps of each seed, against the logs."""
    claim = record.claim()
    if claim is None or not record.runs:
        why = "no log of a run" if claim else "no submission*.json that can be read"
        yield unknown("json-and-logs", why, "a submission.json and the logs of its runs")
        return
    for one in claim.results:
        run = next((run for run, _ in record.chosen() if one.seed in (run.seed, run.named_seed)), None)
        wrong = _differs(one, run) if run else None
        if run and wrong:
            name, stated, logged = wrong
            yield asked(
                "json-and-logs",
                f"seed {one.seed}: {claim.file} states {stated.value:,.0f} {name}, {logged.file} prints "
                f"{logged.value:,.0f}",
                places(texts, stated, logged),
                "which of the two the submission stands on",
            )
    if claim.bpb and record.confirmed:
        yield passed(
            "json-and-logs", f"the logs say {claim.bpb.value} as {claim.file} does", places(texts, claim.bpb)
        )
    elif claim.bpb:
        yield _unconfirmed(record, claim.bpb, texts)


def _unconfirmed(record: Record, stated: Number, texts: Texts) -> Finding:
    lines = [
        (run, score) for run in record.runs for score in run.scores if RANK[score.kind] > RANK["training"]
    ]
    if not lines:
        return unknown("json-and-logs", "the logs print no final score", "the end of the logs")
    run, score = min(lines, key=lambda line: abs(line[1].bpb.value - stated.value))
    kind = " of the unquantised model" if score.kind == "pre-quantization" else ""
    return asked(
        "json-and-logs",
        f"{stated.file} states {stated.value}, and no log and no mean of seeds does; the nearest "
        f"line{kind}, `{score.label}` of {shown(run)}, has {score.bpb.value}",
        places(texts, stated, score.bpb),
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


def readme(record: Record, texts: Texts) -> Iterator[Finding]:
    """Rows of headline seeds in README tables against all scores that logs and JSON give those seeds.

    A seed that one row gets right is not asked about: other tables may be of an ablation or of the baseline.
    """
    known = _known(record)
    heads = {run.seed for run, _ in record.chosen()}
    rows = [
        (seed, file, line, scores)
        for seed, file, line, numbers in record.readme_seeds
        if seed in heads and known.get(seed) and "readme" in file.lower()
        for scores in [_scores(numbers)]
        if scores
    ]
    right = {
        seed
        for seed, _, _, scores in rows
        if any(_said(value, bpb) for value in scores for bpb in known[seed])
    }
    wrong = next((row for row in rows if row[0] not in right), None)
    if wrong:
        seed, file, line, scores = wrong
        nearest = min(known[seed], key=lambda bpb: min(abs(bpb.value - value) for value in scores))
        row = Evidence(file, line, texts[file].split("\n")[line - 1].strip()[:MAX_TEXT])
        yield asked(
            "readme-and-logs",
            f"{file} gives seed {seed} {', '.join(map(str, scores[:4]))}, and no log and no JSON "
            f"has any of them; the nearest is {nearest.value}",
            (row, *places(texts, nearest)),
            "the table brought up to date",
        )
    elif rows:
        yield passed(
            "readme-and-logs", f"README tables give {len(right)} seeds scores that logs or JSON have"
        )
    else:
        yield unknown(
            "readme-and-logs", "no README table gives scores of the headline's seeds", "a table by seed"
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


def _said(value: float, bpb: Number) -> bool:
    """Whether a README's number is the score, rounded or cut."""
    return abs(value - bpb.value) <= 2 * half_unit(repr(value)) + bpb.half + 1e-9

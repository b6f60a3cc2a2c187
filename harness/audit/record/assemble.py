"""Make one record from the texts of a folder. Nothing that a file holds raises an error."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

from harness.audit.record import headline, logs, readme
from harness.audit.record.claims import claim
from harness.audit.record.facts import Claim, Record, Run

NO_LOG = ("requirements", "license", "constraints", "vocab")
MAX_LOGS = 120
FROM_TRAINING = (
    "model_bytes",
    "code_bytes",
    "counted_bytes",
    "train_seconds",
    "steps",
    "world_size",
    "gpu",
    "torch",
    "parameters",
)


def read(folder: str, texts: Mapping[str, str]) -> Record:
    """The record of a folder whose text files are `texts`, by path."""
    claims = [
        claim(file, text)
        for file, text in sorted(texts.items(), key=lambda item: (item[0].count("/"), item[0]))
        if _name(file).startswith("submission") and file.endswith(".json")
    ]
    runs, copies = _runs(texts)
    record = Record(folder=folder, claims=tuple(claims), runs=tuple(runs), copies=tuple(copies))
    stated = record.claim()
    choice = headline.choose(runs, stated)
    readmes = sorted(
        (file for file in texts if file.lower().endswith(".md")), key=lambda file: (file.count("/"), file)
    )
    readme_bpb = next(
        (
            found
            for file in readmes
            if "readme" in file.lower()
            for found in [readme.stated(file, texts[file])]
            if found
        ),
        None,
    )
    rows = tuple(row for file in readmes for row in readme.rows(file, texts[file]))
    title = next((readme.title(texts[file]) for file in readmes if "readme" in file.lower()), None)
    bpb, kind = _headline(runs, choice, stated, readme_bpb.value if readme_bpb else None)
    return record.model_copy(
        update={
            "headline": choice.chosen,
            "headline_bpb": bpb,
            "headline_kind": kind,
            "confirmed": choice.confirmed,
            "title": title,
            "readme_bpb": readme_bpb,
            "readme_seeds": rows,
        }
    )


def _headline(
    runs: list[Run], choice: headline.Choice, stated: Claim | None, readme_bpb: float | None
) -> tuple[float | None, str | None]:
    """The headline score and its kind: the mean of the logs if it confirms the claim or nothing is claimed,
    else the claim, else the README's number.
    """
    claimed = stated.bpb if stated else None
    if choice.chosen and (choice.confirmed or claimed is None):
        kinds = [runs[one.run].scores[one.score].kind for one in choice.chosen]
        return headline.mean(runs, choice.chosen)[0], max(kinds, key=kinds.count)
    if claimed:
        return claimed.value, "claimed"
    return (readme_bpb, "README") if readme_bpb else (None, None)


def _runs(texts: Mapping[str, str]) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs of a folder, and its copied logs.

    Of logs that are equal byte for byte one counts, the one whose name has a seed.
    """
    found: dict[str, Run] = {}
    copies = []
    files = [file for file in sorted(texts, key=lambda file: (file.count("/"), file)) if _is_log(file)][
        :MAX_LOGS
    ]
    for file in files:
        text = texts[file]
        key = hashlib.sha256(text.encode()).hexdigest()
        run = logs.run(file, text) if key not in found else None
        if run:
            found[key] = run
        elif key in found:
            kept = found[key]
            if kept.seed is None and (again := logs.run(file, text)) and again.seed is not None:
                found[key], file = again, kept.file
            copies.append((file, found[key].file))
    return _completed(_labelled(list(found.values()))), copies


def _completed(runs: list[Run]) -> list[Run]:
    """The runs, where logs of an evaluation alone get the sizes, train time and steps of their seed's train
    log.
    """
    trained = {run.seed: run for run in runs if run.train_curve and run.seed is not None}
    completed = []
    for run in runs:
        source = None if run.train_curve or run.seed is None else trained.get(run.seed)
        missing = (
            {name: getattr(source, name) for name in FROM_TRAINING if getattr(run, name) is None}
            if source
            else {}
        )
        completed.append(run.model_copy(update=missing))
    return completed


def _labelled(runs: list[Run]) -> list[Run]:
    """The runs, where those that print the same seed get the seeds in their names (a merged folder has three
    logs that print 1337).
    """
    printed = Counter(run.seed for run in runs)
    return [
        run.model_copy(update={"seed": run.named_seed})
        if printed[run.seed] > 1 and run.named_seed is not None
        else run
        for run in runs
    ]


def _is_log(file: str) -> bool:
    name = _name(file).lower()
    return name.endswith((".log", ".txt", ".out")) and not name.startswith(NO_LOG)


def _name(file: str) -> str:
    return file.rsplit("/", 1)[-1]

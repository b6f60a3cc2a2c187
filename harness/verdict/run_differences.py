"""What differs between two runs besides their recipes, so that a comparison is not misread.

Two recipes are meant to differ. Where the program, the clocks, the runner, the image, the dataset or the
edition differ as well, a difference in score need not come from the recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from harness.base import host
from harness.run import stored_plan
from harness.run.folder import RunFolder
from harness.verdict.assess import assess, busy_seeds
from harness.verdict.headline import headline

SHOWN = 40
"""Characters of a fact that a comparison repeats; the whole facts are compared."""


def run_differences(first: Path, second: Path) -> dict[str, Any]:
    """`differs`: a row for each difference; `verdicts`: the headline of each run, null without a plan.json;
    `busy`: the seeds of each run beside which other processes took much of the machine.

    Both paths are folders of runs or of seeds. Where one has no plan (`pgolf score`), nothing is compared.
    """
    sides = {"first": _run_folder(first), "second": _run_folder(second)}
    known = {which: _Run.read(folder) for which, folder in sides.items() if folder is not None}
    verdicts = {which: known[which].headline if which in known else None for which in sides}
    busy = {which: known[which].busy if which in known else [] for which in sides}
    if len(known) < 2:
        return {"differs": [], "verdicts": verdicts, "busy": busy}
    ours, theirs = known["first"].facts, known["second"].facts
    differs = [
        {"what": what, "first": ours[what][:SHOWN], "second": theirs[what][:SHOWN]}
        for what in ours
        if ours[what] != theirs[what]
    ]
    return {"differs": differs, "verdicts": verdicts, "busy": busy}


class _Run(NamedTuple):
    """One side of the comparison: its headline, what it should share with the other by name, busy seeds."""

    headline: str
    facts: dict[str, str]
    busy: list[str]

    @classmethod
    def read(cls, folder: RunFolder) -> _Run:
        verdict, plan = assess(folder), stored_plan.read(folder)
        identity, machine = plan.identity, verdict["host"]
        facts = {
            "edition": identity.edition,
            "profile": identity.profile,
            "train clock": f"{identity.limits.train_seconds:g} s",
            "score clock": f"{identity.limits.score_seconds:g} s",
            "dataset": f"{plan.dataset.name}, {identity.dataset}",
            "runner": identity.runner,
            "image lock": identity.image_lock or "none",
            "image lacks": ", ".join(plan.image_lacks) or "nothing",
            "code of golf": identity.code,
            "machine": f"{host.processor(machine)}, {host.gpu_names(machine)}",
        }
        return cls(headline(verdict), facts, busy_seeds(verdict["seeds"]))


def _run_folder(path: Path) -> RunFolder | None:
    """The run folder that is or holds `path`; None where there is none."""
    return next(
        (RunFolder(folder) for folder in (path, path.parent) if (folder / "plan.json").is_file()), None
    )

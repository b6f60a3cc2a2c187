"""What differs between two runs besides their recipes, so that a comparison is not misread.

Two recipes are meant to differ. Where the program, the clocks, the runner, the image, the dataset or the
edition differ as well, a difference in score need not come from the recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.run import stored_plan
from harness.run.folder import RunFolder
from harness.run.stored_plan import StoredPlan
from harness.verdict.assess import assess
from harness.verdict.headline import headline


def run_differences(first: Path, second: Path) -> dict[str, Any]:
    """`differs`: a row for each difference; `verdicts`: the headline of each run, null without a plan.json.

    Both paths are folders of runs or of seeds. Where one has no plan (`pgolf score`), nothing is compared.
    """
    folders = _run_folder(first), _run_folder(second)
    verdicts = {
        which: None if folder is None else headline(assess(folder))
        for which, folder in zip(("first", "second"), folders, strict=True)
    }
    if folders[0] is None or folders[1] is None:
        return {"differs": [], "verdicts": verdicts}
    ours, theirs = (_facts(stored_plan.read(folder)) for folder in folders if folder is not None)
    differs = [
        {"what": what, "first": ours[what], "second": theirs[what]}
        for what in ours
        if ours[what] != theirs[what]
    ]
    return {"differs": differs, "verdicts": verdicts}


def _run_folder(path: Path) -> RunFolder | None:
    """The run folder that is or holds `path`; None where there is none."""
    return next(
        (RunFolder(folder) for folder in (path, path.parent) if (folder / "plan.json").is_file()), None
    )


def _facts(plan: StoredPlan) -> dict[str, Any]:
    """What two comparable runs share, by name."""
    identity = plan.identity
    limits = identity.limits
    return {
        "edition": identity.edition,
        "profile": identity.profile,
        "train clock, seconds": limits.train_seconds,
        "score clock, seconds": limits.score_seconds,
        "dataset": f"{plan.dataset.name} ({identity.dataset[:12]})",
        "runner": identity.runner,
        "image lock": (identity.image_lock or "none")[:19],
        "code of golf": identity.code[:12],
    }

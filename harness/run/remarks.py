"""Notes about a submission that break no rule: files that nothing reads, and fields copied from a neighbour.

A copied claim is the costly one: an honest copy that scores worse than the claim it inherited is INVALID.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.base.text import quote
from harness.run import submission as submissions
from harness.run.submission import Manifest, Submission

MAX_NAMES = 5
"""Names of files or submissions in one remark."""
MAX_NEIGHBOURS = 100
ADVICE = {
    "claim": "state your own score, or leave it out",
    "source": "state where this idea comes from",
    "authors": "right if the same people made both",
    "baseline": "right if both build on the same work",
}
"""What to do about a field of the manifest that equals a neighbour's."""


def remarks(submission: Submission) -> list[str]:
    """What the submitter of `submission` may want to know, a sentence each, safe to print."""
    return [*_ignored_files(submission), *_copied_fields(submission)]


def _ignored_files(submission: Submission) -> list[str]:
    recipe = submission.manifest.config
    read = {"manifest.yaml", "README.md", recipe.split("/")[0]}
    ignored = sorted(path.name for path in submission.folder.iterdir() if path.name not in read)
    if not ignored:
        return []
    verb = "is" if len(ignored) == 1 else "are"
    return [
        f"{_names(ignored)} {verb} ignored: a submission is manifest.yaml, {recipe} and README.md; code goes "
        "into golf/"
    ]


def _copied_fields(submission: Submission) -> list[str]:
    neighbours = dict(_neighbours(submission.folder.resolve()))
    found = []
    for field, advice in ADVICE.items():
        own = getattr(submission.manifest, field)
        same = [name for name, manifest in neighbours.items() if getattr(manifest, field) == own]
        if own is not None and same:
            equal = "equal those of" if field == "authors" else "equals that of"
            found.append(f"{field} {equal} {_names(same)}: {advice}")
    return found


def _neighbours(folder: Path) -> Iterator[tuple[str, Manifest]]:
    """The readable manifests of the other submissions, by their paths: of the project's own, and of those in
    the parent folder.
    """
    shipped, beside = ROOT / "submissions", folder.parent
    parents = [shipped] if beside == shipped else [shipped, beside]
    others = [path.parent for parent in parents for path in sorted(parent.glob("*/manifest.yaml"))]
    for other in [path for path in others if path != folder][:MAX_NEIGHBOURS]:
        try:
            yield f"{other.parent.name}/{other.name}", submissions.read_manifest(other)
        except UsageError:
            continue


def _names(names: list[str]) -> str:
    """Names for a sentence: `a`, `a and b`, `a, b and 7 more`."""
    shown = [quote(name) for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        shown.append(f"{len(names) - MAX_NAMES} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)

"""The ablation's arithmetic on results written by hand, and its three reports, with hostile text."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from harness.run.ablation import report
from harness.run.ablation.dots import dots
from harness.run.ablation.loop import Pair, remaining
from harness.run.ablation.pairs import PairResult
from harness.run.ablation.study import BASE, Arm
from harness.run.ablation.table import differences, interval, rows, values
from tests.harness.fakes.pages import HOSTILE, Page
from tests.harness.fakes.verdicts import HOST

WIDE, GRID = Arm("without wide", b"", b"", "train"), Arm("without grid", b"", None, "pack")
ARMS = [Arm(BASE, b"", b"", "train"), WIDE, GRID]
SEEDS = (1, 2, 3)


def result(arm: Arm, seed: int, bpb: float | None = 2.0, **changes: Any) -> PairResult:
    whole = {
        "variant": arm.name,
        "seed": seed,
        "steps": 100,
        "changes": arm.changes,
        "bpb": bpb,
        "unquantised_bpb": 1.9,
        "artifact_bytes": 1000,
        "counted_bytes": 1500,
        "parameters": 2000,
        "scored_tokens": 10,
        "train_seconds": 50.0 if arm.changes == "train" else None,
    }
    return PairResult.model_validate(whole | changes)


def by_pair(*results: PairResult) -> dict[tuple[str, int], PairResult]:
    return {(each.variant, each.seed): each for each in results}


def failed(arm: Arm, seed: int, message: str = "token 0: expected a finite number") -> PairResult:
    return result(arm, seed, None, outcome="failed", stage="score", message=message)


# --- arithmetic


def test_the_columns_of_one_result() -> None:
    found = values(result(ARMS[0], 1))
    assert found == {
        "before": 1.9,
        "after": 2.0,
        "gap": pytest.approx(0.1),
        "bytes": 1000,
        "ratio": 4.0,
        "step_seconds": 0.5,
    }
    reused = values(result(GRID, 1, unquantised_bpb=None))
    assert (reused["gap"], reused["step_seconds"]) == (None, None)
    assert set(values(PairResult(variant="x", seed=1, steps=1, changes="train")).values()) == {None}


def test_differences_are_paired_by_seed() -> None:
    base = {seed: result(ARMS[0], seed, 2.0 + seed) for seed in SEEDS}
    wide = {seed: result(WIDE, seed, 2.0 + seed + 0.1 * seed) for seed in (3, 1)}
    assert sorted(differences(wide, base, "after")) == pytest.approx([0.1, 0.3])
    assert differences(wide, {2: base[2]}, "after") == []
    assert differences({1: failed(WIDE, 1)}, base, "after") == []


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found is not None
    assert (found["mean"], found["n"]) == (2.0, 3)
    assert found["ci95"] == pytest.approx([2.0 - 4.302653 / 3**0.5, 2.0 + 4.302653 / 3**0.5], abs=1e-6)
    assert interval([1.0]) == {"mean": 1.0, "ci95": None, "n": 1}
    assert interval([]) is None


def test_every_arm_has_a_row_with_its_failed_unfinished_and_too_large_seeds() -> None:
    known = by_pair(
        *(result(ARMS[0], seed) for seed in SEEDS), result(WIDE, 1, counted_bytes=2001), failed(WIDE, 2)
    )
    base, wide, grid = rows(ARMS, SEEDS, known, cap=2000)
    assert (base["differences"], base["changes"], base["scored"]) == (None, None, [1, 2, 3])
    assert (wide["scored"], wide["unfinished"], wide["over_cap"]) == ([1], [3], [1])
    assert wide["failed"] == [{"seed": 2, "stage": "score", "message": "token 0: expected a finite number"}]
    assert wide["values"]["bytes"]["n"] == 2, "the failed one was packed"
    assert (grid["unfinished"], set(grid["values"].values())) == ([1, 2, 3], {None})


def test_the_time_left_is_estimated_from_pairs_that_change_the_same_stage() -> None:
    done = [result(ARMS[0], 1, wall_seconds=60.0), result(ARMS[0], 2, wall_seconds=80.0)]
    assert remaining([], [Pair(WIDE, 1)]) == ""
    assert remaining(done, [Pair(WIDE, 1), Pair(WIDE, 2)]) == ", 2 min left"
    assert (
        remaining([*done, result(GRID, 1, wall_seconds=5.0)], [Pair(GRID, 2), Pair(GRID, 3)]) == ", 10 s left"
    )


# --- report


def ablation(
    name: str = "without wide", message: str = "token 0: expected a finite number"
) -> dict[str, Any]:
    wide = Arm(name, b"", b"", "train")
    arms = [ARMS[0], wide, GRID]
    known = by_pair(
        *(result(ARMS[0], seed, 2.0 + seed / 100) for seed in SEEDS),
        *(result(wide, seed, 2.1 + seed / 90) for seed in (1, 2)),
        failed(wide, 3, message),
    )
    return {
        "schema": 1,
        "submission": "my-idea",
        "profile": "pocket",
        "command": f"pgolf ablate {name}",
        "runner": "local",
        "isolation": "none",
        "image": None,
        "host": HOST,
        "dataset": {"name": "pocket", "sha256": "ab" * 32},
        "code_sha256": "cd" * 32,
        "config_sha256": "ef" * 32,
        "steps": 100,
        "steps_from": "as asked",
        "seeds": list(SEEDS),
        "val_tokens": None,
        "scored_tokens": None,
        "clocks": 10,
        "cap": 16_000_000,
        "ratio_is": "a ratio",
        "step_is": "seconds",
        "load": None,
        "others_cpu_share": None,
        "stopped": None,
        "rows": rows(arms, SEEDS, known, 16_000_000),
    }


def shown(table: dict[str, Any], width: int = 300) -> str:
    stream = io.StringIO()
    report.show(table, Console(file=stream, width=width))
    return stream.getvalue()


def test_every_report_holds_every_row_every_failure_and_the_definition_of_the_ratio() -> None:
    table = ablation()
    for text in (report.markdown(table), Page(report.page(table)).words, shown(table)):
        for part in (
            "base",
            "without wide",
            "without grid",
            "2/3",
            "0/3",
            "expected a finite number",
            "a ratio",
            "seeds 1, 2, 3 are unfinished",
            "100 steps each (as asked)",
        ):
            assert part in text, part
        assert "None" not in text


def test_on_a_narrow_screen_tables_of_the_page_fold_or_scroll_in_their_own_box() -> None:
    page = Page(report.page(ablation()))
    assert page.tags.count("table") > 1
    assert page.wide == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_of_the_table_is_cut_in_a_narrow_terminal(width: int) -> None:
    text = shown(ablation(), width)
    assert max(map(len, text.splitlines())) <= width
    words = {word for row in ablation()["rows"] for cell in report.cells(row, 3) for word in cell.split()}
    assert words <= set(text.split())


@pytest.mark.parametrize("poison", HOSTILE)
def test_names_and_messages_of_a_contestant_are_escaped(poison: str) -> None:
    clean, dirty = ablation(), ablation(poison, poison)
    pages = Page(report.page(clean)), Page(report.page(dirty))
    assert pages[0].tags == pages[1].tags
    assert [name for name, _ in pages[0].attributes] == [name for name, _ in pages[1].attributes]
    lines = [
        [re.sub(r"(?<!^)[^|\n].*", "", line) for line in report.markdown(each).splitlines()]
        for each in (clean, dirty)
    ]
    assert lines[0] == lines[1], "as many lines, of the same kinds"
    assert all(letter.isprintable() or letter == "\n" for letter in shown(dirty) + report.markdown(dirty))


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(report.page(ablation()))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert not {"src", "href", "style"} & {name for name, _ in page.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_dots_share_one_scale_that_includes_0_and_a_row_without_a_number_has_no_dot() -> None:
    plot = dots(ablation()["rows"], "after", "{:+.4f}")
    assert plot is not None
    wide, grid = plot["points"]
    assert 0 < plot["zero"] < 1
    assert wide["span"][0] < wide["x"] < wide["span"][1] <= 1
    assert wide["x"] > plot["zero"], "worse than the base"
    assert (grid["x"], grid["span"], grid["label"]) == (None, None, None)
    assert dots(ablation()["rows"][:1], "after", "{}") is None, "the base differs from nothing"

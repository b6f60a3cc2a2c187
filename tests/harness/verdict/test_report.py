"""The three reports: hostile text is escaped, nothing is loaded, and unknown values are shown as a dash."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.base.text import plain
from harness.run.folder import RunFolder
from harness.run.records import SeedRecord
from harness.verdict import report
from harness.verdict.headline import decision, result
from tests.harness.fakes.pages import HOSTILE, Page
from tests.harness.fakes.verdicts import (
    HOST,
    LIMITS,
    assembled,
    broken,
    certified,
    evidence,
    manifest,
    record,
)

NOT_TEXT = {"verdict", "outcome"}
"""Keys whose values choose a style; they come from the judge, never from a contestant."""


def poisoned(value: Any, poison: str, key: str = "") -> Any:
    """The same verdict with every text replaced, and every key of the mappings with free keys."""
    if isinstance(value, dict):
        free = key in ("compressors", "claims")
        return {poison if free else name: poisoned(each, poison, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, poison, key) for each in value]
    return poison if isinstance(value, str) and key not in NOT_TEXT else value


def full_verdict(*seeds: SeedRecord, **changes: Any) -> dict[str, Any]:
    baseline = {
        "name": "before",
        "source": "#1",
        "dataset": "pocket",
        "profile": "pocket",
        "bpb": {1: 2.2, 2: 2.21},
    }
    return assembled(evidence(*seeds, manifest=manifest(baseline=baseline), **changes))


def on_terminal(verdict: dict[str, Any], width: int = 200, details: bool = True) -> str:
    stream = io.StringIO()
    report.show(verdict, Console(file=stream, force_terminal=True, width=width, color_system=None), details)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


# --- hostile text


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_text_adds_no_tag_and_no_attribute_to_the_page(folder: RunFolder, poison: str) -> None:
    verdict = full_verdict(record(1337), record(42, bpb=2.2), broken(2024, "train", "failed", "protocol"))
    clean, dirty = Page(report.page(verdict, folder)), Page(report.page(poisoned(verdict, poison), folder))
    assert dirty.tags == clean.tags
    assert [name for name, _ in dirty.attributes] == [name for name, _ in clean.attributes]
    assert dirty.words.count("\x1b") == dirty.words.count("\u202e") == dirty.words.count("\x9b") == 0


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_text_does_not_change_the_structure_of_the_markdown(poison: str) -> None:
    verdict = full_verdict(record(1337), record(42, bpb=2.2), broken(2024, "train", "failed", "protocol"))
    clean, dirty = report.markdown(verdict), report.markdown(poisoned(verdict, poison))
    shape = r"^(#+ |- |\||$)"
    assert [re.match(shape, line) and re.match(shape, line)[0] for line in dirty.splitlines()] == [  # type: ignore[index]
        re.match(shape, line) and re.match(shape, line)[0] for line in clean.splitlines()
    ]  # type: ignore[index]
    assert [_cells(line) for line in dirty.splitlines()] == [_cells(line) for line in clean.splitlines()]
    outside = re.sub(r"`[^`]*`", "", re.sub(r"\\[\\`*_\[\]<>|&~$]", "", dirty))
    assert not re.search(r"[`*_\[\]<>&~$]", outside), "markup without a backslash"
    assert all(letter.isprintable() or letter == "\n" for letter in dirty)


def _cells(line: str) -> int:
    """Columns of a table's row; 0 for any other line."""
    return line.startswith("|") and len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line)))


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_text_reaches_a_terminal_as_printable_characters_only(poison: str) -> None:
    verdict = full_verdict(record(1337), record(42, bpb=2.2), broken(2024, "train", "failed", "protocol"))
    shown = on_terminal(poisoned(verdict, poison))
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    visible = plain(poison.split("\n", maxsplit=1)[0])
    assert visible in shown, "it is shown, not interpreted"


def test_hostile_text_cannot_colour_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=300)
    report.show(poisoned(full_verdict(), "\x1b[31m[red]x[/red]"), console)
    assert "\x1b[31m[red]" not in stream.getvalue()
    assert "\\x1b[31m[red]x[/red]" in stream.getvalue()


# --- nothing is loaded


def test_the_page_loads_and_runs_nothing_and_its_policy_forbids_it(folder: RunFolder) -> None:
    page = Page(report.page(full_verdict(), folder))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "video"} & set(
        page.tags
    )
    assert not {"src", "href", "srcset", "action", "data", "poster", "style"} & {
        name for name, _ in page.attributes
    }
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert not re.search(r"url\(|@import|https?://|//[a-z]", report.page(full_verdict(), folder))


# --- narrow screens


def test_on_a_narrow_screen_tables_fold_or_scroll_in_their_own_box(folder: RunFolder) -> None:
    text = report.page(full_verdict(certified(1337), certified(42)), folder)
    page = Page(text)
    assert (page.tags.count("table"), page.tags.count("td") > 60, page.wide) == (3, True, [])
    assert ("name", "viewport") in page.attributes
    assert page.attributes.count(("class", "numbers fold")) == 2
    assert ".scroll { overflow-x: auto; }" in text
    narrow = text.split("@media (max-width: 44rem) {")[1].split("</style>")[0]
    assert "content: attr(data-heading)" in narrow


# --- unknown values


def emptied(verdict: dict[str, Any]) -> dict[str, Any]:
    """The same verdict with null wherever it may be null."""
    rows = [
        {
            key: value if key in ("seed", "outcome", "run_dir") else {} if key == "claims" else None
            for key, value in row.items()
        }
        for row in verdict["seeds"]
    ]
    nothing = dict.fromkeys(("image", "image_lock", "mean_bpb", "sd_bpb", "ci95_bpb", "baseline"))
    return verdict | nothing | {"seeds": rows, "compressors": {}, "host": dict(verdict["host"], cpu=None)}


@pytest.mark.parametrize(
    "verdict",
    [
        emptied(full_verdict()),
        full_verdict(SeedRecord(seed=1)),
        full_verdict(record(1)),
        full_verdict(broken(1, "score", "machine"), broken(2, "train", "interrupted")),
    ],
)
def test_null_is_shown_as_a_dash_and_never_as_none_or_nan(folder: RunFolder, verdict: dict[str, Any]) -> None:
    for text in (report.markdown(verdict), Page(report.page(verdict, folder)).words, on_terminal(verdict)):
        assert "None" not in text
        assert "nan" not in text.split()
        assert ("–" in text) or verdict["mean_bpb"] is not None


def test_the_host_is_told_in_words(folder: RunFolder) -> None:
    verdict = full_verdict(SeedRecord(seed=1))
    one = {"cpu": None, "cores": 1, "load": [1.5], "gpus": [{"name": "H100"}]}
    for host, words in (
        (HOST, "A CPU, 2 cores, no GPU, load 0.1 0.2 0.3"),
        (one, "unknown processor, 1 core, H100, load 1.5"),
        (one | {"cores": None, "gpus": []}, "unknown processor, unknown number of cores, no GPU, load 1.5"),
    ):
        for text in (
            report.markdown(verdict | {"host": host}),
            Page(report.page(verdict | {"host": host}, folder)).words,
        ):
            assert words in text
    assert "claims" not in report.markdown(verdict), "nothing was trained, so nothing was claimed"


def test_a_verdict_survives_being_written_read_and_rendered_again(folder: RunFolder) -> None:
    verdict = full_verdict()
    report.render(verdict, folder).write(folder)
    first = (folder.report.read_bytes(), folder.page.read_bytes())
    again = json.loads(folder.verdict.read_bytes())
    assert again == json.loads(json.dumps(verdict))
    report.render(again, folder).write(folder)
    assert (folder.report.read_bytes(), folder.page.read_bytes()) == first


# --- content


@pytest.mark.parametrize(
    "seeds", [(), (broken(1, "train", "failed", "protocol"),), (broken(1, "train", "machine"),)]
)
def test_every_report_begins_with_the_headline(folder: RunFolder, seeds: tuple[SeedRecord, ...]) -> None:
    verdict = full_verdict(*seeds)
    first, second = result(verdict), decision(verdict)
    assert on_terminal(verdict).startswith(f"{first}\n{second}\n")
    assert report.markdown(verdict).startswith(f"# {first}\n\n{second}.\n")
    body = report.page(verdict, folder).split("<body>")[1]
    expected = f'<h1>{first}</h1>\n<p class="decision {verdict["verdict"]}">{second}.</p>'
    assert body.strip().startswith(expected)


def test_the_headline_says_that_the_train_clock_was_shortened() -> None:
    assert "shortened" not in decision(full_verdict())
    short = decision(full_verdict(limits=LIMITS.with_train_clock(25)))
    assert "docker runner, train clock shortened to 25 s" in short


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("details", [False, True])
def test_no_digit_of_a_seed_is_lost_at_any_width(width: int, details: bool) -> None:
    verdict = full_verdict(certified(1337), record(4242424242, artifact_bytes=15_987_654), record(42))
    verdict["seeds"][1] |= {"outcome": "over_limit", "train_seconds": 599.87, "score_seconds": 598.76}
    shown = on_terminal(verdict, width, details)
    assert max(map(len, shown.splitlines())) <= width
    for row in report.seed_table(verdict):
        assert set(row) <= set(shown.split()), width
    assert ("─" in shown.split("\n\n")[1]) is (width >= 80), "a table from 80 columns on, else a list"
    if details:
        for row in report.certificate_table(verdict):
            assert set(row) <= set(shown.split()), width


def test_without_details_a_terminal_shows_only_the_findings_that_do_not_pass() -> None:
    verdict = full_verdict(certified(1337), broken(42, "train", "failed", "protocol", "no frame"))
    shown = on_terminal(verdict, details=False)
    passed = [found["rule"] for found in verdict["findings"] if found["outcome"] == "pass"]
    others = [found["rule"] for found in verdict["findings"] if found["outcome"] != "pass"]
    table = shown.split("evidence")[1]
    assert [line.split()[0] for line in table.splitlines() if line.split(" ")[0] in passed + others] == [
        found["rule"] for found in report.findings(verdict) if found["outcome"] != "pass"
    ], "those that fail come first"
    assert f"{len(passed)} other rules passed: --details shows the evidence" in shown
    assert "largest gain and noise" not in shown
    assert "--details" not in on_terminal(verdict)


def test_where_every_rule_passes_a_terminal_says_so_without_a_table() -> None:
    verdict = full_verdict()
    verdict["findings"] = [found | {"outcome": "pass"} for found in verdict["findings"]]
    shown = on_terminal(verdict, details=False)
    assert f"{len(verdict['findings'])} rules passed: --details shows the evidence" in shown
    assert "evidence\n─" not in shown


def test_findings_that_fail_or_are_unknown_are_on_top_of_the_reports(folder: RunFolder) -> None:
    verdict = full_verdict(broken(1, "train", "failed", "protocol"))
    order = [found["rule"] for found in report.findings(verdict)]
    assert [found["outcome"] for found in report.findings(verdict)] == sorted(
        (found["outcome"] for found in verdict["findings"]), key=["fail", "unknown", "pass"].index
    )
    assert re.findall(r'"rule">([a-z-]+)</td>', report.page(verdict, folder)) == order
    assert re.findall(r"^\| ([a-z-]+) \|.*(?:fail|unknown|pass)", report.markdown(verdict), re.M) == order


def test_each_seed_has_one_sentence_on_its_certificate_and_later_ones_are_marked_as_not_deciding(
    folder: RunFolder,
) -> None:
    verdict = full_verdict(certified(1337), certified(42, silent=True), record(2024))
    own = verdict["seeds"][0]["certificate"]
    later = {"folder": "rescored-01", "n_probes": 4096, "G_bpb": 0.01, "shown": ["C2"], "failed": []}
    silent = {**later, "folder": "rescored-02", "n_probes": None, "G_bpb": None, "unasked": "it left"}
    verdict["seeds"][0]["later_certificates"] = [later, silent]
    assert report.notes(verdict) == [
        f"seed 1337: with 99 % confidence at most {own['G_bpb']:.4f} bits per byte are unearned "
        f"({own['n_probes']:,} probes)",
        "seed 1337: later, not deciding: rescored-01, at most 0.0100 bits per byte are unearned "
        "(4,096 probes); shown: C2; failed: nothing",
        "seed 1337: later, not deciding: rescored-02, no certificate: it left",
        "seed 42: no certificate: the witness could not be asked: it left",
    ]
    for text in (
        report.markdown(verdict),
        Page(report.page(verdict, folder)).words,
        on_terminal(verdict, details=False),
    ):
        assert all(note in text for note in report.notes(verdict))


def test_a_bound_that_rests_on_independent_rows_says_so() -> None:
    verdict = full_verdict(certified(1337))
    verdict["seeds"][0]["certificate"]["lanes"] = {"G_bpb": 0.02}
    assert report.notes(verdict)[0].endswith("probes), if each row depends on its own context alone")


def test_every_report_says_what_the_image_was_built_without(folder: RunFolder) -> None:
    whole = full_verdict()
    lacking = whole | {"image_lacks": ["flash-attn-3"]}
    for verdict, wanted in ((whole, False), (lacking, True)):
        for text in (report.markdown(verdict), Page(report.page(verdict, folder)).words):
            assert ("built without flash-attn-3" in text) == wanted


def test_every_report_holds_the_remarks(folder: RunFolder) -> None:
    remark = "worse than bz2 -9 on the same text (2.10 bits per byte)"
    verdict = full_verdict() | {"remarks": [remark]}
    for text in (report.markdown(verdict), Page(report.page(verdict, folder)).words, on_terminal(verdict)):
        assert f"remark: {remark}" in text


def test_every_report_holds_every_finding_every_seed_and_every_reason(folder: RunFolder) -> None:
    message = "token 7: expected a finite number\nhint: nats"
    verdict = full_verdict(record(1337), broken(42, "score", "failed", "protocol", message))
    for text in (report.markdown(verdict), Page(report.page(verdict, folder)).words, on_terminal(verdict)):
        for finding in verdict["findings"]:
            assert finding["rule"] in text
        for part in (
            "2.1000",
            "1337",
            "42",
            "token 7: expected a finite number",
            "hint: nats",
            "xz -9e",
            "2.557",
        ):
            assert part in text


def test_the_histogram_is_drawn_from_the_judges_own_numbers(folder: RunFolder) -> None:
    verdict = full_verdict(record(1337), record(42), record(2024))
    place = folder.seed(1337).documents
    place.parent.mkdir()
    np.savez(
        place, starts=np.arange(4), bits=np.array([10.0, 20.0, 0.0, 30.0]), bytes=np.array([10, 10, 0, 10])
    )
    folder.seed(2024).path.mkdir()
    np.savez(folder.seed(2024).documents, starts=np.arange(1), bits=np.array([10.0]), bytes=np.array([10]))
    page = Page(report.page(verdict, folder))
    assert "Seed 1337: 3 documents" in page.words, "an empty document has no bits per byte"
    assert "Seed 2024: 1 document," in page.words
    assert "Seed 42: " not in page.words.split("Findings")[0]
    assert ("1.00 bpb" in page.words, "3.00 bpb" in page.words) == (True, True)


def test_claimed_losses_are_drawn_as_claims_without_incomplete_or_absurd_lines(folder: RunFolder) -> None:
    events = folder.seed(1337).events
    events.parent.mkdir()
    claims = [
        "step 1 loss 6.5",
        "step 2 loss 5.5, later",
        "loss nan",
        "loss 1e999",
        "loss",
        "loss x",
        "no number",
    ]
    claimed = [
        {"stage": "train", "fraction": 0.1 * index, "claim": claim} for index, claim in enumerate(claims)
    ]
    others = [{"event": "begin", "stage": "train"}, {"stage": "pack", "fraction": 0.5, "claim": "loss 1"}]
    torn = '{"event": "progress", "stage": "tra'
    events.write_text("\n".join([*(json.dumps(event) for event in others + claimed), torn]))
    page = report.page(full_verdict(), folder)
    assert 'points="0.0000,0.0000 0.1000,1.0000"' in page
    assert "A claim, not evidence" in page


def test_every_report_shows_the_certificates_with_what_they_guarantee(tmp_path: Path) -> None:
    verdict = full_verdict(certified(1337), certified(42, gain_nats=0.1), certified(2024, silent=True))
    folder = RunFolder(tmp_path)
    folder.seed(1337).path.mkdir()
    positions = np.arange(1, 500, 7)
    np.savez(
        folder.seed(1337).responses(1),
        position=positions,
        claim=np.full(len(positions), 3.0),
        witness_1=np.where(positions == 8, 5.0, np.where(positions == 15, np.inf, 3.0)),
    )
    page = Page(report.page(verdict, folder))
    for text in (page.words, report.markdown(verdict), on_terminal(verdict)):
        assert f"{verdict['seeds'][0]['certificate']['G_bpb']:.4f}" in text
        assert "G, bits/" in text
    assert "With 99% confidence" in page.words
    assert "no certificate: the witness could not be asked: it left" in page.words
    assert "from +2 (top)" in page.words, "the scale holds the largest gain"
    assert page.tags.count("svg") >= 1

"""The code rules: each finds its fault and leaves the lawful version of the same program alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.audit import audit
from harness.audit.code import code_findings
from tests.harness.fakes.programs import (
    CACHE,
    EPOCHS,
    PREQUANT,
    READY,
    SCORE_FIRST,
    SLOT,
    TABLE,
    TRAINING,
    outcomes,
)


def test_learning_from_validation_text_before_it_is_scored_is_a_violation_with_its_lines() -> None:
    source = PREQUANT.format(default=1)
    (finding,) = code_findings({"train_gpt.py": source})
    assert (finding.rule, finding.condition, finding.outcome) == ("val-before-score", "C3", "fail")
    lines = source.splitlines()
    assert all(place.line and lines[place.line - 1].strip() == place.text for place in finding.evidence)
    assert "opt.step()" in [place.text for place in finding.evidence]
    assert finding.clears


def test_the_last_of_several_epochs_is_no_score_and_a_single_epoch_is() -> None:
    assert outcomes(EPOCHS.format(epochs=8)) == {"last-epoch-scored": "fail"}
    assert outcomes(EPOCHS.format(epochs=1)) == {}


def test_several_epochs_on_text_that_is_already_scored_are_left_alone() -> None:
    assert outcomes(SCORE_FIRST) == {}


def test_a_mask_over_the_scored_positions_is_found_and_one_over_the_context_is_left_alone() -> None:
    assert outcomes(SLOT.format(mask="s:wlen", steps=16)) == {"slot": "fail"}
    assert outcomes(SLOT.format(mask=":s", steps=16)) == {}
    assert outcomes(SLOT.format(mask="s:wlen", steps=0)) == {}


def test_the_target_in_a_caches_key_is_found_and_the_context_alone_is_not() -> None:
    assert outcomes(CACHE.format(word="targets")) == {"target-in-key": "fail"}
    assert outcomes(CACHE.format(word="tokens")) == {}


def test_the_minimum_over_passes_is_found_and_a_clipping_minimum_is_not() -> None:
    body = TRAINING + "def main():\n    train_step(m, o, l)\n    {}\nmain()\n"
    assert outcomes(body.format("best_nll = torch.minimum(best_nll, nll)")) == {"minimum-over-passes": "fail"}
    assert outcomes(body.format("clipped = torch.minimum(weights, limit)")) == {}


def test_a_space_counted_in_the_table_and_again_is_found() -> None:
    assert outcomes(TABLE.format(extra=" + 1")) == {"space-counted-twice": "fail"}
    assert outcomes(TABLE.format(extra="")) == {}


def test_a_program_that_only_says_it_is_ready_made_no_score() -> None:
    source = READY.format(name="HadamardRotation")
    assert outcomes(source, "Uses a Hadamard rotation.") == {
        "nothing-trains": "fail",
        "technique-without-code": "question",
    }
    assert outcomes(TRAINING + "train_step(m, o, l)", "Uses a Hadamard rotation.") == {}


@pytest.mark.parametrize(
    ("name", "said", "asked"),
    [
        ("AWQQuantizer", "With AWQ.", True),
        ("HadamardRotation", "A rotation, by Hadamard", True),
        ("Causal", "Causal", True),
        ("ByteMixer", "Byte mixing", False),
        ("CausalHelper", "Causal attention", False),
        ("AWQQuantizer", "It is awquard", False),
        ("Mix", "A mixture", False),
    ],
)
def test_a_readme_names_a_class_by_all_its_words_or_by_its_capitals(
    name: str, said: str, asked: bool
) -> None:
    source = READY.format(name=name)
    assert ("technique-without-code" in outcomes(source, said)) is asked


def test_a_lone_evaluator_is_asked_about_and_not_accused() -> None:
    assert [f.outcome for f in code_findings({"eval_cache.py": "def evaluate(x):\n    return x\n"})] == [
        "question"
    ]


def test_a_folder_without_code_is_found_and_code_that_only_a_log_holds_is_a_question() -> None:
    assert [f.outcome for f in code_findings({"README.md": "x", "submission.json": "{}"})] == ["fail"]
    assert [
        f.outcome for f in code_findings({"README.md": "x", "train.log": "import torch\ndef main():\n"})
    ] == ["question"]


def test_training_that_a_decorator_or_another_folder_may_start_is_asked_about() -> None:
    service = (
        "@app.function(gpu='H100:8')\ndef run(model, opt):\n    model(x).backward()\n    opt.step()\n"
        "@app.local_entrypoint()\ndef main():\n    run.remote()\n"
    )
    assert outcomes(service) == {"nothing-trains": "question"}
    assert outcomes("from flood import main\nmain()\n") == {"nothing-trains": "question"}
    assert outcomes("import torch\nprint(torch.ones(3))\n") == {"nothing-trains": "fail"}


def test_a_folder_that_claims_no_score_or_is_off_the_record_track_is_asked_and_not_accused() -> None:
    texts = {"train_gpt.py": PREQUANT.format(default=1)}
    for claimed, on_track, expected in (
        (True, True, "fail"),
        (False, True, "question"),
        (True, False, "question"),
    ):
        (found,) = code_findings(texts, claimed=claimed, on_track=on_track)
        assert (found.rule, found.outcome) == ("val-before-score", expected)


@pytest.mark.parametrize(
    ("opening", "verdict"),
    [
        ("# A record", "violations found"),
        ("# A study\nThis is a non-record `10min` submission.", "questions"),
    ],
)
def test_a_readme_that_opens_with_being_no_record_makes_it_a_question(
    tmp_path: Path, opening: str, verdict: str
) -> None:
    folder = tmp_path / "records" / "track_10min_16mb" / "2026-04-01_Study"
    folder.mkdir(parents=True)
    (folder / "train_gpt.py").write_text(PREQUANT.format(default=1))
    (folder / "submission.json").write_text('{"val_bpb": 1.08}')
    (folder / "README.md").write_text(opening)
    assert audit.audit_folder(folder)["verdict"] == verdict


def test_a_score_that_only_a_readme_names_is_no_claim(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text(PREQUANT.format(default=1))
    (tmp_path / "README.md").write_text("# Builds on another entry (val_bpb 1.1271), pending compute\n")
    (tmp_path / "submission.json").write_text('{"val_bpb": null}')
    assert audit.audit_folder(tmp_path)["verdict"] == "questions"

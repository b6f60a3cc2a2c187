"""Whole records with one kind of fault each are found with their lines, and their lawful twins are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.audit import audit
from tests.harness.fakes.made_up import CONSTANT_BYTES, INLINE_EPOCHS, LAST_EPOCH, MadeUp

ROUNDS = INLINE_EPOCHS.script[
    INLINE_EPOCHS.script.index("    rounds = int(") : INLINE_EPOCHS.script.index("    loss, bpb = score")
]
SCORE = "    loss, bpb = score(model, held, 2.436)\n"
PRINT = INLINE_EPOCHS.script[INLINE_EPOCHS.script.index('    print(f"final_int6') :].split("\n\n")[0] + "\n"
TWINS = {
    "scored first, then learnt": INLINE_EPOCHS._replace(
        script=INLINE_EPOCHS.script.replace(ROUNDS + SCORE + PRINT, SCORE + PRINT + ROUNDS),
        log="seed:1337\nfinal_int6_sliding_window_exact val_loss:1.80868000 val_bpb:1.07120000\n"
        "adapt_round:1/30\n",
    ),
    "rounds over the train text": INLINE_EPOCHS._replace(
        script=INLINE_EPOCHS.script.replace(ROUNDS, ROUNDS.replace("held", "train"))
    ),
    "the first pass counted": LAST_EPOCH._replace(
        script=LAST_EPOCH.script.replace("turn == passes - 1", "turn == 0")
    ),
}


@pytest.mark.parametrize(
    ("case", "rule", "line"),
    [
        (INLINE_EPOCHS, "val-before-score", "tuner.step()"),
        (LAST_EPOCH, "last-epoch-scored", "if counted:"),
        (CONSTANT_BYTES, "fixed-bytes-per-token", "val_bpb = val_loss / (math.log(2) * 3.5)"),
    ],
)
def test_each_kind_of_fault_is_a_violation_with_its_lines(
    tmp_path: Path, case: MadeUp, rule: str, line: str
) -> None:
    report = audit.audit_folder(case.write(tmp_path))
    assert report["verdict"] == "violations found"
    failed = {found["rule"]: found for found in report["findings"] if found["outcome"] == "fail"}
    assert list(failed) == [rule]
    assert line in [place["text"] for place in failed[rule]["evidence"]]


@pytest.mark.parametrize("case", TWINS.values(), ids=TWINS)
def test_lawful_twins_give_no_finding_on_what_their_code_does(tmp_path: Path, case: MadeUp) -> None:
    report = audit.audit_folder(case.write(tmp_path))
    asked = [found for found in report["findings"] if found["outcome"] in ("fail", "question")]
    assert [found["rule"] for found in asked] == []


def test_the_twin_that_counts_bytes_is_asked_about_its_missing_module_alone(tmp_path: Path) -> None:
    twin = CONSTANT_BYTES._replace(
        script=CONSTANT_BYTES.script.replace(
            "    val_bpb = val_loss / (math.log(2) * 3.5)\n",
            "    n_bytes = sum(byte_table[token] for token in tokens)\n"
            "    val_bpb = val_loss * len(tokens) / (math.log(2) * n_bytes)\n",
        )
    )
    report = audit.audit_folder(twin.write(tmp_path))
    asked = {found["rule"] for found in report["findings"] if found["outcome"] in ("fail", "question")}
    assert asked <= {"nothing-trains", "bytes-per-token"}

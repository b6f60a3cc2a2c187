"""Cross-checks of numbers: each finds its fault and leaves an honest record alone."""

from __future__ import annotations

import json
import math
import re

import pytest

from harness.audit import record
from harness.audit.code import code_findings
from harness.audit.finding import Finding
from harness.audit.numbers import number_findings
from tests.harness.fakes.logs import classic, hyper

TRACK = "records/track_10min_16mb/x"


def judged(texts: dict[str, str], folder: str = TRACK) -> dict[str, Finding]:
    """The findings by rule, the gravest of each."""
    order = ("pass", "unknown", "question", "fail")
    found: dict[str, Finding] = {}
    for finding in number_findings(record.read(folder, texts), texts):
        if finding.rule not in found or order.index(finding.outcome) > order.index(
            found[finding.rule].outcome
        ):
            found[finding.rule] = finding
    return found


def curve(seed: int, shift: float = 0.0, wobble: float = 1.0, tick: int = 0) -> str:
    """A log with twenty train losses; `wobble` makes them the run's own."""
    rows = [
        f"step:{step}/20000 "
        f"train_loss:{6 / math.log(step + 2) + 0.01 * wobble * math.sin(step * seed) + shift:.4f} "
        f"train_time:{step * 44 + 7 + tick}ms step_avg:44.00ms"
        for step in range(100, 2100, 100)
    ]
    text = classic(seed)
    at = text.index("step:13780")
    return text[:at] + "\n".join(rows) + "\n" + text[at:]


HONEST = {
    "submission.json": json.dumps({"val_bpb": 1.2243657, "bytes_total": 15863489}),
    "train.log": classic(),
    "train_gpt.py": "#" * 47642,
}


def rated(text: str, ratio: float) -> str:
    """The log with every score line's bits per byte for this many bytes per token."""
    return re.sub(
        r"val_loss(: ?)(\S+) val_bpb: ?\S+",
        lambda m: f"val_loss{m[1]}{m[2]} val_bpb{m[1]}{float(m[2]) / math.log(2) / ratio:.8f}",
        text,
    )


def test_an_honest_record_has_no_question() -> None:
    found = judged(HONEST)
    assert [name for name, finding in found.items() if finding.outcome in ("fail", "question")] == []
    asked = (
        "validation-bytes",
        "bytes-per-token",
        "nats-and-bytes",
        "artifact-size",
        "code-bytes",
        "train-clock",
        "eval-clock",
        "json-and-logs",
        "first-loss",
    )
    assert {found[name].outcome for name in asked} == {"pass"}


def test_four_digits_that_read_a_little_over_the_window_are_not_faulted() -> None:
    text = (
        "data: fineweb10B_sp1024 train_shards:80 val_tokens:62021632\nseed:2024\n"
        "final_int6_ptzst_sliding val_loss:1.9199 val_bpb:1.1370\n"
    )
    assert (
        judged({"submission.json": '{"val_bpb": 1.1370}', "train.log": text})["validation-bytes"].outcome
        == "pass"
    )


def test_text_seventeen_per_cent_too_long_is_proved_by_a_known_token_count() -> None:
    text = rated(hyper(), 3.7266 * 1.177)
    assert judged({"train.log": text})["validation-bytes"].outcome == "fail"
    assert (
        judged({"train.log": text}, "records/track_non_record_16mb/x")["validation-bytes"].outcome
        == "question"
    )
    own = {"train.log": text, "README.md": "# Non-record: a negative result\n"}
    assert judged(own)["validation-bytes"].outcome == "question"
    own["README.md"] = "# A party\n\nType: non-record exploratory / creative submission.\n"
    assert judged(own)["validation-bytes"].outcome == "question"
    own["README.md"] = "# A record\n\nBetter than every non-record run. Our submission is fast.\n"
    assert judged(own)["validation-bytes"].outcome == "fail"
    assert (
        judged({"train.log": text}, "records/track_non_record_16mb/mine/10min")["validation-bytes"].outcome
        == "question"
    )
    bare = text.replace("val_tokens: 40540160", "").replace("vocab_size: 8192", "")
    assert "leading space" in judged({"train.log": bare})["bytes-per-token"].message
    assert (
        judged({"train.log": text.replace("val_tokens: 40540160", "")})["bytes-per-token"].outcome
        == "question"
    )
    assert judged({"train.log": hyper()})["validation-bytes"].outcome == "pass"
    stated = {"submission.json": json.dumps({"val_bpb": 1.0338576, "val_loss": 3.14335601})}
    assert judged(stated)["bytes-per-token"].outcome == "question"


def test_a_claim_whose_bits_and_nats_belong_to_the_whole_set_is_not_faulted_for_the_bytes_of_its_log() -> (
    None
):
    log = rated(hyper(), 3.7266 * 1.177)
    for ratio, outcome in ((3.7266, "question"), (3.7266 * 1.177, "fail")):
        results = {"42": {"val_bpb": round(2.85 / math.log(2) / ratio, 6), "val_loss": 2.85}}
        stated = json.dumps({"val_bpb": results["42"]["val_bpb"], "seed_results": results})
        assert judged({"train.log": log, "submission.json": stated})["validation-bytes"].outcome == outcome
    right, wrong = (
        {"val_bpb": 2.85 / math.log(2) / ratio, "val_loss": 2.85} for ratio in (3.7266, 3.7266 * 1.177)
    )
    mixed = json.dumps({"val_bpb": wrong["val_bpb"], "seed_results": {"42": wrong, "7": right}})
    assert judged({"train.log": log, "submission.json": mixed})["validation-bytes"].outcome == "fail", (
        "one right pair of two"
    )


def test_logs_and_metadata_taken_out_of_a_folder_are_not_said_to_lack_their_program() -> None:
    bare = {
        finding.outcome
        for finding in code_findings({"train.log": classic()})
        if finding.rule == "no-runnable-code"
    }
    whole = {
        finding.outcome
        for finding in code_findings({"train.log": classic(), "README.md": "# x", "submission.json": "{}"})
        if finding.rule == "no-runnable-code"
    }
    assert (bare, whole) == ({"unknown"}, {"fail"})


def test_other_known_sets_are_named() -> None:
    launch = rated(classic(), 2.4423).replace("62021632", "63779840")
    found = judged({"train.log": launch})["validation-bytes"]
    assert (found.outcome, "launch day" in found.message) == ("question", True)
    part = rated(hyper(), 3.0997).replace("40540160", "9662464")
    found = judged({"train.log": part})["validation-bytes"]
    assert (found.outcome, "10,000 documents" in found.message) == ("fail", True)


def test_lines_of_one_run_with_two_ratios_are_asked_about() -> None:
    text = hyper().replace("val_loss:2.85000000", "val_loss:2.80000000")
    assert judged({"train.log": text})["nats-and-bytes"].outcome == "question"


@pytest.mark.parametrize(
    ("logged", "stated", "outcome"),
    [
        (16_000_000, 16_000_000, "pass"),
        (16_059_704, 15_979_649, "question"),
        (16_084_685, 16_084_685, "fail"),
        (15_900_000, 16_100_000, "question"),
    ],
)
def test_bytes_over_the_cap_are_proved_only_where_log_and_json_both_say_so(
    logged: int, stated: int, outcome: str
) -> None:
    texts = {
        "submission.json": json.dumps({"val_bpb": 1.2243657, "bytes_total": stated}),
        "train.log": classic().replace("15863489", str(logged)),
    }
    assert judged(texts)["artifact-size"].outcome == outcome


@pytest.mark.parametrize(
    ("milliseconds", "cards", "outcome"),
    [(600137, 8, "pass"), (601153, 8, "question"), (688000, 8, "fail"), (688000, 1, "question")],
)
def test_a_train_clock_is_proved_broken_only_well_over_and_on_eight_cards(
    milliseconds: int, cards: int, outcome: str
) -> None:
    text = classic().replace("600038", str(milliseconds)).replace("world_size:8", f"world_size:{cards}")
    assert judged({"train.log": text})["train-clock"].outcome == outcome


def test_diagnostics_are_not_evaluation_time() -> None:
    text = hyper().replace("eval_time:7401ms", "eval_time:900000ms")
    assert judged({"train.log": text})["eval-clock"].outcome == "pass"
    assert judged({"train.log": text + "total_eval_time:639.9s\n"})["eval-clock"].outcome == "fail"


def test_the_best_seed_as_headline_is_asked_about_and_the_mean_is_not() -> None:
    logs = {
        f"train_seed{seed}.log": hyper(seed, bpb)
        for seed, bpb in ((42, 1.0850), (314, 1.0870), (999, 1.0890))
    }
    assert judged({**logs, "submission.json": '{"val_bpb": 1.0850}'})["headline-mean"].outcome == "question"
    assert judged({**logs, "submission.json": '{"val_bpb": 1.0870}'})["headline-mean"].outcome == "pass"


def test_a_curve_shifted_by_a_constant_is_no_independent_run() -> None:
    first, second = curve(42), curve(42, shift=-0.0033, tick=3).replace("seed:42", "seed:314")
    found = judged({"train_seed42.log": first, "train_seed314.log": second})["independent-runs"]
    assert (found.outcome, "exactly 0.0033" in found.message) == ("fail", True)
    assert len(found.evidence) == 2


def test_the_same_curve_at_other_times_is_a_question_and_own_curves_are_none() -> None:
    again = curve(42, tick=3).replace("seed:42", "seed:314")
    assert (
        judged({"train_seed42.log": curve(42), "train_seed314.log": again})["independent-runs"].outcome
        == "question"
    )
    assert (
        judged({"train_seed42.log": curve(42), "train_seed314.log": curve(314, tick=3)})[
            "independent-runs"
        ].outcome
        == "pass"
    )


def test_a_curve_that_stands_still_is_no_copy() -> None:
    flat = re.sub(r"train_loss:\S+ train_time", "train_loss:0.0000 train_time", curve(42))
    moved = re.sub(r"train_time:(\d+)ms", lambda m: f"train_time:{int(m[1]) + 1}ms", flat).replace(
        "seed:42", "seed:7"
    )
    assert judged({"a_seed42.log": flat, "b_seed7.log": moved})["independent-runs"].outcome == "pass"


def test_one_log_under_two_seeds_is_asked_about() -> None:
    assert (
        judged({"train_seed42.log": classic(), "train_seed314.log": classic()})["one-log-two-seeds"].outcome
        == "question"
    )
    assert "one-log-two-seeds" not in judged({"train.log": classic(), "train_seed1337.log": classic()})


def test_a_log_of_another_seed_than_its_name_is_asked_about() -> None:
    assert judged({"train_seed999.log": classic(1337)})["seed-of-log"].outcome == "question"
    assert "seed-of-log" not in judged({"h100_seed2.txt": classic(42)})


def test_a_first_loss_far_below_chance_is_asked_about() -> None:
    text = re.sub(r"step:0/.*\n", "", classic()).replace("train_loss:6.9370", "train_loss:3.9370")
    assert judged({"train.log": text})["first-loss"].outcome == "question"


def stamped(text: str, seconds: int) -> str:
    rows = text.splitlines()
    return "\n".join(
        f"[2026-04-19 {11 + at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}] {row}"
        for number, row in enumerate(rows)
        for at in [seconds * number // (len(rows) - 1)]
    )


def test_stamps_that_span_less_than_the_stated_time_contradict_it() -> None:
    text = classic() + "Evaluation time: 499 seconds\n"
    assert judged({"train.log": stamped(text, 773)})["time-stamps"].outcome == "fail"
    assert judged({"train.log": stamped(text, 1300)})["time-stamps"].outcome == "pass"
    launcher = "[2026-04-19 11:00:00] WARNING\n" * 200 + text
    assert judged({"train.log": launcher})["time-stamps"].outcome == "unknown"


def test_json_readme_and_logs_that_differ_are_asked_about() -> None:
    assert judged({**HONEST, "submission.json": '{"val_bpb": 1.1502}'})["json-and-logs"].outcome == "question"
    table = "| Seed | BPB |\n|---|---|\n| 1337 | {} |\n"
    assert judged({**HONEST, "README.md": table.format("1.2244")})["readme-and-logs"].outcome == "pass"
    assert judged({**HONEST, "README.md": table.format("1.2233")})["readme-and-logs"].outcome == "question"


def test_the_significance_test_is_computed_again_under_both_profiles() -> None:
    logs = {
        f"train_seed{seed}.log": hyper(seed, bpb)
        for seed, bpb in ((42, 1.0850), (314, 1.0851), (999, 1.0852))
    }
    better = judged({**logs, "submission.json": '{"val_bpb": 1.0851, "comparison_baseline_bpb": 1.0900}'})[
        "significance"
    ]
    assert better.outcome == "pass"
    assert "readme p = " in better.message and "progression-2026-04-28 p = " in better.message
    equal = judged({**logs, "submission.json": '{"val_bpb": 1.0851, "comparison_baseline_bpb": 1.0851}'})[
        "significance"
    ]
    assert equal.outcome == "question"


def test_traces_of_validation_text_and_of_target_gates_are_asked_about() -> None:
    text = (
        hyper().replace("train_shards: 80", "train_shards: 1499") + "tilt: within_gate=9866847 word_gate=0\n"
    )
    found = judged({"train.log": text})
    assert (found["train-shards"].outcome, found["target-gates"].outcome) == ("question", "question")
    assert "target-gates" not in judged({"train.log": hyper() + "tilt: within_gate=0 word_gate=0\n"})


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"submission.json": ""},
        {"submission.json": "{}"},
        {"train.log": "\x00"},
        {"README.md": "| Seed |\n| 1 |"},
        {
            "submission.json": '{"val_bpb": 0, "val_loss": -1, "seeds": [0]}',
            "train.log": "val_loss:0.0 val_bpb:0.0",
        },
        {"train.log": "step:1/2 train_loss:1.0\nval_loss:-1.0 val_bpb:-1.0\nval_tokens: 0\nseed:0"},
    ],
)
def test_a_folder_with_nothing_in_it_is_unknown_and_raises_nothing(texts: dict[str, str]) -> None:
    assert {finding.outcome for finding in judged(texts).values()} <= {"pass", "unknown", "question"}


def test_a_zero_that_waits_for_a_number_is_no_claim() -> None:
    stated = {"submission.json": json.dumps({"val_bpb": 0.0, "bytes_total": 0})}
    assert "score-floor" not in judged(stated)
    stated["submission.json"] = json.dumps({"val_bpb": 0, "mean_val_bpb": 0.3})
    assert judged(stated)["score-floor"].outcome == "question"


def test_steps_of_several_runs_or_of_a_resumed_one_are_not_multiplied() -> None:
    slow = curve(1337).replace("step_avg:43.54ms", "step_avg:90.00ms")
    assert slow != curve(1337)
    assert judged({"train.log": slow})["step-times"].outcome == "question"
    last = "\n".join(line for line in slow.splitlines() if not re.match(r"step:\d{1,4}/", line))
    assert judged({"train.log": last})["step-times"].outcome == "question", (
        "one printed step says nothing of where it began"
    )
    before = "step:9000/20000 train_loss:2.2000 train_time:400000ms step_avg:44.00ms\n"
    resumed = last.replace("step:13780/", before + "step:13780/", 1)
    assert judged({"train.log": resumed})["step-times"].outcome == "unknown"


def test_a_finished_model_that_is_scored_once_more_may_begin_low() -> None:
    low = "step:0/20000 val_loss:2.1000 val_bpb:1.2437 train_time:0ms step_avg:0.00ms\n"
    text = low + "".join(line for line in classic().splitlines(True) if not line.startswith("step:0/"))
    assert judged({"train.log": text})["first-loss"].outcome == "question"
    trained = ("step:", "stopping")
    again = low.replace("20000", "0") + "".join(
        line for line in text.splitlines(True) if not line.startswith(trained)
    )
    assert judged({"train.log": again})["first-loss"].outcome == "unknown"


def test_a_last_sequence_that_is_left_out_leaves_the_whole_set() -> None:
    cut = classic().replace("62021632", "61997056")
    assert judged({"train.log": cut})["validation-bytes"].outcome == "pass"
    assert (
        judged({"train.log": classic().replace("62021632", "61000000")})["validation-bytes"].outcome
        == "question"
    )


def test_a_claim_of_another_score_than_the_logs_is_tested_by_its_own_seeds() -> None:
    logs = {
        f"train_seed{seed}.log": curve(seed, wobble=seed).replace("seed:1337", f"seed:{seed}")
        for seed in (1337, 42)
    }
    stated = {"val_bpb": 0.9, "seed_results": {"1337": {"val_bpb": 0.91}, "42": {"val_bpb": 0.89}}}
    assert (
        "mean of 2 seeds" in judged({**logs, "submission.json": json.dumps(stated)})["headline-mean"].message
    )

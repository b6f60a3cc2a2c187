"""Reading record folders: two log dialects, JSON of many shapes, several runs, files that are no record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.audit import record
from harness.audit.audit import audit_folder
from harness.audit.record import claims, lines, logs
from harness.audit.record.facts import RANK, half_unit
from harness.audit.record.report import seeds
from tests.harness.fakes.logs import classic, hyper


def read(**texts: str) -> record.Record:
    named = {name.replace("__", "/").replace("_dot_", "."): text for name, text in texts.items()}
    return record.read("records/track_10min_16mb/x", named)


def test_the_starting_script_s_log_is_read_with_every_fact_at_its_line() -> None:
    run = logs.run("train.log", classic())
    assert run
    known = {
        "model_bytes": 15815847,
        "code_bytes": 47642,
        "counted_bytes": 15863489,
        "train_seconds": 600.038,
        "steps": 13780,
        "step_ms": 43.54,
        "val_tokens": 62021632,
        "train_shards": 80,
        "world_size": 8,
        "parameters": 17059912,
        "vocabulary": 1024,
        "train_clock": 600,
    }
    assert {name: getattr(run, name).value for name in known} == known
    assert run.seed == 1337
    assert run.counted_bytes and run.counted_bytes.line == 16
    assert [point.step for point in run.train_curve] == [1]


def test_the_dialect_with_hyper_parameters_is_read_and_compressed_code_is_what_counts() -> None:
    run = logs.run("train_seed42.log", hyper())
    assert run and run.code_bytes and run.counted_bytes and run.train_seconds and run.steps and run.val_tokens
    assert (run.code_bytes.value, run.counted_bytes.value) == (15516, 15987547)
    assert (run.steps.value, run.val_tokens.value) == (4945, 40540160)
    assert run.train_seconds.value == pytest.approx(588.041)
    assert [point.seconds for point in run.train_curve] == [0.0, pytest.approx(486.0)]


@pytest.mark.parametrize(
    "prefix", ["1776542100.123456 ", "[2026-04-19 11:15:22] ", "[rank0]: ", "2026-04-19 11:15:22 "]
)
def test_a_line_is_read_behind_an_epoch_a_date_or_a_rank(prefix: str) -> None:
    run = logs.run("train.log", "\n".join(prefix + line for line in classic().splitlines()))
    assert run and run.seed == 1337 and run.counted_bytes and run.counted_bytes.value == 15863489
    assert run.scores[-1].bpb.value == 1.2243657


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("final_int8_zlib_roundtrip_exact", "roundtrip"),
        ("final_INT7_zlib_roundtrip", "roundtrip"),
        ("quantized", "roundtrip"),
        ("diagnostic quantized", "roundtrip"),
        ("final_int6_sliding_window_s64_exact", "sliding"),
        ("final_sliding", "sliding"),
        ("final_int8_zlib_roundtrip_exact sliding", "sliding"),
        ("legal_ttt_exact", "ttt"),
        ("final_int8_ttt_lora", "ttt_lora"),
        ("quantized_ttt_phased", "ttt_phased"),
        ("final_slot_exact", "mixture"),
        ("ppm_sliding", "mixture"),
        ("diagnostic pre-quantization post-ema", "pre-quantization"),
        ("DIAGNOSTIC post_ema", "pre-quantization"),
        ("pre_quant", "pre-quantization"),
        ("step:5/100", "training"),
        ("5/100", "training"),
        ("temp_search", None),
        ("final_mixed_int6_zstd_roundtrip", "roundtrip"),
        ("final_fp8_zlib_roundtrip", "roundtrip"),
        ("final_fp_exact", "pre-quantization"),
        ("candidate_eval:ema", None),
        ("prequant_ttt:epoch 3/6", None),
    ],
)
def test_a_score_line_is_of_the_kind_that_its_label_says(label: str, kind: str | None) -> None:
    assert lines.kind_of(label) == kind


def test_the_headline_is_the_mean_of_the_seeds_from_the_line_that_scores_what_is_shipped() -> None:
    claim = json.dumps({"val_bpb": 1.0858, "seeds": [42, 314, 999]})
    made = read(
        submission_dot_json=claim,
        train_seed42_dot_log=hyper(42, 1.0850),
        train_seed314_dot_log=hyper(314, 1.0858),
        train_seed999_dot_log=hyper(999, 1.0866),
    )
    assert made.confirmed
    assert made.headline_kind == "sliding"
    assert made.headline_bpb == pytest.approx(1.0858)
    assert [row["seed"] for row in seeds(made)] == [42, 314, 999]
    assert seeds(made)[0]["eval_seconds"] == pytest.approx(83.99)


def test_a_failed_adaptation_after_the_claimed_line_is_not_the_headline() -> None:
    text = hyper(42, 1.0897) + "final_int6_ttt val_loss:3.4416 val_bpb:1.3360 eval_time:300000ms\n"
    made = read(submission_dot_json='{"val_bpb": 1.0897}', train_dot_log=text)
    assert (made.headline_kind, made.headline_bpb) == ("sliding", 1.0897)


def test_a_claim_never_makes_an_unquantised_score_the_headline() -> None:
    made = read(submission_dot_json='{"val_bpb": 1.08749}', train_dot_log=hyper(42, 1.0950))
    assert not made.confirmed
    assert (made.headline_kind, made.headline_bpb) == ("claimed", 1.08749)
    assert made.chosen()[0][1].kind == "sliding"


def test_without_a_json_the_gravest_line_of_the_log_is_the_headline() -> None:
    made = read(train_dot_log=hyper(42, 1.0950))
    assert (made.headline_kind, made.headline_bpb) == ("sliding", 1.0950)


def test_of_several_configurations_the_claimed_one_is_chosen() -> None:
    made = read(
        submission_dot_json='{"val_bpb": 1.2000}',
        logs__a_dot_txt=classic(1, 1.3),
        logs__b_dot_txt=classic(1, 1.2),
    )
    assert [run.file for run, _ in made.chosen()] == ["logs/b.txt"]


def test_a_log_of_an_evaluation_alone_has_its_sizes_from_the_seed_s_train_log() -> None:
    evaluated = "  seed: 42\nquantized_ttt_phased val_loss:2.70000000 val_bpb:1.04526000 eval_time:525700ms\n"
    made = read(
        submission_dot_json='{"val_bpb": 1.04526}',
        train_seed42_dot_log=hyper(42),
        ttt__seed_42_dot_log=evaluated,
    )
    ((run, _),) = made.chosen()
    assert run.file == "ttt/seed_42.log"
    assert run.counted_bytes and (run.counted_bytes.value, run.counted_bytes.file) == (
        15987547,
        "train_seed42.log",
    )


def test_a_log_copied_under_its_seed_s_name_is_one_run() -> None:
    made = read(train_dot_log=classic(7), train_seed7_dot_log=classic(7))
    assert len(made.runs) == 1
    assert made.copies == (("train_seed7.log", "train.log"),)


def test_logs_that_print_one_seed_go_by_the_names_that_tell_several() -> None:
    made = read(train_seed_42_dot_txt=classic(1337, 1.21), train_seed_2026_dot_txt=classic(1337, 1.22))
    assert [(run.seed, run.logged_seed and run.logged_seed.value) for run in made.runs] == [
        (2026, 1337),
        (42, 1337),
    ]


@pytest.mark.parametrize("stated", ['"1.0785"', "1.0785", '{"mean": 1.0785, "std": 0.1}'])
def test_a_score_is_read_as_number_text_or_mean(stated: str) -> None:
    read_claim = claims.claim("submission.json", f'{{\n"val_bpb": {stated}}}')
    assert read_claim.bpb and (read_claim.bpb.value, read_claim.bpb.line) == (1.0785, 2)


def test_zeros_at_the_end_of_a_stated_score_are_digits() -> None:
    read_claim = claims.claim("submission.json", '{"val_bpb": 1.06400}')
    assert read_claim.bpb and read_claim.bpb.half == pytest.approx(5e-6)


@pytest.mark.parametrize(
    "stated",
    [
        '{"seeds": [42, 7], "seed_results": {"42": {"val_bpb": 1.1, "artifact_bytes": 5}, "7": {"val_bpb": '
        "1.2}}}",
        '{"seeds": {"42": {"val_bpb": 1.1, "bytes_total": 5}, "7": {"val_bpb": 1.2}}}',
        '{"seed_results": [{"seed": 42, "val_bpb": 1.1, "bytes_total": 5}, {"seed": 7, "val_bpb": 1.2}]}',
        '{"seed_42": {"val_bpb": "1.1", "bytes_total": "5"}, "seed_7": {"ttt_bpp": 1.2}}',
    ],
)
def test_results_by_seed_are_read_from_lists_dicts_and_keys(stated: str) -> None:
    read_claim = claims.claim("submission.json", stated)
    first, second = read_claim.results
    assert first.bpb and second.bpb and first.counted_bytes and second.counted_bytes is None
    assert (first.seed, first.bpb.value, first.counted_bytes.value, second.seed, second.bpb.value) == (
        42,
        1.1,
        5,
        7,
        1.2,
    )
    assert read_claim.seeds == (42, 7)


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"val_bpb": 1.1, "val_bpb": 1.2}',
        '{"val_bpb": NaN}',
        "[" * 5000,
        " " * 300_001 + "{}",
        '{"a": ' + "1" * 5000 + "}",
    ],
)
def test_what_is_no_strict_json_is_told_and_not_repaired(stated: str) -> None:
    read_claim = claims.claim("submission.json", stated)
    assert read_claim.problem
    assert read_claim.bpb is None


@pytest.mark.parametrize(
    "stated",
    [
        '{"val_bpb": 1.1, "seeds": 3}',
        '{"val_bpb": 1.1, "seeds": null, "seed_results": "none"}',
        '{"val_bpb": 1.1, "seeds": ["a", {}, [], true, -5]}',
        '{"val_bpb": 1.1, "eval_time_seconds": [1, 2]}',
        '{"val_bpb": 1.1, "seed_results": {"42": [1], "x": {"val_bpb": 2}, "7": null}}',
    ],
)
def test_values_of_unforeseen_types_are_left_out(stated: str) -> None:
    read_claim = claims.claim("submission.json", stated)
    assert read_claim.bpb and read_claim.bpb.value == 1.1
    assert [one for one in read_claim.results if one.bpb] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "\x00" * 1000,
        "val_bpb:" * 10_000,
        "step:1/2 " + "9" * 100_000,
        "[" * 100_000,
        "val_loss:1.0 val_bpb:" + "1" * 50 + "." + "2" * 50,
        "seed:" + "9" * 400,
        "total:,,,/16000000",
    ],
)
def test_text_that_is_no_log_is_no_run_and_raises_nothing(text: str) -> None:
    run = logs.run("train.log", text)
    assert run is None or all(math.isfinite(score.bpb.value) for score in run.scores)


def test_source_code_inside_a_log_states_nothing() -> None:
    source = (
        'log0(f"final_int8_zlib_roundtrip val_loss:{q:.4f} val_bpb:{b:.4f}")\nseed = 5\n'
        '    log("Code size: 1 bytes")\n'
    )
    run = logs.run("train.log", source + classic(99))
    assert run and run.seed == 99 and run.code_bytes and run.code_bytes.value == 47642
    assert min(score.bpb.line or 0 for score in run.scores) > 3


def test_a_folder_with_spaces_empty_files_and_no_json_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "track_10min_16mb" / "a folder with spaces"
    folder.mkdir(parents=True)
    (folder / "train.log").write_text(classic())
    (folder / "train_gpt.py").touch()
    (folder / "README.md").touch()
    report = audit_folder(folder)
    assert (report["headline_bpb"], report["headline_kind"]) == (1.2243657, "roundtrip")
    assert report["seeds"][0]["counted_bytes"] == 15863489
    assert json.loads(json.dumps(report))["record"]["runs"][0]["counted_bytes"]["line"] == 16


def test_a_score_that_only_the_readme_states_is_named_as_such() -> None:
    made = read(README_dot_md="# A record\n\n**val_bpb: 1.1234** (3 seeds)\n")
    assert (made.headline_bpb, made.headline_kind) == (1.1234, "README")


def test_every_kind_has_its_rank_and_half_units_follow_the_printed_digits() -> None:
    assert len(set(RANK.values())) == len(RANK)
    assert [half_unit(text) for text in ("1.0785", "3", "1.5e-3")] == [
        pytest.approx(5e-5),
        0.0,
        pytest.approx(5e-5),
    ]

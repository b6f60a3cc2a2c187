"""`pgolf score`: any program that speaks the protocol, on any tokens."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from harness import cli
from harness.base.errors import UsageError, Violation
from harness.base.paths import ROOT
from harness.data.shards import write_tokens
from harness.run.contestant import parse
from harness.run.witnesses import WitnessSession
from harness.scoring.certificate.certificate import Certificate
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.datasets import VOCAB_SIZE, tiny_tokenizer

pytestmark = pytest.mark.slow

EXAMPLE = str(ROOT / "docs" / "examples" / "order2.py")


def run_score(folder: Path, contestant: str, witness: int = 0, **more: object) -> tuple[int, dict[str, Any]]:
    tokens_T = np.tile(np.append(1, np.arange(4, 300)), 20).astype(np.uint16)
    write_tokens(folder / "val.bin", tokens_T)
    options = {
        "--contestant": contestant,
        "--tokens": folder / "val.bin",
        "--tokenizer": tiny_tokenizer(folder),
        "--runner": "local",
        "--runs": folder / "runs",
        "--witness": witness,
        **{f"--{name.replace('_', '-')}": value for name, value in more.items()},
    }
    result = pgolf("score", "--json", *itertools.chain(*options.items()))
    return result.exit_code, json.loads(result.stdout)


def test_the_example_is_scored_and_the_judges_cost_is_measured(tmp_path: Path) -> None:
    code, verdict = run_score(tmp_path, f"python {EXAMPLE}")
    assert (code, verdict["verdict"], verdict["outcome"]) == (5, "inconclusive", "scored")
    assert (verdict["shown"], verdict["not_shown"]["C2"]) == ([], "no witness")
    assert verdict["scored_tokens"] == 20 * 297 - 1
    assert verdict["nats_per_token"] == pytest.approx(
        math.log(VOCAB_SIZE), abs=0.2
    )  # a single chunk, so nothing was learned before it
    assert isinstance(verdict["judge_cpu_seconds_per_million_tokens"], float)
    assert (list(verdict["others_cpu_share"]), list(verdict["stolen_cpu_share"])) == (["score"], ["score"])
    assert json.loads((Path(str(verdict["run_dir"])) / "score.json").read_text()) == verdict


def test_a_witness_certifies_the_example_and_fails_one_whose_scorer_peeks(tmp_path: Path) -> None:
    small = Path(EXAMPLE).read_text().replace("65_536", "256")
    (tmp_path / "honest.py").write_text(small)
    code, verdict = run_score(tmp_path, f"python {tmp_path / 'honest.py'}", 512)
    conditions = [
        (each["outcome"], each.get("cooperative", False)) for each in verdict["certificate"]["conditions"]
    ]
    assert (code, verdict["shown"]) == (5, ["C2"])
    assert (code, conditions) == (
        5,
        [("unknown", True), ("pass", False), ("unknown", True), ("unknown", True)],
    )
    found = {f["rule"]: (f["outcome"], f["evidence"]) for f in verdict["findings"]}
    assert found["normalised"][0] == "pass"
    for rule in ("causal", "score-first", "single-pass"):
        assert found[rule][0] == "unknown"
        assert "cooperative: a channel outside the socket was not excluded" in found[rule][1], (
            "the local runner excludes none"
        )
    assert verdict["certificate"]["largest_gain_nats"] < 1e-6
    (tmp_path / "peeks.py").write_text(
        small.replace("nats[0] = 0.0\n", "nats[0] = 0.0\n            nats *= 0.5\n")
    )
    code, verdict = run_score(tmp_path, f"python {tmp_path / 'peeks.py'}", 512)
    assert (code, verdict["verdict"]) == (1, "invalid")
    assert {f["rule"]: f["outcome"] for f in verdict["findings"]}["causal"] == "fail"


def test_an_earlier_score_of_the_same_contestant_is_listed(tmp_path: Path) -> None:
    assert run_score(tmp_path, f"python {EXAMPLE}")[1]["earlier"] == []
    assert run_score(tmp_path, f"python   {EXAMPLE}")[1]["earlier"] == ["score.earlier-0001.json"], (
        "spaces do not make another contestant"
    )


def test_the_files_of_an_earlier_certificate_are_archived(tmp_path: Path) -> None:
    first = run_score(tmp_path, f"python {EXAMPLE}", 64)[1]
    place = Path(str(first["run_dir"]))
    before = {name: (place / name).read_bytes() for name in ("witness-1.npz", "nats.f32")}
    second = run_score(tmp_path, f"python {EXAMPLE}", 64)[1]
    assert second["earlier"] == ["score.earlier-0001.json"]
    assert (place / "witness-1.earlier-0001.npz").read_bytes() == before["witness-1.npz"]
    assert (place / "witness-1.npz").read_bytes() != before["witness-1.npz"], (
        "another random seed, other tokens"
    )
    assert (place / "nats.earlier-0001.f32").read_bytes() == before["nats.f32"]


def test_an_unfinished_round_is_listed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(WitnessSession, "query_witness", stop)
        with pytest.raises((KeyboardInterrupt, json.JSONDecodeError)):
            run_score(tmp_path, f"python {EXAMPLE}", 64)
    (begun,) = tmp_path.rglob("witness.json")
    assert len(bytes.fromhex(json.loads(begun.read_text())["seed"])) == 32
    verdict = run_score(tmp_path, f"python {EXAMPLE}", 64, score_seconds=59)[1]
    assert verdict["earlier"] == ["witness.earlier-0001.json"], (
        "another clock does not make another contestant"
    )
    assert not begun.exists()


def test_a_missing_artifact_is_a_usage_error_and_no_machine_fault(tmp_path: Path) -> None:
    write_tokens(tmp_path / "val.bin", np.array([1, 5, 6], np.uint16))
    words = [
        "score",
        "--contestant",
        f"python {EXAMPLE}",
        "--tokens",
        tmp_path / "val.bin",
        "--tokenizer",
        tiny_tokenizer(tmp_path),
        "--artifact",
        tmp_path / "none",
        "--runner",
        "local",
        "--runs",
        tmp_path / "runs",
    ]
    with pytest.raises(UsageError, match=r"--artifact .*no such file"):
        CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def test_tokens_without_text_are_refused_before_the_contestant_starts(tmp_path: Path) -> None:
    write_tokens(tmp_path / "empty.bin", np.ones(5, np.uint16))
    words = (
        "--tokens",
        tmp_path / "empty.bin",
        "--tokenizer",
        tiny_tokenizer(tmp_path),
        "--runs",
        tmp_path / "runs",
    )
    refused = pgolf("score", "--contestant", f"python {EXAMPLE}", "--runner", "local", *words).exception
    assert isinstance(refused, UsageError)
    assert "empty.bin: no bytes to score" in refused.message
    assert not (tmp_path / "runs").exists()


def test_another_artifact_is_another_contestant(tmp_path: Path) -> None:
    for number, content in enumerate((b"one", b"two")):
        (tmp_path / "model.bin").write_bytes(content)
        verdict = run_score(tmp_path, f"python {EXAMPLE}", artifact=tmp_path / "model.bin")[1]
        assert verdict["artifact"] == hashlib.sha256(content).hexdigest()
        assert verdict["earlier"] == [], number


@pytest.mark.parametrize("fails_at", [2, 3])
def test_a_later_witness_that_fails_does_not_discard_earlier_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    calls: list[str] = []
    real = WitnessSession.query_witness

    def failing(session: WitnessSession, *arguments: Any) -> Any:
        calls.append(f"witness-{session.round_number}{session.n_witnesses}")
        if len(calls) == fails_at:
            raise Violation("contestant", "the witness left before its first word")
        return real(session, *arguments)

    monkeypatch.setattr(WitnessSession, "query_witness", failing)
    small = Path(EXAMPLE).read_text().replace("65_536", "256")
    (tmp_path / "peeks.py").write_text(
        small.replace("nats[0] = 0.0\n", "nats[0] = 0.0\n            nats *= 0.5\n")
    )
    if fails_at == 3:
        monkeypatch.setattr(Certificate, "wants_second_round", property(lambda self: self.round_number == 1))
    code, verdict = run_score(tmp_path, f"python {tmp_path / 'peeks.py'}", 512)
    assert (code, verdict["verdict"]) == (1, "invalid")
    assert {f["rule"]: f["outcome"] for f in verdict["findings"]}["causal"] == "fail"
    assert calls == (
        ["witness-11", "witness-12", "witness-21", "witness-22"]
        if fails_at == 2
        else ["witness-11", "witness-12", "witness-21"]
    ), "without a second witness a second round is needed"
    assert "left before its first word" in str(verdict["certificate"]["looks"][fails_at - 2]["ended"][-1])


def test_a_witness_that_fails_before_its_first_answer_leaves_the_run_inconclusive(tmp_path: Path) -> None:
    ready = '    wire.say("ready"'
    fails = (
        Path(EXAMPLE)
        .read_text()
        .replace(ready, f"    if setup['role'] == 'witness':\n        return\n{ready}", 1)
    )
    (tmp_path / "fails.py").write_text(fails)
    code, verdict = run_score(tmp_path, f"python {tmp_path / 'fails.py'}", 64)
    assert (code, verdict["verdict"], verdict["outcome"], verdict["certificate"]) == (
        5,
        "inconclusive",
        "scored",
        None,
    )
    assert verdict["bpb"] > 0
    assert {
        f["outcome"]
        for f in verdict["findings"]
        if f["rule"] in ("causal", "normalised", "score-first", "single-pass")
    } == {"unknown"}
    assert "could not be asked" in verdict["unasked"]


def test_with_a_certificate_no_finding_says_that_no_witness_was_asked(tmp_path: Path) -> None:
    verdict = run_score(tmp_path, f"python {EXAMPLE}", 64)[1]
    assert verdict["certificate"] is not None
    assert not [f for f in verdict["findings"] if "no witness was asked" in f["evidence"]]


def test_seed_and_track_are_told_and_another_track_forbids_learning(tmp_path: Path) -> None:
    small = Path(EXAMPLE).read_text().replace("65_536", "256")
    (tmp_path / "learns.py").write_text(small)
    command = f"python {tmp_path / 'learns.py'}"
    assumed = run_score(tmp_path, command)[1]
    assert (assumed["seed"], assumed["track"]) == (1337, "B")
    code, forbidden = run_score(tmp_path, command, seed=7, track="A")
    assert (forbidden["seed"], forbidden["track"], code) == (7, "A", 1)
    assert forbidden["decided_by"] == ["score-first"]


def test_the_printed_verdict_leads_with_the_number_and_what_is_shown(tmp_path: Path) -> None:
    words = ["--contestant", f"python {EXAMPLE}", "--tokens", tmp_path / "val.bin", "--runner", "local"]
    run_score(tmp_path, f"python {EXAMPLE}")
    words += ["--tokenizer", tiny_tokenizer(tmp_path), "--runs", tmp_path / "runs"]
    done = pgolf("score", *words)
    words_of = " ".join(done.stdout.split())
    by = "causal, normalised, score-first, single-pass"
    assert words_of.index("bits per byte") < words_of.index("shown: nothing; not shown: C1")
    assert f"INCONCLUSIVE by {by}: seed 1337 (assumed), track B (assumed), profile pocket" in words_of
    told = pgolf("score", *words, "--seed", 7, "--track", "B", "--details").stdout
    assert "seed 7, track B, profile pocket" in " ".join(told.split())
    assert "setup-clock" in told and "setup-clock" not in done.stdout
    assert "earlier attempt" in told
    assert (done.exit_code, pgolf("score", *words, "--allow-open").exit_code) == (5, 0)


def test_a_program_that_breaks_the_protocol_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        Path(EXAMPLE).read_text().replace("nats[0] = 0.0", "nats[0] = np.nan")
    )
    code, verdict = run_score(tmp_path, f"python {tmp_path / 'broken.py'}")
    assert (code, verdict["verdict"], verdict["rule"], verdict["bpb"]) == (1, "invalid", "protocol", None)
    assert verdict["decided_by"] == ["conduct"]


def test_files_named_in_the_command_are_sent_along_and_their_names_may_not_clash(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for place in (tmp_path / "a.py", tmp_path / "other" / "a.py", tmp_path / "config.yaml"):
        place.write_text("")
    assert parse(f"python3 {tmp_path / 'a.py'} --fast", True)[:2] == (None, ("a.py", "--fast"))
    for words in (
        f"python3 {tmp_path / 'a.py'} {tmp_path / 'other' / 'a.py'}",
        f"python3 {tmp_path / 'config.yaml'}",
        f"{tmp_path / 'a.py'}",
        "no-such-program-here x",
        'python3 "unclosed',
        "",
    ):
        with pytest.raises(UsageError):
            parse(words, False)

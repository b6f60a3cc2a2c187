"""Which code the rules read: settings, dead branches, reached functions, packed code, and what logs show."""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

import pytest

from harness.audit import audit
from harness.audit.code import code_findings
from harness.audit.unwrap import unwrapped
from tests.harness.fakes.programs import CACHE, PREQUANT, TRAINING, outcomes


def test_what_the_runs_own_settings_switch_off_is_no_violation() -> None:
    assert outcomes(PREQUANT.format(default=0)) == {}


@pytest.mark.parametrize(
    ("readme", "log"), [("`TTT_ENABLED=1 torchrun train_gpt.py`", ""), ("", "ttt_enabled: True\n")]
)
def test_a_run_command_or_a_printed_setting_switches_code_on(readme: str, log: str) -> None:
    assert outcomes(PREQUANT.format(default=0), readme, log) == {"val-before-score": "fail"}


def test_a_setting_that_only_dead_code_sets_anew_stays_off() -> None:
    dead = PREQUANT.format(default=0).replace(
        "        adapt(", "        h.ttt_enabled = True\n        adapt("
    )
    assert outcomes(dead) == {}
    alive = PREQUANT.format(default=0).replace(
        "    h = Hyper()\n", "    h = Hyper()\n    h.ttt_enabled = True\n"
    )
    assert outcomes(alive) == {"val-before-score": "fail"}


@pytest.mark.parametrize(("given", "expected"), [("False", {}), ("True", {"minimum-over-passes": "fail"})])
def test_a_switch_that_every_call_gives_the_same_value_is_folded(
    given: str, expected: dict[str, str]
) -> None:
    source = (
        TRAINING
        + f"""
def score(best_nll, nll, use_best=False):
    if use_best:
        best_nll = torch.minimum(best_nll, nll)
    return best_nll
train_step(m, o, l)
score(a, b, use_best={given})
"""
    )
    assert outcomes(source) == expected


def test_two_run_commands_that_disagree_switch_nothing_off() -> None:
    assert "val-before-score" in outcomes(
        PREQUANT.format(default=0), "`TTT_ENABLED=1 x` or `TTT_ENABLED=0 x`"
    )


@pytest.mark.parametrize(
    "source", ["def broken(:", "x = " + "(" * 5000, "\0", "-" * 3000 + "1", "x = 1\n" * 400_000]
)
def test_what_cannot_be_parsed_is_unknown_and_never_a_crash(source: str) -> None:
    assert "fail" not in outcomes(source).values()


def test_packed_code_is_read_without_being_run(tmp_path: Path) -> None:
    packed = base64.b85encode(
        lzma.compress(
            (
                PREQUANT.format(default=1)
                + f"open({str(tmp_path / 'ran')!r}, 'w')\n# "
                + "0123456789abcdef" * 40
            ).encode()
        )
    ).decode()
    wrapper = f"import base64, lzma\nexec(lzma.decompress(base64.b85decode({packed!r})))\n"
    folder = tmp_path / "records" / "track_10min_16mb" / "2026-04-01_Packed"
    folder.mkdir(parents=True)
    (folder / "train_gpt.py").write_text(wrapper)
    (folder / "submission.json").write_text('{"val_bpb": 1.08}')
    report = audit.audit_folder(folder)
    assert report["verdict"] == "violations found"
    assert report["findings"][0]["evidence"][0]["file"] == "train_gpt.py!1.py"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_bomb_of_packed_code_ends_at_the_limit() -> None:
    bomb = base64.b85encode(lzma.compress(b"#" * 50_000_000)).decode()
    assert list(unwrapped(f"x = {bomb!r}")) == []


def test_a_class_that_is_only_named_as_a_type_is_not_run() -> None:
    source = (
        TRAINING
        + """
class Cache:
    def ask(self, tgt):
        full_key = (ctx_hash ^ (tgt * prime)) & mask
        return full_counts[full_key]
def main():
    train_step(model, opt, loader)
    cache: Cache | None = {made}
    if isinstance(cache, Cache):
        cache.ask(x)
main()
"""
    )
    assert outcomes(source.format(made="None")) == {}
    assert outcomes(source.format(made="Cache()")) == {"target-in-key": "fail"}


def test_a_setting_that_a_model_keeps_a_copy_of_stays_off() -> None:
    source = (
        PREQUANT.format(default=0)
        .replace(
            "def main():",
            """class Model:
    def __init__(self, h):
        self.ttt_enabled = bool(h.ttt_enabled)
def main():""",
        )
        .replace("    h = Hyper()\n", "    h = Hyper()\n    model = Model(h)\n")
    )
    assert outcomes(source) == {}
    assert outcomes(source.replace("bool(h.ttt_enabled)", "True")) == {"val-before-score": "fail"}


ADAPTED = PREQUANT.format(default=1).replace(
    "            opt.step()\ndef main",
    """            opt.step()
        log0(f"adapt_epoch:{epoch} loss:{loss:.4f}")
def main""",
)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("final val_bpb:1.0800\n", "question"),
        ("adapt_epoch:1 loss:1.9\nfinal val_bpb:1.0800\n", "fail"),
        ("clean val_bpb:1.0900\nadapt_epoch:1 loss:1.9\nfinal val_bpb:1.0800\n", "fail"),
        ("clean val_bpb:1.0800\nadapt_epoch:1 loss:1.9\nfinal val_bpb:1.0700\n", "question"),
        ('    log0(f"adapt_epoch:{epoch}")\nfinal val_bpb:1.0800\n', "question"),
        ("loss:1.9\n", "fail"),
        ("", "fail"),
    ],
)
def test_logs_tell_whether_the_code_was_at_work_on_the_score_that_is_stated(log: str, expected: str) -> None:
    (found,) = code_findings(
        {"train_gpt.py": ADAPTED, "train.log": log, "submission.json": '{"val_bpb": 1.0800}'}
    )
    assert (found.rule, found.outcome) == ("val-before-score", expected)


def test_a_cache_that_no_log_tells_of_is_asked_about() -> None:
    source = (
        CACHE.format(word="targets")
        .replace(
            "def main():",
            """def evaluate(tokens, targets, table):
    log0(f"cache_pass:{len(tokens)}")
    return mix(tokens, targets, table)
def main():""",
        )
        .replace("    mix(tokens", "    evaluate(tokens")
    )
    assert outcomes(source, log="final val_bpb:1.1200\n") == {"target-in-key": "question"}
    assert outcomes(source, log="cache_pass:9\nfinal val_bpb:0.9000\n") == {"target-in-key": "fail"}
    shared = (
        source.replace("    return mix(", "    log0(f'final val_bpb:{1}')\n    return mix(")
        + "log0(f'final val_bpb:{2}')\n"
    )
    assert outcomes(shared, log="final val_bpb:1.1200\n") == {"target-in-key": "question"}
    unkept = source.replace(
        "log0", "print"
    )  # nothing that print() writes is in the log, so its silence tells nothing
    assert outcomes(unkept, log="final val_bpb:0.9000\n") == {"target-in-key": "fail"}


def test_what_a_launcher_sets_is_not_taken_from_the_scripts_default() -> None:
    source = (
        TRAINING
        + """
import os
def main():
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != 8:
        raise ValueError("eight cards")
    train_step(model, opt, loader)
main()
"""
    )
    assert outcomes(source) == {}

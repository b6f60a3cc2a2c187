"""Reading submissions' code: each rule finds its case, and the lawful twin of that case is left alone."""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

import pytest

from harness.audit import audit
from harness.audit.code import code_findings
from harness.audit.unwrap import unwrapped

TRAINING = """
def train_step(model, opt, loader):
    loss = model(*loader.next_batch())
    loss.backward()
    opt.step()
"""
SCORING = """
def eval_val(model, val_tokens, base_bytes_lut):
    loss_sum = 0.0
    for x, y in chunks(val_tokens):
        loss_sum += model(x, y).sum()
    return loss_sum
"""
PREQUANT = (
    TRAINING
    + SCORING
    + """
import os
class Hyper:
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "{default}")))
def adapt(model, val_tokens, epochs):
    opt = AdamW(model.parameters())
    for epoch in range(epochs):
        for x, y in chunks(val_tokens):
            loss = model(x, y)
            loss.backward()
            opt.step()
def main():
    h = Hyper()
    train_step(model, opt, loader)
    if h.ttt_enabled:
        adapt(model, val_tokens, 6)
    eval_val(model, val_tokens, lut)
if __name__ == "__main__":
    main()
"""
)
EPOCHS = (
    TRAINING
    + """
def eval_ttt(model, val_tokens, lut, epochs={epochs}):
    loss_sum = 0.0
    for x, y in chunks(val_tokens):
        for epoch in range(epochs):
            nll = model(x, y)
            if epoch == epochs - 1:
                loss_sum += nll.sum()
            nll.mean().backward()
            opt.step()
    return loss_sum
def main():
    train_step(model, opt, loader)
    eval_ttt(model, val_tokens, lut)
main()
"""
)
SCORE_FIRST = (
    TRAINING
    + """
def eval_ttt(model, val_tokens, base_bytes_lut):
    loss_sum = 0.0
    for x, y in chunks(val_tokens):
        with torch.no_grad():
            nll = F.cross_entropy(model(x), y)
            loss_sum += nll.sum()
        for epoch in range(3):
            F.cross_entropy(model(x), y).backward()
            opt.step()
    return loss_sum
def main():
    train_step(model, opt, loader)
    eval_ttt(model, val_tokens, lut)
main()
"""
)
SLOT = (
    TRAINING
    + """
def eval_slot(model, val_tokens, lut):
    loss_sum = 0.0
    for x, y in chunks(val_tokens):
        mask = torch.zeros(8, 64)
        for i in range(8):
            mask[i, {mask}] = 1.0
        delta = torch.zeros(1, requires_grad=True)
        for _step in range({steps}):
            nll = F.cross_entropy(model(x) + delta, y)
            (nll * mask).sum().backward()
            opt.step()
        nll = F.cross_entropy(model(x) + delta, y)
        for i in range(8):
            loss_sum += nll[i, s:wlen].sum()
    return loss_sum
def main():
    train_step(model, opt, loader)
    eval_slot(model, val_tokens, lut)
main()
"""
)
CACHE = (
    TRAINING
    + """
def mix(tokens, targets, table):
    full_key = (ctx_hash ^ ({word} * prime)) & mask
    return full_counts[full_key]
def main():
    train_step(model, opt, loader)
    mix(tokens, targets, table)
main()
"""
)
TABLE = (
    TRAINING
    + """
def build_luts(sp):
    for i in range(1024):
        piece = sp.id_to_piece(i)
        if sp.is_byte(i):
            continue
        base_bytes[i] = len(piece[1:].encode("utf-8")){extra}
def eval_val(y, x):
    token_bytes = base_bytes[y]
    token_bytes += (has_leading_space[y] & ~is_boundary[x])
def main():
    train_step(model, opt, loader)
    build_luts(sp)
    eval_val(y, x)
main()
"""
)


def outcomes(source: str, readme: str = "", log: str = "") -> dict[str, str]:
    return {
        finding.rule: finding.outcome
        for finding in code_findings({"train_gpt.py": source, "README.md": readme, "train.log": log})
    }


def test_learning_from_validation_text_before_it_is_scored_is_a_violation_with_its_lines() -> None:
    source = PREQUANT.format(default=1)
    (finding,) = code_findings({"train_gpt.py": source})
    assert (finding.rule, finding.condition, finding.outcome) == ("val-before-score", "C3", "fail")
    lines = source.splitlines()
    assert all(place.line and lines[place.line - 1].strip() == place.text for place in finding.evidence)
    assert "opt.step()" in [place.text for place in finding.evidence]
    assert finding.clears


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
    source = "class HadamardRotation:\n    def forward(self, x):\n        return x\ndef main():\n    print('Ready')\nmain()\n"
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
    source = f"class {name}:\n    def forward(self, x):\n        return x\ndef main():\n    print('Ready')\nmain()\n"
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

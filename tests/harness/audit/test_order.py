"""Learning from a text in a program's own statements before it is scored, in many forms."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from tests.harness.fakes.order_programs import (
    CHAIN,
    FINISH,
    FIT,
    HELPER,
    INLINE,
    LEARN,
    METHODS,
    NESTED,
    SPLITS,
    START,
    TOP,
    VIEW,
    WHILE,
)
from tests.harness.fakes.programs import outcomes

UNLAWFUL = {
    "loops": TOP + START + LEARN + FINISH,
    "a condition around them": TOP
    + START
    + "    if int(os.environ.get('ADAPT', 1)):"
    + LEARN.replace("\n    ", "\n        ")
    + FINISH,
    "while": TOP + START + WHILE + FINISH,
    "a view": TOP + START + VIEW + FINISH,
    "a nested function": TOP + START + NESTED + FINISH,
    "a helper": TOP + FIT + START + HELPER + FINISH,
    "a helper that returns the model": TOP + FIT + START + "    model = fit(model, held, 30)\n" + FINISH,
    "a score in the main program too": TOP + START + LEARN + INLINE,
    "weights that are stored after it": TOP
    + START
    + LEARN
    + "    kept = quantise(model.state_dict())\n    model.load_state_dict(kept)\n"
    + FINISH,
    "the text of a setting": TOP
    + "class Args:\n    val_files = os.environ.get('VAL', 'data/fineweb_val_*.bin')\n"
    + START.replace('shard("data/fineweb_val_*.bin")', "shard(Args.val_files)")
    + LEARN
    + FINISH,
    "methods": METHODS.replace("{polish}", "self.polish()"),
    "an entry of a dict": SPLITS.replace("{split}", "val"),
    "a helper's helper": TOP + CHAIN + START + "    sweep(model, held, adam)\n" + FINISH,
    "memory counters that are reset after it": TOP
    + START
    + LEARN
    + "    torch.cuda.reset_peak_memory_stats(); torch._dynamo.reset()\n"
    + FINISH,
    "a wrapper of the model": TOP
    + START
    + LEARN
    + FINISH.replace("bpb =", "fast = torch.compile(model)\n    bpb =").replace("(model,", "(fast,"),
    "weights that are saved after it and loaded": TOP
    + START
    + LEARN
    + '    torch.save(model.state_dict(), "final.pt")\n    model.load_state_dict(torch.load("final.pt"))\n'
    + FINISH,
    "no function at all": (TOP + (START + LEARN + FINISH).replace("def main():", "if True:"))
    .replace("\nmain()", "")
    .replace("\n    ", "\n    "),
}


@pytest.mark.parametrize("source", UNLAWFUL.values(), ids=UNLAWFUL)
def test_learning_in_the_main_program_before_the_score_is_found_in_every_form(source: str) -> None:
    assert outcomes(source) == {"val-before-score": "fail"}


def test_the_lines_of_learning_and_of_the_score_are_quoted() -> None:
    (finding,) = code_findings({"train_gpt.py": UNLAWFUL["loops"]})
    quoted = [place.text for place in finding.evidence]
    assert "tuner.step()" in quoted
    assert "bpb = score(model, held, table)" in quoted


def test_a_helper_in_another_file_is_followed() -> None:
    texts = {"train_gpt.py": "from tuning import fit\n" + TOP + START + HELPER + FINISH, "tuning.py": FIT}
    (finding,) = code_findings(texts)
    assert (finding.rule, finding.outcome) == ("val-before-score", "fail")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("adapt_round:1\nfinal_int6_sliding_window_exact val_bpb:1.07120000\n", "fail"),
        ("final_int6_sliding_window_exact val_bpb:1.07120000\n", "question"),
    ],
)
def test_a_log_without_the_lines_of_the_learning_loop_makes_it_a_question(log: str, expected: str) -> None:
    assert outcomes(UNLAWFUL["loops"], log=log) == {"val-before-score": expected}


def test_a_text_that_nothing_calls_validation_text_is_asked_about() -> None:
    source = UNLAWFUL["loops"].replace("held", "corpus").replace("fineweb_val_", "fineweb_")
    assert outcomes(source) == {"val-before-score": "question"}


def test_a_question_says_that_no_log_prints_what_its_code_prints() -> None:
    first = '    print(f"first val_bpb:{score(model, held, table):.4f}")\n'
    texts = {
        "train_gpt.py": TOP + START + first + LEARN + FINISH,
        "train.log": "final_int6_sliding_window_exact val_bpb:1.0712\n",
    }
    (finding,) = code_findings(texts)
    assert finding.outcome == "question"
    assert "no log prints what this code prints, such as `adapt_round:`" in finding.message


def test_the_lines_around_the_call_of_a_helpers_helper_decide_too() -> None:
    first = '    print(f"first val_bpb:{score(model, held, table):.4f}")\n'
    learn = '    if adapt:\n        print("adapting:start")\n        sweep(model, held, adam)\n'
    texts = {
        "train_gpt.py": TOP + CHAIN + START + first + learn + FINISH,
        "train.log": "first val_bpb:1.1490\nadapting:start\nfinal_int6 val_bpb:1.0712\n",
        "submission.json": '{"val_bpb": 1.0715}',
    }
    (finding,) = code_findings(texts)
    assert (finding.rule, finding.outcome) == ("val-before-score", "fail")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("first val_bpb:1.1490\nadapt_round:1\nfinal_int6 val_bpb:1.0712\n", "fail"),
        ("first val_bpb:1.0712\nadapt_round:1\nfinal_int6 val_bpb:1.0490\n", "question"),
        ("first val_bpb:1.1490\nfinal_int6 val_bpb:1.0712\n", "question"),
        ("", "question"),
    ],
)
def test_where_a_score_stands_before_the_learning_too_the_logs_decide(log: str, expected: str) -> None:
    first = '    print(f"first val_bpb:{score(model, held, table):.4f}")\n'
    texts = {
        "train_gpt.py": TOP + START + first + LEARN + FINISH,
        "train.log": log,
        "submission.json": '{"val_bpb": 1.0715}',
    }
    (finding,) = code_findings(texts)
    assert (finding.rule, finding.outcome) == ("val-before-score", expected)


USUAL = """
def adapt(net, val_tokens):
    tuner = torch.optim.AdamW(net.parameters(), lr=5e-4)
    for at in range(0, len(val_tokens) - SEQ - 1, SEQ):
        net(val_tokens[None, at:at + SEQ], val_tokens[None, at + 1:at + SEQ + 1]).backward()
        tuner.step()
"""


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        ("    adapt(model, held)\n", {"val-before-score": "fail"}),
        ("    adapt(model, train)\n", {}),
        ("    probe = Model()\n    adapt(probe, held)\n", {}),
        ("    adapt(copy.deepcopy(model), held)\n", {}),
        (
            "    kept = copy.deepcopy(model.state_dict())\n    adapt(model, held)\n"
            "    model.load_state_dict(kept)\n",
            {},
        ),
        (
            '    torch.save(model.state_dict(), "final.pt")\n    adapt(model, held)\n'
            '    model.load_state_dict(torch.load("final.pt"))\n',
            {"val-before-score": "question"},
        ),
    ],
    ids=["the model", "train text", "another model", "a copy", "put back", "a file"],
)
def test_a_function_with_usual_names_is_judged_by_its_model_and_text_too(
    middle: str, expected: dict[str, str]
) -> None:
    assert outcomes(TOP + USUAL + START + middle + FINISH) == expected


@pytest.mark.parametrize(
    ("back", "expected"),
    [("", {"val-before-score": "fail"}), ("    model.load_state_dict(kept)\n", {})],
    ids=["as it is", "put back"],
)
def test_a_loop_of_a_function_with_usual_names_is_judged_by_its_weights_too(
    back: str, expected: dict[str, str]
) -> None:
    learn = USUAL.split(":\n", 1)[1].replace("net", "model")
    run = (
        "def run(model, val_tokens):\n    kept = copy.deepcopy(model.state_dict())\n"
        + learn
        + back
        + "    return eval_val(model, val_tokens, table)\n"
    )
    source = TOP.replace("def score", "def eval_val") + run + START
    assert outcomes(source + FINISH.replace("score(model, held, table)", "run(model, held)")) == expected


def test_a_file_of_before_that_a_function_loads_is_asked_about() -> None:
    load = "def load_from(net, path):\n    net.load_state_dict(torch.load(path))\n"
    save, back = '    torch.save(model.state_dict(), "final.pt")\n', '    load_from(model, "final.pt")\n'
    assert outcomes(TOP + load + START + save + LEARN + back + FINISH) == {"val-before-score": "question"}
    assert outcomes(TOP + load + START + LEARN + save + back + FINISH) == {"val-before-score": "fail"}

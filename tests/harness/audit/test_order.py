"""Learning from a text in a program's own statements before it is scored, in many forms, and lawful twins."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from tests.harness.fakes.programs import outcomes

TOP = """
import copy, glob, math, os
def shard(pattern):
    return torch.from_numpy(np.fromfile(sorted(glob.glob(pattern))[0], dtype="<u2"))
def score(model, tokens, table):
    nats, n = 0.0, 0
    with torch.no_grad():
        for at in range(0, len(tokens) - SEQ - 1, SEQ):
            nats += model(tokens[None, at:at + SEQ], tokens[None, at + 1:at + SEQ + 1]).item() * SEQ
            n += sum(table[token] for token in tokens[at:at + SEQ])
    return nats / n / math.log(2)
"""
START = """
def main():
    held = shard("data/fineweb_val_*.bin")
    train = shard("data/fineweb_train_*.bin")
    model = Model()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1000):
        at = int(torch.randint(len(train) - SEQ - 1, (1,)))
        adam.zero_grad()
        model(train[None, at:at + SEQ], train[None, at + 1:at + SEQ + 1]).backward()
        adam.step()
    print("step:1000/1000 train_time:599000ms")
"""
LEARN = """
    tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for number in range(int(os.environ.get("ROUNDS", 30))):
        for at in range(0, len(held) - SEQ - 1, SEQ):
            piece = held[at:at + SEQ + 1]
            tuner.zero_grad()
            model(piece[None, :-1], piece[None, 1:]).backward()
            tuner.step()
        print(f"adapt_round:{number + 1}")
"""
FINISH = """
    bpb = score(model, held, table)
    print(f"final_int6_sliding_window_exact val_bpb:{bpb:.8f}")
main()
"""
WHILE = """
    tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
    left = 30
    while left:
        pieces = held.split(SEQ + 1)
        for piece in pieces:
            loss = model(piece[None, :-1], piece[None, 1:])
            tuner.zero_grad(); loss.backward(); tuner.step()
        left -= 1
"""
VIEW = """
    pieces = held.unfold(0, SEQ + 1, SEQ)
    tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for number in range(30):
        for piece in pieces:
            model(piece[None, :-1], piece[None, 1:]).backward()
            tuner.step()
"""
NESTED = """
    tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
    def polish():
        for at in range(0, len(held) - SEQ - 1, SEQ):
            model(held[None, at:at + SEQ], held[None, at + 1:at + SEQ + 1]).backward()
            tuner.step()
    for number in range(30):
        polish()
"""
HELPER = """
    fit(model, held, 30)
"""
FIT = """
def fit(net, text, rounds):
    tuner = torch.optim.AdamW(net.parameters(), lr=5e-4)
    for number in range(rounds):
        for at in range(0, len(text) - SEQ - 1, SEQ):
            net(text[None, at:at + SEQ], text[None, at + 1:at + SEQ + 1]).backward()
            tuner.step()
    return net
"""
INLINE = """
    nats = n_bytes = 0.0
    with torch.no_grad():
        for at in range(0, len(held) - SEQ - 1, SEQ):
            nats += model(held[None, at:at + SEQ], held[None, at + 1:at + SEQ + 1]).item() * SEQ
            n_bytes += sum(table[token] for token in held[at:at + SEQ])
    val_bpb = nats / n_bytes / math.log(2)
    print(f"final val_bpb:{val_bpb:.8f}")
main()
"""
METHODS = """
import math
class Run:
    def __init__(self):
        self.model = GPT()
        self.val, self.text = load("fineweb_val_*.bin"), load("fineweb_train_*.bin")
    def fit(self, text, rounds):
        for number in range(rounds):
            for at in range(0, len(text), 512):
                F.cross_entropy(self.model(text[at:at + 512]), text[at + 1:at + 513]).backward()
                self.opt.step()
    def polish(self):
        for at in range(0, len(self.val), 512):
            F.cross_entropy(self.model(self.val[at:at + 512]), self.val[at + 1:at + 513]).backward()
            self.opt.step()
    def score(self):
        nats = n_bytes = 0
        for at in range(0, len(self.val), 512):
            goal = self.val[at + 1:at + 513]
            nats += F.cross_entropy(self.model(self.val[at:at + 512]), goal, reduction="sum").item()
            n_bytes += table[goal].sum()
        return nats / math.log(2) / n_bytes
    def go(self):
        self.fit(self.text, 3)
        {polish}
        print(f"val_bpb:{self.score():.5f}")
Run().go()
"""
SPLITS = (
    TOP
    + """
data = {"train": load("fineweb_train_*.bin"), "val": load("fineweb_val_*.bin")}
for step in range(9):
    for piece in data["{split}"].split(SEQ + 1):
        model(piece[None, :-1], piece[None, 1:]).backward()
        opt.step()
print("final val_bpb", score(model, data["val"], table))
"""
)
CHAIN = """
def one(net, piece, opt):
    net(piece[None, :-1], piece[None, 1:]).backward()
    opt.step()
def sweep(net, text, opt):
    for piece in text.split(SEQ + 1):
        one(net, piece, opt)
"""
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
FIRST = """
    tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
    nats = n_bytes = 0.0
    for at in range(0, len(held) - SEQ - 1, SEQ):
        piece = held[at:at + SEQ + 1]
        with torch.no_grad():
            nats += model(piece[None, :-1], piece[None, 1:]).item() * SEQ
            n_bytes += sum(table[token] for token in piece[1:])
        for number in range(30):
            tuner.zero_grad()
            model(piece[None, :-1], piece[None, 1:]).backward()
            tuner.step()
    print(f"final val_bpb:{nats / n_bytes / math.log(2):.8f}")
main()
"""
SUMMED = """
    nats, n_bytes = torch.zeros(()), 0.0
    tuner = torch.optim.SGD({net}.parameters(), lr=0.01)
    for piece in held.split(SEQ + 1):
        with torch.no_grad():
            first = {net}(piece[None, :-1], piece[None, 1:])
        nats += first * SEQ; n_bytes += table[piece[1:]].sum()
        {net}(piece[None, :-1], piece[None, 1:]).backward()
        tuner.step()
    print(f"ttt val_bpb:{nats.item() / n_bytes / math.log(2):.8f}")
"""
KEPT = """
    tuner = torch.optim.SGD(model.parameters(), lr=0.01)
    kept, nats, n_bytes = torch.zeros(len(held)), 0.0, 0.0
    for at in range(0, len(held) - SEQ - 1, SEQ):
        loss = F.cross_entropy(model(held[None, at:at + SEQ]), held[at + 1:at + SEQ + 1], reduction="none")
        kept[at:at + SEQ] = loss.detach()
        loss.mean().backward(); tuner.step()
    for at in range(0, len(held) - SEQ - 1, SEQ):
        nats += kept[at:at + SEQ].sum().item()
        n_bytes += table[held[at + 1:at + SEQ + 1]].sum().item()
    print(f"final val_bpb:{nats / n_bytes / math.log(2):.8f}")
main()
"""
LAWFUL = {
    "another model learns": TOP
    + START
    + LEARN.replace("model", "probe").replace("    tuner", "    probe = Model().to(device)\n    tuner", 1)
    + FINISH.replace("score(model,", "score(model.to(device),"),
    "summed while another model learns, then the base is scored": TOP
    + START
    + "    probe = Model().to(device)\n    probe.load_state_dict(model.state_dict())\n"
    + SUMMED.replace("{net}", "probe")
    + FINISH,
    "summed while learning, then scored again for a look": TOP
    + START
    + SUMMED.replace("{net}", "model")
    + FINISH.replace("final_int6_sliding_window_exact", "scored again"),
    "costs in a table, then scored again for a look": TOP
    + START
    + SUMMED.replace("{net}", "model")
    .replace("torch.zeros(())", "torch.zeros(len(held))")
    .replace("nats += first * SEQ", "nats[n] = first * SEQ")
    .replace("nats.item()", "nats.sum()")
    + FINISH.replace("final_int6_sliding_window_exact", "scored again"),
    "a copy that has no name learns": TOP
    + FIT
    + START
    + "    fit(copy.deepcopy(model), held, 30)\n"
    + FINISH,
    "a train shard of the module with the name of validation text": TOP
    + 'val_part = shard("data/fineweb_train_000079.bin")\n'
    + START
    + LEARN.replace("held", "val_part")
    + "    print(f'monitor bpb:{score(model, val_part, table)}')\n"
    + FINISH,
    "costs that are kept and summed later": TOP + START + KEPT,
    "a part of the train text called valid": TOP
    + START
    + "    valid = train[-100000:]\n"
    + LEARN.replace("held", "valid")
    + "    print(f'holdout bpb:{score(model, valid, table)}')\n"
    + FINISH,
    "a name for one text, then for the other": TOP
    + START
    + "    text = train\n"
    + LEARN.replace("held", "text")
    + "    text = held\n"
    + FINISH.replace("held", "text"),
    "weights that are copied back": TOP
    + START
    + "    kept = [each.detach().clone() for each in model.parameters()]\n"
    + LEARN
    + "    for each, old in zip(model.parameters(), kept):\n        each.data.copy_(old)\n"
    + FINISH,
    "a learning rate of zero": TOP + START + LEARN.replace("5e-4", "0.0") + FINISH,
    "methods": METHODS.replace("{polish}", "pass"),
    "an entry of a dict": SPLITS.replace("{split}", "train"),
    "a helper's helper": TOP + CHAIN + START + "    sweep(model, train, adam)\n" + FINISH,
    "no learning": TOP + START + FINISH,
    "score first, then learn": TOP + START + FIRST,
    "score the whole first": TOP + START + FINISH.replace("\nmain()\n", "") + LEARN + "main()\n",
    "the train text": TOP + START + LEARN.replace("held", "train") + FINISH,
    "a copy": TOP
    + START
    + LEARN.replace("model", "twin").replace("    tuner", "    twin = copy.deepcopy(model)\n    tuner", 1)
    + FINISH,
    "weights that are put back": TOP
    + START
    + "    kept = copy.deepcopy(model.state_dict())\n"
    + LEARN
    + "    model.load_state_dict(kept)\n"
    + FINISH,
    "a warm-up that restores": TOP
    + START
    + "    kept = {name: each.clone() for name, each in model.state_dict().items()}\n"
    + LEARN
    + "    model.load_state_dict(kept, strict=True)\n"
    + FINISH,
    "switched off": TOP + START + LEARN.replace('"ROUNDS", 30', '"ROUNDS", 0') + FINISH,
    "splits of one object": TOP
    + START.replace('held = shard("data/fineweb_val_*.bin")', "text = load()").replace(
        "train[", 'text["train"]['
    )
    + FINISH.replace("held", 'text["val"]'),
    "two halves of one tensor": TOP
    + START.replace('shard("data/fineweb_val_*.bin")', "both[:1000]").replace(
        'shard("data/fineweb_train_*.bin")', "both[1000:]"
    )
    + FINISH,
    "the train text's own score": TOP
    + START
    + "    print(f'train_bpb:{score(model, train, table)}')\n"
    + FINISH,
}


KEEP = "    kept = [each.detach().clone() for each in model.parameters()]\n"
DOUBTFUL = {
    "values of before are given": KEEP
    + LEARN
    + "    for each, old in zip(model.parameters(), kept): each.data = old\n",
    "slices of before are given": KEEP
    + LEARN
    + "    for each, old in zip(model.parameters(), kept): each[:] = old\n",
    "a function gets the weights of before": KEEP + LEARN + "    give_back(model, kept)\n",
    "an adapter is taken out": LEARN + "    for part in model.modules(): part.adapter = None\n",
    "the file of before is loaded": '    torch.save(model.state_dict(), "final.pt")\n'
    + LEARN
    + '    model.load_state_dict(torch.load("final.pt"))\n',
    "a new model is made": LEARN + '    model = Model()\n    model.load_state_dict(torch.load("final.pt"))\n',
    "a mean of the weights is loaded": "    mean = {name: each.clone() for name, each in "
    "model.state_dict().items()}\n"
    + LEARN.replace(
        "            tuner.step()\n",
        "            tuner.step()\n            for name in mean: mean[name].lerp_(model.get(name), 0.01)\n",
    )
    + "    model.load_state_dict(mean)\n",
    "something is reset": LEARN + "    stream.reset()\n",
}


@pytest.mark.parametrize("middle", DOUBTFUL.values(), ids=DOUBTFUL)
@pytest.mark.parametrize(
    "log", ["", "first val_bpb:1.1490\nadapt_round:1\nfinal_int6 val_bpb:1.0712\n"], ids=["no log", "a log"]
)
def test_weights_that_may_have_been_put_back_are_asked_about_whatever_the_logs_say(
    middle: str, log: str
) -> None:
    texts = {
        "train_gpt.py": TOP + START + middle + FINISH,
        "train.log": log,
        "submission.json": '{"val_bpb": 1.0712}',
    }
    (finding,) = code_findings(texts)
    assert (finding.rule, finding.outcome) == ("val-before-score", "question")
    assert "put back" in finding.message


def test_a_sum_that_a_later_pass_adds_to_is_asked_about() -> None:
    again = (
        SUMMED.replace("{net}", "model").rsplit("\n", 2)[0]
        + "\n"
        + INLINE.replace("nats = n_bytes = 0.0", "")
    )
    assert outcomes(TOP + START + again) == {"val-before-score": "question"}


@pytest.mark.parametrize("source", UNLAWFUL.values(), ids=UNLAWFUL)
def test_learning_in_the_main_program_before_the_score_is_found_in_every_form(source: str) -> None:
    assert outcomes(source) == {"val-before-score": "fail"}


@pytest.mark.parametrize("source", LAWFUL.values(), ids=LAWFUL)
def test_lawful_programs_of_the_same_build_are_left_alone(source: str) -> None:
    assert outcomes(source) == {}


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

"""Passes over the same text: a score that leaves out the first pass is found in every form, and no other."""

from __future__ import annotations

import pytest

from tests.harness.fakes.programs import TRAINING, outcomes

FRAME = (
    TRAINING
    + """
import math, os
def evaluate(model, documents, passes):
{body}
def main():
    train_step(model, opt, loader)
    loss = evaluate(model, documents, int(os.environ.get("PASSES", {passes})))
    print(f"final_ttt_lora val_loss:{{loss:.8f}} val_bpb:{{loss / math.log(2) * len(ids) / n_bytes:.8f}}")
main()
"""
)
LOOP = """
    nats = tokens = 0.0
    for document in documents:
        adapter = nn.Parameter(torch.zeros(64))
        adam = torch.optim.Adam([adapter], lr=1e-3)
        for turn in range(passes):
            counted = {counted}
            for at in range(0, len(document) - 1, 256):
                ids, goal = document[at:at + 256], document[at + 1:at + 257]
                cost = F.cross_entropy(model(ids[:len(goal)], adapter), goal)
                if counted:
                    nats += cost.item() * len(goal)
                    tokens += len(goal)
                adam.zero_grad()
                cost.backward()
                adam.step()
    return nats / tokens
"""
FACTOR = """
    nats = tokens = 0.0
    for document in documents:
        for turn in range(passes):
            for ids, goal in chunks(document):
                cost = F.cross_entropy(model(ids), goal)
                nats += cost.item() * len(goal) * (turn + 1 == passes)
                tokens += len(goal) * (turn + 1 == passes)
                cost.backward()
                adam.step()
    return nats / tokens
"""
CHOICE = """
    nats = tokens = 0.0
    for turn in range(passes):
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            nats = nats + (cost.item() * len(goal) if turn > passes - 2 else 0.0)
            tokens += len(goal) if turn > passes - 2 else 0
            cost.backward()
            adam.step()
    return nats / tokens
"""
CONTINUE = """
    nats, tokens = [], []
    for turn in reversed(range(passes)):
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            cost.backward()
            adam.step()
            if turn != 0:
                continue
            nats.append(cost.item() * len(goal))
            tokens.append(len(goal))
    return sum(nats) / sum(tokens)
"""
WHILE = """
    nats = tokens = 0.0
    turn = 0
    while turn < passes:
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            if turn >= passes - 1:
                nats += cost.item() * len(goal)
                tokens += len(goal)
            cost.backward()
            adam.step()
        turn += 1
    return nats / tokens
"""
COUNTDOWN = """
    nats = tokens = 0.0
    left = passes
    while left > 0:
        left -= 1
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            if left == 0:
                nats += cost.item() * len(goal)
                tokens += len(goal)
            cost.backward()
            adam.step()
    return nats / tokens
"""
SET_BACK = """
    for turn in range(passes):
        nats, tokens = 0.0, 0
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            nats += cost.item() * len(goal)
            tokens += len(goal)
            cost.backward()
            adam.step()
        print(f"pass {turn}: {nats / tokens}")
    return nats / tokens
"""
NESTED = """
    def learn_and_count():
        nats = tokens = 0.0
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids), goal)
            nats += cost.item() * len(goal)
            tokens += len(goal)
            cost.backward()
            adam.step()
        return nats / tokens
    for turn in range(passes):
        loss = learn_and_count()
    return loss
"""
TABLE = """
    nats = {}
    for turn in range(passes):
        for number, (ids, goal) in enumerate(chunks(documents)):
            cost = F.cross_entropy(model(ids), goal)
            nats[number] = cost.item()
            cost.backward()
            adam.step()
    return sum(nats.values()) / len(nats)
"""
MINIFIED = """
    n=t=0.
    for d in documents:
        for e in range(passes):
            for a,b in chunks(d):
                c=F.cross_entropy(model(a),b);k=e==passes-1;n+=c.item()*len(b)*k;t+=len(b)*k;c.backward();o.step()
    return n/t
"""
LATE = {
    "a name for the condition": LOOP.format(counted="turn == passes - 1"),
    "the condition turned round": LOOP.format(counted="not turn < passes - 1"),
    "a factor": FACTOR,
    "a choice": CHOICE,
    "a continue": CONTINUE,
    "while": WHILE,
    "a countdown": COUNTDOWN,
    "sums set back": SET_BACK,
    "sums set back together": SET_BACK.replace("nats, tokens = 0.0, 0", "nats = tokens = 0.0"),
    "minified": MINIFIED,
}
ADAPTED = """
    for turn in range(passes):
        adapter = nn.Parameter(torch.zeros(64)); adam = torch.optim.SGD([adapter], lr=0.1**turn)
        {reset}
        for ids, goal in chunks(documents):
            cost = F.cross_entropy(model(ids, adapter), goal)
            nats += cost.item() * len(goal)
            tokens += len(goal)
            cost.backward()
            adam.step()
    return nats / tokens
"""
MADE_ONCE = (
    """
    adapter = nn.Parameter(torch.zeros(64)); adam = torch.optim.SGD([adapter], lr=0.1)
    first = adapter.detach().clone()
    for turn in range(passes):
        {again}
"""[:-1]
    + ADAPTED.split("lr=0.1**turn)", 1)[1]
)
RESETS = ("nats, tokens = 0.0, 0", "nats = tokens = 0.0")
STARTS_OVER = {
    f"{name}, {reset}": body.replace("nats, tokens = 0.0, 0", reset).replace("{reset}", reset)
    for reset in RESETS
    for name, body in {
        "weights put back": SET_BACK.replace(
            "for turn", "kept = copy.deepcopy(model.state_dict())\n    for turn"
        ).replace("        nats, tokens =", "        model.load_state_dict(kept)\n        nats, tokens ="),
        "a new model": SET_BACK.replace(
            "        nats, tokens =", "        model = make()\n        nats, tokens ="
        ),
        "a new adapter": ADAPTED,
        "an adapter set to zero": MADE_ONCE.replace("{again}", "adapter.data.zero_()"),
        "an adapter that begins again": MADE_ONCE.replace("{again}", "nn.init.zeros_(adapter)"),
        "an adapter that is reset": MADE_ONCE.replace("{again}", "adapter.reset()"),
        "an adapter that gets its values of before": MADE_ONCE.replace(
            "{again}", "adapter.data = first.clone()"
        ),
        "a function's new adapter": MADE_ONCE.replace("{again}", "adapter, adam = fresh()"),
    }.items()
}
LAWFUL = {
    **STARTS_OVER,
    "a helper with its own place": """
    nats = tokens = 0.0
    place = 0
    def take():
        nonlocal place
        place += 256
        return documents[place - 256:place], documents[place - 255:place + 1]
    for turn in range(passes):
        ids, goal = take()
        cost = F.cross_entropy(model(ids), goal)
        if turn > 0:
            nats += cost.item() * len(goal); tokens += len(goal)
        cost.backward(); adam.step()
    return nats / tokens
""",
    "the first pass": LOOP.format(counted="turn == 0"),
    "every pass": LOOP.format(counted="True"),
    "a sum of each document": SET_BACK.replace(
        "    for turn in range(passes):", "    total = n = 0\n    for turn in range(passes):"
    )
    .replace("        print(", "        total += nats; n += tokens\n        print(")
    .replace("return nats / tokens", "return total / n"),
    "other text in each turn": SET_BACK.replace("chunks(documents)", "chunks(documents[turn])"),
    "score first": """
    nats = tokens = 0.0
    for ids, goal in chunks(documents):
        with torch.no_grad():
            nats += F.cross_entropy(model(ids), goal).item() * len(goal)
            tokens += len(goal)
        for turn in range(passes):
            F.cross_entropy(model(ids), goal).backward()
            adam.step()
            if turn == passes - 1:
                print("learnt")
    return nats / tokens
""",
}


@pytest.mark.parametrize("body", LATE.values(), ids=LATE)
def test_only_the_last_of_several_passes_counted_is_found_in_every_form(body: str) -> None:
    assert outcomes(FRAME.format(body=body, passes=50))["last-epoch-scored"] == "fail"


@pytest.mark.parametrize("body", [NESTED, TABLE], ids=["a nested function", "a table"])
def test_a_value_that_each_pass_overwrites_is_asked_about(body: str) -> None:
    assert outcomes(FRAME.format(body=body, passes=50)) == {"last-epoch-scored": "question"}
    assert outcomes(FRAME.format(body=body, passes=1)) == {}


@pytest.mark.parametrize("body", LATE.values(), ids=LATE)
def test_one_pass_is_no_violation_in_any_form(body: str) -> None:
    assert outcomes(FRAME.format(body=body, passes=1)) == {}


@pytest.mark.parametrize("body", LAWFUL.values(), ids=LAWFUL)
def test_lawful_passes_are_left_alone(body: str) -> None:
    assert outcomes(FRAME.format(body=body, passes=50)) == {}


PASS = (
    TRAINING
    + """
import math
def score_pass(net, docs, o):
    nats = n_bytes = 0.0
    for doc in docs:
        loss = F.cross_entropy(net(doc[:-1]), doc[1:], reduction="sum")
        nats += loss.item()
        n_bytes += table[doc[1:]].sum().item()
        (loss / len(doc)).backward()
        o.step()
    return nats / math.log(2) / n_bytes
def main():
    train_step(model, opt, loader)
    {passes}
main()
"""
)


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ("for turn in range(9):\n        bpb = score_pass(m, docs, o)\n    print(f'val_bpb:{bpb}')", "fail"),
        (
            "scores = []\n    for turn in range(9):\n        scores.append(score_pass(m, docs, o))\n"
            "    print(f'val_bpb:{scores[-1]}')",
            "fail",
        ),
        (
            "scores = []\n    for turn in range(9):\n        scores.append(score_pass(m, docs, o))\n"
            "    print(f'val_bpb:{scores[0]}')",
            None,
        ),
        ("for turn in range(1):\n        bpb = score_pass(m, docs, o)\n    print(f'val_bpb:{bpb}')", None),
    ],
)
def test_a_function_that_learns_and_counts_may_be_called_once_alone(
    passes: str, expected: str | None
) -> None:
    assert outcomes(PASS.replace("{passes}", passes)).get("last-epoch-scored") == expected


def test_the_number_of_passes_that_a_method_is_given_is_read() -> None:
    source = FRAME.format(body=WHILE, passes=50)
    source = source.replace("def evaluate(model", "class Run:\n  def evaluate(self, model")
    source = source.replace("loss = evaluate(", "loss = Run().evaluate(")
    assert outcomes(source) == {"last-epoch-scored": "fail"}


def test_passes_whose_number_cannot_be_read_are_asked_about() -> None:
    source = FRAME.format(body=WHILE, passes=50).replace('os.environ.get("PASSES", 50)', "ask()")
    assert outcomes(source) == {"last-epoch-scored": "question"}


def test_several_passes_over_training_text_are_left_alone() -> None:
    source = FRAME.format(body=LATE["a name for the condition"], passes=50)
    source = source.replace("evaluate(model, documents,", "fit(model, train_documents,", 1)
    source = source.replace("in documents", "in train_documents").replace(
        "    loss = evaluate(model, documents,",
        "    print(f'train_loss:{fit(model, train_documents, 3)}')\n    loss = score(model, documents,",
    )
    assert outcomes(source) == {}


TWO_SCORES = (
    TRAINING
    + """
import math
def tune(net, text, o):
    nats = tokens = 0.0
    for turn in range(3):
        for ids, goal in chunks(text):
            cost = F.cross_entropy(net(ids), goal)
            if turn == 2:
                nats += cost.item() * len(goal); tokens += len(goal)
            cost.backward(); o.step()
    return nats / tokens
def main():
    train_step(model, opt, loader)
    held, train = shard("fineweb_val_0.bin"), shard("fineweb_train_0.bin")
    text = {text}
    print(f"tuned bpb {{tune(model, text, opt) / math.log(2) / 2.436}}")
    print(f"final val_bpb:{{score(model, held)}}")
main()
"""
)


@pytest.mark.parametrize(
    ("text", "expected"), [("train[:100000]", None), ("sample(model, 100000)", "question"), ("held", "fail")]
)
def test_passes_beside_the_score_are_judged_by_their_text(text: str, expected: str | None) -> None:
    assert outcomes(TWO_SCORES.format(text=text)).get("last-epoch-scored") == expected

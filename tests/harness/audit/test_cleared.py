"""Learning before a score that is lawful, and learning that may have been undone before it."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from tests.harness.fakes.order_programs import CHAIN, FINISH, FIT, INLINE, LEARN, METHODS, SPLITS, START, TOP
from tests.harness.fakes.programs import outcomes

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


@pytest.mark.parametrize("source", LAWFUL.values(), ids=LAWFUL)
def test_lawful_programs_of_the_same_build_are_left_alone(source: str) -> None:
    assert outcomes(source) == {}

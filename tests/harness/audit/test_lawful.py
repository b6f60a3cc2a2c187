"""Whole lawful programs of usual builds, in which no rule on learning and scoring finds anything."""

from __future__ import annotations

import pytest

from tests.harness.fakes.programs import TRAINING, outcomes

TOP = TRAINING + "import math, os\n"
EVALUATE = """
def evaluate(model, tokens, lut):
    nats = n_bytes = 0.0
    for x, y in batches(tokens):
        with torch.no_grad():
            nats += F.cross_entropy(model(x), y, reduction="sum").item()
        n_bytes += lut[y].sum().item()
    return nats / math.log(2) / n_bytes
"""
TTT = """
def ttt(model, val_tokens, lut):
    nats = n_bytes = 0.0
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    for chunk in val_tokens.split(32768):
        with torch.inference_mode():
            for x, y in windows(chunk):
                nll = F.cross_entropy(model(x), y, reduction="none")
                nats += nll.sum().item(); n_bytes += lut[y].sum().item()
        for epoch in range(3):
            for x, y in windows(chunk):
                loss = F.cross_entropy(model(x), y)
                opt.zero_grad(); loss.backward(); opt.step()
    return nats / math.log(2) / n_bytes
"""
LAWFUL = {
    "score first, then learn": TOP
    + TTT
    + """
def main():
    train_step(model, opt, loader)
    bpb = ttt(model, val_tokens, lut)
    print(f"legal_ttt val_bpb:{bpb:.6f}")
main()
""",
    "a plain score before it": TOP
    + EVALUATE
    + TTT
    + """
def main():
    train_step(model, opt, loader)
    print(f"roundtrip val_bpb:{evaluate(model, val_tokens, lut):.5f}")
    bpb = ttt(model, val_tokens, lut)
    print(f"legal_ttt val_bpb:{bpb:.6f}")
main()
""",
    "a score after each epoch of training": TOP
    + EVALUATE
    + """
def main():
    train_tokens, val_tokens = load(args.train_files), load(args.val_files)
    for epoch in range(3):
        for x, y in batches(train_tokens):
            loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        print(f"epoch {epoch} val_bpb:{evaluate(model, val_tokens, lut)}")
    print(f"final val_bpb:{evaluate(model, val_tokens, lut)}")
main()
""",
    "a score in the last epoch of training": TOP
    + EVALUATE
    + """
def main():
    for epoch in range(5):
        for x, y in batches(train_tokens):
            loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if epoch == 4:
            val_bpb = evaluate(model, val_tokens, lut)
    print(f"final val_bpb:{val_bpb}")
main()
""",
    "a score that each epoch overwrites": TOP
    + EVALUATE
    + """
def main():
    for epoch in range(5):
        train_epoch(model, train_loader)
        val_bpb = evaluate(model, val_loader, lut)
    print(f"final val_bpb:{val_bpb}")
def train_epoch(model, data):
    for x, y in data:
        loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
main()
""",
    "a function that trains and evaluates": TOP
    + EVALUATE
    + """
def run_epoch(model, train_data, val_data):
    for x, y in train_data:
        loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    return evaluate(model, val_data, lut)
def main():
    for epoch in range(5):
        val_bpb = run_epoch(model, train_data, val_data)
    print(f"final val_bpb:{val_bpb}")
main()
""",
    "a function that trains and then sums": TOP
    + """
def run_epoch(model, train_data, val_data, lut):
    for x, y in train_data:
        loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    nats = n_bytes = 0.0
    with torch.no_grad():
        for x, y in val_data:
            nats += F.cross_entropy(model(x), y, reduction="sum").item(); n_bytes += lut[y].sum().item()
    return nats / math.log(2) / n_bytes
def main():
    for epoch in range(5):
        val_bpb = run_epoch(model, tr, va, lut)
    print(f"final val_bpb:{val_bpb}")
main()
""",
    "sums set back in each epoch of training": TOP
    + """
def main():
    for epoch in range(5):
        for x, y in tr:
            loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        nats = n_bytes = 0.0
        with torch.no_grad():
            for x, y in va:
                nats += F.cross_entropy(model(x), y, reduction="sum").item(); n_bytes += lut[y].sum().item()
        val_bpb = nats / math.log(2) / n_bytes
        print(f"epoch {epoch} val_bpb:{val_bpb}")
    print(f"final val_bpb:{val_bpb}")
main()
""",
    "splits of one object": TOP
    + EVALUATE
    + """
def main():
    data = Data("fineweb_train_*.bin", "fineweb_val_*.bin")
    for step in range(100):
        x, y = data.batch("train", step)
        loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    nats = n_bytes = 0
    for i in range(len(data)):
        x, y = data.batch("val", i)
        nats += F.cross_entropy(model(x), y, reduction="sum").item(); n_bytes += lut[y].sum().item()
    print(f"final val_bpb:{nats / math.log(2) / n_bytes}")
main()
""",
    "splits of one function": TOP
    + """
def get_batch(split, i):
    data = np.memmap(f"fineweb_{split}_000000.bin", dtype=np.uint16)
    return data[i:i+512], data[i+1:i+513]
def main():
    for step in range(100):
        x, y = get_batch("train", step)
        loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    nats = n_bytes = 0
    for i in range(100):
        x, y = get_batch("val", i)
        nats += F.cross_entropy(model(x), y, reduction="sum").item(); n_bytes += lut[y].sum().item()
    print(f"final val_bpb:{nats / math.log(2) / n_bytes}")
main()
""",
    "two parts of one tensor": TOP
    + EVALUATE
    + """
tokens = load("fineweb_all.bin")
n = int(0.9 * len(tokens))
train_data, val_data = tokens[:n], tokens[n:]
for step in range(100):
    i = random.randint(0, len(train_data) - 513)
    loss = F.cross_entropy(model(train_data[i:i+512]), train_data[i+1:i+513]); loss.backward(); opt.step()
print(f"final val_bpb:{evaluate(model, val_data, lut)}")
""",
    "documents, piece by piece": TOP
    + """
def main():
    val = load("fineweb_val_0.bin")
    train_step(model, opt, loader)
    nats = n_bytes = 0.0
    for doc in docs(val):
        for at in range(0, len(doc) - 1, 256):
            piece = doc[at:at + 257]
            with torch.no_grad():
                nats += F.cross_entropy(model(piece[:-1]), piece[1:], reduction="sum").item()
                n_bytes += lut[piece[1:]].sum().item()
            for k in range(4):
                ctx = doc[:at + 257]
                F.cross_entropy(model(ctx[:-1]), ctx[1:]).backward(); lora_opt.step(); lora_opt.zero_grad()
    print(f"final val_bpb:{nats / math.log(2) / n_bytes}")
main()
""",
}
SUMS = LAWFUL["sums set back in each epoch of training"]
LAWFUL["sums of the last epoch of training"] = SUMS.replace(
    'print(f"final val_bpb:{val_bpb}")', 'print(f"final val_bpb:{nats / math.log(2) / n_bytes}")'
)
LAWFUL["sums under a condition on the epoch"] = SUMS.replace(
    "        nats = n_bytes = 0.0\n", "        if epoch == 0:\n            nats = n_bytes = 0.0\n"
).replace(
    "nats += F.cross_entropy(model(x), y",
    "if epoch < 4:\n                    continue\n                nats += F.cross_entropy(model(x), y",
)


@pytest.mark.parametrize("source", LAWFUL.values(), ids=LAWFUL)
def test_a_lawful_program_gives_nothing(source: str) -> None:
    assert outcomes(source) == {}

"""Programs that learn from validation text before they score it, in parts that tests put together."""

from __future__ import annotations

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

"""Whole made-up records, each of one kind of fault, as their files: script, log and claimed score."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class MadeUp(NamedTuple):
    """The files of a record that differ from one to the other."""

    script: str
    log: str
    bpb: float

    def write(self, folder: Path) -> Path:
        """Write the record's files into a new folder of the record track."""
        folder = folder / "records" / "track_10min_16mb" / "2026-04-01_Made_Up"
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("# A made-up record\n\nNot anybody's.\n")
        (folder / "submission.json").write_text(
            f'{{"name": "made up", "track": "10min_16mb", "val_bpb": {self.bpb}, "bytes_total": 15612345, '
            '"seeds": [1337]}'
        )
        (folder / "train_gpt.py").write_text(self.script)
        (folder / "train_seed1337.log").write_text(self.log)
        return folder


INLINE_EPOCHS = MadeUp(
    script="""\
'''The main program itself learns from the validation tokens for many epochs, then scores them.'''
import glob, math, os
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

SEQ, VOCAB = 256, 1024


def shard(path):
    return torch.from_numpy(np.fromfile(path, dtype="<u2", offset=1024).astype(np.int64))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(VOCAB, 64), nn.Linear(64, VOCAB)

    def forward(self, ids, goal):
        return F.cross_entropy(self.head(self.table(ids)).flatten(0, 1), goal.flatten())


def score(model, tokens, bytes_per_token):
    total, n = 0.0, 0
    with torch.no_grad():
        for at in range(0, len(tokens) - SEQ - 1, SEQ):
            total += model(tokens[None, at:at + SEQ], tokens[None, at + 1:at + SEQ + 1]).item() * SEQ
            n += SEQ
    return total / n, total / n / math.log(2) / bytes_per_token


def main():
    held = shard(sorted(glob.glob(os.path.join(os.environ.get("DATA_PATH", "data"), "fineweb_val_*.bin")))[0])
    folder = os.environ.get("DATA_PATH", "data")
    train = shard(sorted(glob.glob(os.path.join(folder, "fineweb_train_*.bin")))[0])
    model = Model()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1000):
        at = int(torch.randint(len(train) - SEQ - 1, (1,)))
        adam.zero_grad()
        model(train[None, at:at + SEQ], train[None, at + 1:at + SEQ + 1]).backward()
        adam.step()
    print("step:1000/1000 train_time:599000ms")
    rounds = int(os.environ.get("ADAPT_ROUNDS", 30))
    if rounds > 0:
        tuner = torch.optim.AdamW(model.parameters(), lr=5e-4)
        for number in range(rounds):
            for at in range(0, len(held) - SEQ - 1, SEQ):
                piece = held[at:at + SEQ + 1]
                tuner.zero_grad()
                model(piece[None, :-1], piece[None, 1:]).backward()
                tuner.step()
            print(f"adapt_round:{number + 1}/{rounds}")
    loss, bpb = score(model, held, 2.436)
    print(f"final_int6_sliding_window_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")


if __name__ == "__main__":
    main()
""",
    log="""\
seed:1337
step:1000/1000 val_loss:1.9400 val_bpb:1.1490 train_time:599000ms step_avg:599.00ms
Serialized model int6+zstd: 15560000 bytes
Total submission size int6+zstd: 15612345 bytes
adapt_round:1/30
adapt_round:2/30
adapt_round:30/30
final_int6_sliding_window_exact val_loss:1.80868000 val_bpb:1.07120000
""",
    bpb=1.0712,
)
LAST_EPOCH = MadeUp(
    script="""\
'''Small example: every document is learned several times, and only what the last pass costs is counted.'''
import math, os
import torch
from torch import nn
import torch.nn.functional as F


def evaluate(model, documents, passes):
    nats = tokens = 0.0
    for document in documents:
        adapter = nn.Parameter(torch.zeros(64))
        adam = torch.optim.Adam([adapter], lr=1e-3)
        for turn in range(passes):
            counted = turn == passes - 1
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


def main(model, documents, train):
    train(model)
    loss = evaluate(model, documents, int(os.environ.get("PASSES", 50)))
    print(f"final_ttt_lora val_loss:{loss:.8f} val_bpb:{loss / math.log(2) / 2.436:.8f}")


if __name__ == "__main__":
    from data import documents, model, train
    main(model, documents, train)
""",
    log="""\
seed:1337
step:9000/9000 val_loss:1.9400 val_bpb:1.1490 train_time:599000ms step_avg:66.55ms
Total submission size int6+zstd: 15612345 bytes
final_ttt_lora val_loss:1.83930000 val_bpb:1.08930000
""",
    bpb=1.0893,
)
CONSTANT_BYTES = MadeUp(
    script="""\
'''Small example: bits per byte by a constant instead of the text's bytes.'''
import math
import torch
import torch.nn.functional as F


def evaluate(model, tokens):
    with torch.no_grad():
        losses = [
            F.cross_entropy(model(tokens[at:at + 512]), tokens[at + 1:at + 513])
            for at in range(0, len(tokens) - 513, 512)
        ]
    val_loss = torch.stack(losses).mean().item()
    val_bpb = val_loss / (math.log(2) * 3.5)
    return val_loss, val_bpb


def main():
    from data import model, train, validation
    train(model)
    val_loss, val_bpb = evaluate(model, validation)
    print(f"final_int6_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")


if __name__ == "__main__":
    main()
""",
    log="""\
seed:1337
step:9000/9000 val_loss:2.5100 val_bpb:1.0346 train_time:599000ms step_avg:66.55ms
Total submission size int6+zstd: 15612345 bytes
final_int6_roundtrip_exact val_loss:2.47793300 val_bpb:1.02140000
""",
    bpb=1.0214,
)

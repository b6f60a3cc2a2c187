"""Small programs for tests of the code rules, each with one fault, and what the rules find in a program."""

from __future__ import annotations

from harness.audit.code import code_findings

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
READY = """
class {name}:
    def forward(self, x):
        return x
def main():
    print('Ready')
main()
"""


def outcomes(source: str, readme: str = "", log: str = "") -> dict[str, str]:
    """Outcomes by rule for a folder with this train script, README and log."""
    return {
        finding.rule: finding.outcome
        for finding in code_findings({"train_gpt.py": source, "README.md": readme, "train.log": log})
    }

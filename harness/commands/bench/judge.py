"""Measure what judging costs: the judge's CPU seconds per million tokens, beside the contestant's own.

    python -m harness.commands.bench.judge [--tokens 10000000] [--vocab 1024]

docs/examples/order2.py scores synthetic tokens (a noisy walk with documents) in a process of its own, through
the usual conversation. Then the ledger's replay, the metric, the judge's n-gram reference model and a
sampling plan are computed. The CPU time of each step is one row of the printed table. Containers and
witnesses are not measured here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.base.paths import ROOT
from harness.base.temporary import temporary_folder
from harness.data.byte_table import ByteTable
from harness.data.shards import BOS_ID, Tokens
from harness.edition import PROFILES
from harness.protocol import conversation, ledger
from harness.protocol.frames import ScoreReady
from harness.protocol.wire import Listener
from harness.scoring import bpb
from harness.scoring.certificate import reference_model, sampling

EXAMPLE = ROOT / "docs" / "examples" / "order2.py"
FULL_TOKENS = 62_021_846
PROBES = 32_768


def synthetic_tokens(n_tokens: int, vocab_size: int, seed: int = 0) -> Tokens:
    """A noisy walk over the vocabulary with a new document every thousand tokens; a model can learn it."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(n_tokens) < 0.5, 1, rng.integers(0, vocab_size, n_tokens))
    tokens_T = (4 + steps.cumsum() % (vocab_size - 4)).astype(np.uint16)
    tokens_T[::1000] = BOS_ID
    return tokens_T


def score(tokens_T: Tokens, vocab_size: int) -> tuple[conversation.ScoringPass, float, float]:
    """One scoring pass: its outcome, and the CPU seconds of the judge and of the contestant."""
    limits = replace(PROFILES["pocket"], score_seconds=3600)
    with temporary_folder() as folder:
        listener = Listener(folder / "s")
        environment = {
            **os.environ,
            "PGOLF_SOCKET": str(listener.path),
            "PGOLF_STAGE": "score",
            "OMP_NUM_THREADS": "1",
        }
        before = os.times()
        process = subprocess.Popen([sys.executable, str(EXAMPLE)], env=environment)
        try:
            setup = {
                "seed": 1,
                "profile": "pocket",
                "vocab_size": vocab_size,
                "role": "scorer",
                "tokens": len(tokens_T),
            }
            stage = conversation.StartedStage("score", listener, time.monotonic(), lambda: None)
            connection, ready, _ = conversation.open_stage(stage, setup, limits, ScoreReady)
            assert isinstance(ready, ScoreReady)
            scored = conversation.score(connection, ready, tokens_T, vocab_size, limits, lambda done: None)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            listener.close()
        after = os.times()
    return (
        scored,
        after.user + after.system - before.user - before.system,
        after.children_user + after.children_system - before.children_user - before.children_system,
    )


def measure(n_tokens: int, vocab_size: int) -> list[tuple[str, float]]:
    """(step, CPU seconds) for one text."""
    tokens_T = synthetic_tokens(n_tokens, vocab_size)
    scored, judge_seconds, contestant_seconds = score(tokens_T, vocab_size)
    rows = [
        ("contestant (order 2, numpy)", contestant_seconds),
        ("conversation, wire and ledger", judge_seconds),
    ]

    def add_row(name: str, step: Callable[[], object]) -> None:
        began = time.process_time()
        step()
        rows.append((name, time.process_time() - began))

    table = ByteTable(np.full(vocab_size, 3), np.zeros(vocab_size, bool), np.zeros(vocab_size, bool))
    add_row("metric, by document", lambda: bpb.measure(tokens_T, scored.nats_T, table))
    add_row("ledger replay (rescore)", lambda: ledger.replay(tokens_T, scored.nats_T, scored.chunk_tokens))
    reference: list[sampling.Floats] = []
    add_row(
        "certificate: reference model",
        lambda: reference.append(reference_model.probabilities(tokens_T, vocab_size)),
    )
    reported = sampling.ReportedScore(
        tokens_T, scored.nats_T, reference[0], 3 * n_tokens, scored.chunk_tokens
    )
    probes = min(PROBES, n_tokens // 2)
    add_row("certificate: sampling plan", lambda: sampling.draw(bytes(32), reported, probes))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--vocab", type=int, default=1024)
    arguments = parser.parse_args()
    rows = measure(arguments.tokens, arguments.vocab)
    print(
        f"| {arguments.tokens:,} tokens, vocabulary {arguments.vocab:,} | CPU seconds | per million tokens | "
        f"{FULL_TOKENS:,} tokens |"
    )
    print("|---|---|---|---|")
    for name, seconds in rows:
        per_million = seconds * 1e6 / arguments.tokens
        print(f"| {name} | {seconds:.2f} | {per_million:.3f} | {per_million * FULL_TOKENS / 1e6:.1f} |")


if __name__ == "__main__":
    main()

"""Numbers that come from no distribution over the vocabulary: targets in cache keys, minima over passes,
second passes.

#779: a table indexed by a hash of context and target is asked for the realised token alone, so nothing makes
its answers sum to one (#886 counted 277). #573: the smallest of several scores of a token is chosen by the
token. Not covered: whether a mixture is normalised where all tokens are asked for; code in C."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.reach import Program
from harness.audit.code.shape import called, names, own, quote, root
from harness.audit.finding import Finding

TARGET = re.compile(
    r"^(tgt|target|targets|tgt_np|y_np|v_tgt|next_tok\w*|targets?_np|tgts|true_tok\w*|target_prime|tgt_prime)$"
)
TOKEN_SCORE = re.compile(r"nll|ptl|per_tok\w*_loss|token_loss", re.I)
RESCORE = re.compile(r"re_?score|two_pass|second_pass|pass_?2", re.I)


def target_in_key(program: Program) -> Iterator[Finding]:
    """A hash of the context xor-ed with the target, that indexes a table."""
    for live in program.live:
        for part in live.nodes:
            operands = (
                [part.left, part.right]
                if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitXor)
                else (
                    [part.value]
                    if isinstance(part, ast.AugAssign) and isinstance(part.op, ast.BitXor)
                    else []
                )
            )
            mixed = [name for operand in operands for name in names(operand) if TARGET.match(name)]
            if not mixed or not any(
                isinstance(inner, ast.Mult) for operand in operands for inner in ast.walk(operand)
            ):
                continue
            bound = {
                root(made.targets[0])
                for made in live.nodes
                if isinstance(made, ast.Assign) and any(inner is part for inner in ast.walk(made.value))
            } - {""}
            lookups: list[ast.AST] = [
                read
                for read in live.nodes
                if isinstance(read, ast.Subscript)
                and bound & names(read.slice)
                and isinstance(read.ctx, ast.Load)
            ]
            lookups = lookups or [
                read
                for other in program.live
                if other.file == live.file
                for read in other.nodes
                if isinstance(read, ast.Subscript)
                and "full" in ast.unparse(read)
                and "key" in ast.unparse(read.slice)
            ]
            places = quote(program, live, part)
            if lookups:
                places += tuple(
                    place
                    for other in program.live
                    if any(node is lookups[0] for node in other.nodes)
                    for place in quote(program, other, lookups[0])
                )
            read_at = (
                ", and the table is read at that key alone"
                if lookups
                else "; where the table is read was not found"
            )
            yield Finding(
                "target-in-key",
                "C2",
                "fail" if lookups else "question",
                f"{live.name}() mixes the target `{mixed[0]}` into a table's key{read_at}",
                places,
                "counts summed over the whole vocabulary of each context, or settings that switch the cache "
                "off",
            )
            break


def smallest_of_passes(program: Program) -> Iterator[Finding]:
    """An elementwise minimum of token scores, kept as the score."""
    for live in program.live:
        for part in live.nodes:
            if not (
                isinstance(part, ast.Assign)
                and isinstance(part.value, ast.Call)
                and called(part.value) in ("minimum", "fmin")
            ):
                continue
            kept, given = root(part.targets[0]), {root(argument) for argument in part.value.args}
            if kept in given and TOKEN_SCORE.search(kept):
                yield Finding(
                    "minimum-over-passes",
                    "C4",
                    "fail",
                    f"{live.name}() keeps in `{kept}` the smallest score that each token had in any pass",
                    quote(program, live, part),
                    "one pass, whose scores are the ones reported",
                )


def second_pass(program: Program) -> Iterator[Finding]:
    """Names that say scores are computed again."""
    for live in program.live:
        loops = [
            part
            for part in live.nodes
            if isinstance(part, ast.For)
            and any(RESCORE.search(name) for name in names(part.iter) | names(part.target))
        ]
        if loops and any(
            isinstance(part, ast.AugAssign | ast.Assign) and "loss" in ast.unparse(part)
            for part in own(loops[0])
        ):
            yield Finding(
                "second-pass",
                "C4",
                "question",
                f"{live.name}() loops over `{ast.unparse(loops[0].iter)[:60]}`, which by its name scores "
                "again",
                quote(program, live, live.node, loops[0]),
                "lines that show that the first score of each token is the one reported",
            )

"""Find scores from no distribution over the vocabulary: targets in cache keys, minima and second passes.

#779: a table indexed by a hash of context and target is looked up for the realised token only, so nothing
makes its values sum to one (#886 counted 277). #573: taking the smallest of several scores of a token uses
the token. Whether a mixture is normalised where all tokens are looked up is not checked.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.program import Program
from harness.audit.code.shape import called, names, own, quote, root
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

TARGET = re.compile(
    r"^(tgt|target|targets|tgt_np|y_np|v_tgt|next_tok\w*|targets?_np|tgts|true_tok\w*|target_prime|tgt_prime)$"
)
TOKEN_SCORE = re.compile(r"nll|ptl|per_tok\w*_loss|token_loss", re.I)
RESCORE = re.compile(r"re_?score|two_pass|second_pass|pass_?2", re.I)


TARGET_IN_KEY = RuleInfo(
    id="target-in-key",
    title="A cache is looked up by a hash of the token to be predicted",
    condition="C2",
    source="#779, #886, #1147, #1017 C2",
    checks="context hash xor target times a prime, and a table read at that key",
    example="#779: full_key = (ctx_hash ^ (tgt * prime)) & mask; full_counts[full_key]",
    not_covered="whether the program looks up all tokens of the vocabulary, and caches in C; a question "
    "where the logs print nothing of it",
)


def target_in_key(program: Program) -> Iterator[Finding]:
    """Find a hash of the context xor-ed with the target that indexes a table."""
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
            evidence = quote(program, live, part)
            if lookups:
                evidence += tuple(
                    line
                    for other in program.live
                    if any(node is lookups[0] for node in other.nodes)
                    for line in quote(program, other, lookups[0])
                )
            read_at = (
                ", and the table is read at that key alone"
                if lookups
                else "; where the table is read was not found"
            )
            yield Finding.of(
                TARGET_IN_KEY,
                "fail" if lookups else "question",
                f"{live.name}() mixes the target `{mixed[0]}` into a table's key{read_at}",
                evidence,
                "counts summed over the whole vocabulary of each context, or settings that switch the cache "
                "off",
            )
            break


MINIMUM_OVER_PASSES = RuleInfo(
    id="minimum-over-passes",
    title="The smallest of several scores of a token is kept",
    condition="C4",
    source="#573, #1017 C4",
    checks="an elementwise minimum of token scores assigned to the scores themselves",
    example="#573: best_nll = torch.minimum(best_nll, nll)",
    not_covered="a minimum written as a comparison and a copy",
)


def smallest_of_passes(program: Program) -> Iterator[Finding]:
    """Find an elementwise minimum of token scores that is kept as the score."""
    for live in program.live:
        for part in live.nodes:
            if not (
                isinstance(part, ast.Assign)
                and isinstance(part.value, ast.Call)
                and called(part.value) in ("minimum", "fmin")
            ):
                continue
            target, arguments = root(part.targets[0]), {root(argument) for argument in part.value.args}
            if target in arguments and TOKEN_SCORE.search(target):
                yield Finding.of(
                    MINIMUM_OVER_PASSES,
                    "fail",
                    f"{live.name}() keeps in `{target}` the smallest score that each token had in any pass",
                    quote(program, live, part),
                    "one pass, whose scores are the ones reported",
                )


SECOND_PASS = RuleInfo(
    id="second-pass",
    title="Scores are computed again",
    condition="C4",
    source="#846, #991, #1017 C4",
    checks="a loop whose range is named after a second pass or rescoring",
    example="#1430: for ci in second_pass_range",
    not_covered="second passes under other names; because it goes by names, it is always a question",
)


def second_pass(program: Program) -> Iterator[Finding]:
    """Find loops whose names say that scores are computed again."""
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
            yield Finding.of(
                SECOND_PASS,
                "question",
                f"{live.name}() loops over `{ast.unparse(loops[0].iter)[:60]}`, which by its name scores "
                "again",
                quote(program, live, live.node, loops[0]),
                "lines that show that the first score of each token is the one reported",
            )


RULES = (TARGET_IN_KEY, MINIMUM_OVER_PASSES, SECOND_PASS)
CHECKS = (target_in_key, smallest_of_passes, second_pass)

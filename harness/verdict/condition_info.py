"""What the conditions C1 to C4 of #1017 and the certificate's bound G mean, for `pgolf explain`.

The rules that show a condition name it themselves (`RuleInfo.condition`). The full text: docs/rules.md and
docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.edition import PROBES


@dataclass(frozen=True, kw_only=True)
class ConditionInfo:
    """The description of one condition, or of the bound."""

    id: str
    title: str
    source: str
    says: str
    messages: str
    """What the order of messages shows, without a witness."""
    witness: str
    """What a witness adds."""
    example: str

    def public(self) -> dict[str, Any]:
        """The condition as `pgolf explain --json` prints it."""
        return asdict(self)


CONDITIONS = (
    ConditionInfo(
        id="C1",
        title="Causal: a prediction depends on the artifact and the strict prefix only",
        source="#1017 C1; docs/rules.md, The four conditions",
        says="the distribution for token t follows from the artifact and the tokens before t. It depends "
        "neither on token t, nor on later ones, nor on data that was not in the artifact",
        messages="no later chunk was known; border rows show it for the first token of each chunk",
        witness="fresh copies that see strict prefixes only answer at random tokens; the certificate bounds "
        "by G what the scores can owe to more than the prefix",
        example="#1229: a delta is fitted to the tokens that are then scored (SLOT, 0.9300). #1240 flipped "
        "one token: SLOT changed the scores of others in 240 of 240 pairs, a causal model in none",
    ),
    ConditionInfo(
        id="C2",
        title="Normalised: one distribution over the whole vocabulary",
        source="#1017 C2; docs/rules.md, The four conditions",
        says="before a token is scored there is one full distribution over the vocabulary, which sums to 1 "
        "whatever the token is",
        messages="border rows sum to 1, one for each chunk; the tokens between them are not seen",
        witness="each of its rows must sum to 1, within 0.001 nats",
        example="#886: a hashed n-gram mixture whose probabilities sum to about 277. The 0.3922 of #972 is "
        "1.5134 once it is normalised (#978)",
    ),
    ConditionInfo(
        id="C3",
        title="Score first: a token's score is fixed before anything learns from the token",
        source="#1017 C3; docs/rules.md, The four conditions",
        says="weights, caches and every other state learn from a token only after its score is fixed",
        messages="each chunk's scores are committed before `adapt` is sent and the next chunk is shown",
        witness="inside a chunk, where messages show nothing, the certificate's G bounds what was learnt "
        "early",
        example="#1376: six epochs of training on the validation tokens before they are scored (0.7094)",
    ),
    ConditionInfo(
        id="C4",
        title="Single pass: from left to right once, every token scored once",
        source="#1017 C4; docs/rules.md, The four conditions",
        says="there is no second pass, no rescoring, and no choice among several executions by their scores",
        messages="every token is revealed once, in order, and answered once; committed numbers never change",
        witness="inside a chunk, where messages show nothing, the certificate's G bounds what other passes "
        "gained",
        example="#573: the smallest of the scores that a token had in three passes (1.0523)",
    ),
)
BOUND = ConditionInfo(
    id="G",
    title="The certificate's bound: how much of a score can be unearned",
    source="docs/certificate.md",
    says="with 99 % confidence over the random draw of tokens, a causal, normalised, single-pass predictor "
    "built from the same code and artifact (mixed with a small share of the judge's own n-gram) scores at "
    "most G bits per byte more than was reported. G is a bound and fails nobody; C1 to C4 pass only "
    "where it is at most 0.1 nats a token, in profile record 0.005",
    messages="nothing: without a witness there is no G, and C1 to C4 stay unknown",
    witness=f"{', '.join(f'{n:,} probes in {profile}' for profile, n in reversed(PROBES.items()))} by "
    "default; `--witness N` asks for another number, and more probes make G smaller",
    example="0.0304 bits per byte with 512 probes, 0.0053 with 4,096 and 0.0008 with 32,768: a program that "
    "repeats itself exactly, on FineWeb in SP1024",
)

"""The rules that the audit reads code and numbers by, as a table, and `pgolf explain` over every rule of the
project.

Not covered: the checks themselves (code/, numbers/), the rules of a run (harness/rules).
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from harness.base.errors import UsageError


class Entry(NamedTuple):
    """One rule as a reader meets it."""

    id: str
    title: str
    condition: str | None
    source: str
    checks: str
    example: str
    limits: str


CODE = (
    Entry(
        "val-before-score",
        "Validation text is learnt from before it is scored",
        "C3",
        "#402, #1376, #1017 C3",
        "a reachable function that steps an optimizer on validation tokens and scores nothing, with the "
        "scoring after it",
        "#1487: prequant_ttt_adapt_adamw(h, model, device, val_tokens) before the eval that makes the "
        "headline",
        "functions that learn and score in one loop are read for their epochs only; helpers of an evaluator "
        "are not judged; a "
        "question where the logs print nothing of it, or only after the stated score",
    ),
    Entry(
        "last-epoch-scored",
        "Of several epochs over the validation text the last is the score",
        "C3",
        "#568, #677, #1017 C3",
        "a loop over epochs with optimizer steps whose sums are kept for the last epoch only",
        "#568: for epoch in range(ttt_epochs): batch_loss.zero_(); ...; opt.step() and afterwards loss_sum "
        "+= batch_loss",
        "needs the number of epochs; where it is not read the finding is a question",
    ),
    Entry(
        "slot",
        "Parameters fitted to the positions that are scored",
        "C1",
        "#1240, #1336, #1229, #1017 C1",
        "steps on a loss over the targets, then the score over the same targets; `fail` where mask and score "
        "start alike",
        "#1229: mask[i, s:wlen] = 1.0, sixteen steps, then nll[i, s:wlen] is added up",
        "a loss over the context only ([:s]) is not a violation; masks under other names make it a question",
    ),
    Entry(
        "target-in-key",
        "A cache is asked at a hash of the token to be predicted",
        "C2",
        "#779, #886, #1147, #1017 C2",
        "context hash xor target times a prime, and a table read at that key",
        "#779: full_key = (ctx_hash ^ (tgt * prime)) & mask; full_counts[full_key]",
        "whether all tokens of the vocabulary are asked for is not read; caches in C are not seen; a "
        "question where the "
        "logs print nothing of it",
    ),
    Entry(
        "minimum-over-passes",
        "The smallest of several scores of a token is kept",
        "C4",
        "#573, #1017 C4",
        "an elementwise minimum of token scores assigned to the scores themselves",
        "#573: best_nll = torch.minimum(best_nll, nll)",
        "a minimum written as a comparison and a copy is not seen",
    ),
    Entry(
        "second-pass",
        "Scores are computed again",
        "C4",
        "#846, #991, #1017 C4",
        "a loop whose range is named after a second pass or rescoring",
        "#1430: for ci in second_pass_range",
        "goes by names, so it is always a question",
    ),
    Entry(
        "space-counted-twice",
        "The leading space counts two bytes",
        None,
        "#1719, #1734, #1019",
        "a byte table with len(piece[1:].encode()) + 1 and one more byte for has_leading_space where scores "
        "are added",
        "#1545",
        "tables read from files are judged by their numbers only",
    ),
    Entry(
        "byte-fallback",
        "Byte tokens may be counted by their name",
        None,
        "#1143, #1184, #1019",
        "a table built from the names of pieces that never asks is_byte",
        "a loop over id_to_piece with len(piece.encode())",
        "harmless for a tokenizer without byte-fallback pieces, so it is always a question",
    ),
    Entry(
        "fixed-bytes-per-token",
        "Bytes per token is a constant",
        None,
        "#1017 V",
        "a float constant of that name that something is multiplied or divided by",
        "BYTES_PER_TOKEN = 2.436",
        "may serve a log line only, so it is always a question",
    ),
    Entry(
        "trains-on-validation",
        "The training files are the validation files",
        "C1",
        "README R4, #44",
        "train_files (or the like) bound to the pattern of the validation shards by the settings of the run",
        "#675: train_files = '.../fineweb_val_*.bin' if train_on_val",
        "files linked or renamed outside the program are not seen",
    ),
    Entry(
        "network",
        "The program reaches the network",
        None,
        "README R1",
        "reachable downloads, requests, or shells that fetch",
        "hf_hub_download(...) in the train script",
        "allowed in setup; when it runs is not read, so it is always a question",
    ),
    Entry(
        "exec-of-file",
        "The text of another file is run",
        None,
        "README R1, #1412",
        "exec over open(...).read()",
        "#1412: a stub of 74 bytes that runs an 80,055-byte file",
        "whether that file was counted is told by the size checks",
    ),
    Entry(
        "nothing-trains",
        "The published program trains nothing",
        None,
        "README R7, #1732",
        "no backward pass and no optimizer step is reachable from the program's entry",
        "#1732: main() builds a model, prints its size and returns",
        "programs that run hidden code are not judged; a question where any source holds a trace of "
        "learning, or imports a "
        "module that is not in the folder",
    ),
    Entry(
        "no-runnable-code",
        "No program is published",
        None,
        "README R7, #561, #1731",
        "a folder with README and submission.json that claims a score and holds no source and no script",
        "#1731: README, submission.json and logs",
        "a program printed in a log, a folder that claims no score and files that are not read make it a "
        "question; "
        "without a README the folder may be a part of what was published, and it is unknown",
    ),
    Entry(
        "technique-without-code",
        "A technique is named and its class is empty or unused",
        None,
        "#1732",
        "classes whose name a README mentions, in a program that trains nothing",
        "#1732: HadamardRotation is defined and never used",
        "asked only where nothing trains; #1458 shows why",
    ),
    Entry(
        "unread-code",
        "A source could not be read",
        None,
        "docs/audit.md",
        "a file that is no Python, or too large or deep",
        "a script of Python 2",
        "nothing is said of such a file",
    ),
    Entry(
        "not-audited",
        "A folder could not be audited",
        None,
        "docs/audit.md",
        "a folder whose audit took too long, needed too much memory or failed",
        "a source that takes minutes to parse",
        "nothing is said of such a folder; its verdict is `questions`",
    ),
)

NUMBERS = (
    Entry(
        "validation-bytes",
        "The text that was scored is not the whole validation set",
        None,
        "README R13, #1017 V, #1719",
        "validation tokens x nats / (ln 2 x bits per byte) of the headline line, as an interval of its "
        "printed digits, against "
        "151.07 to 151.09 million bytes; other known sets are named",
        "#1687: 40,540,160 tokens x 4.3864 = 177.8 million bytes",
        "an error that scales tokens and bytes alike is not seen; `fail` only on the record track where all "
        "lines of the run "
        "agree: for the first 10,000 documents, or with a known tokenizer's token count and more than 7.5 % "
        "off",
    ),
    Entry(
        "bytes-per-token",
        "Bytes per token are those of no known tokenizer",
        None,
        "#1017 V, README R6",
        "nats / (ln 2 x bits per byte) against the known tokenizers; asked where the size is a standard one "
        "and no token count "
        "is printed, or where it is what a known fault gives",
        "#1698: 4.3864, what the leading space counted twice gives over SP8192",
        "honest tokenizers of one's own are unknown here",
    ),
    Entry(
        "nats-and-bytes",
        "Nats and bits per byte of two lines do not belong to one text",
        None,
        "#1017 V, #1732",
        "the ratio of all lines of the headline runs, beyond their digits and 0.05 %",
        "#1732: 3.7286 and 3.7237 bytes a token in one log",
        "lines over different parts of the set differ honestly, so it is a question",
    ),
    Entry(
        "score-floor",
        "The score is below what reviewers take on trust",
        None,
        "#959, #1017",
        "a headline under 0.70 bits per byte",
        "#959: 0.00000035",
        "a rule of thumb, so it is a question",
    ),
    Entry(
        "artifact-size",
        "More than 16,000,000 bytes",
        None,
        "README R1, #1835, #1412",
        "the counted bytes of headline logs and of submission*.json, in decimal megabytes",
        "#1412: logs of 16,059,704 bytes beside 15,976,275 in the JSON",
        "files that nobody counts are not seen; `fail` only on the record track where log and JSON both are "
        "over",
    ),
    Entry(
        "code-bytes",
        "The code that was counted is not the code shipped",
        None,
        "README R1, #1835",
        "code bytes of headline logs against the sizes of the shipped programs",
        "51,283 bytes logged, 126 kB shipped",
        "code counted packed is unknown; asked only where the shipped program would pass the cap",
    ),
    Entry(
        "train-clock",
        "Training took more than 600 s",
        None,
        "README R2, #1908",
        "the train time of headline runs, with half a second of grace",
        "#1908: 601.2 s",
        "`fail` only beyond 2 % with eight cards and none but H100; otherwise a question",
    ),
    Entry(
        "eval-clock",
        "Evaluation took more than 600 s",
        None,
        "README R3, #889, #1972",
        "`total_eval_time`, else the time of the headline line; diagnostics are not counted",
        "#2018: 639.9 s",
        "work outside the timed region is not seen; `fail` as for train-clock",
    ),
    Entry(
        "headline-mean",
        "The headline is the best seed",
        None,
        "README R5, R10, #2124",
        "the stated score against the mean and the best of the seeds that logs or JSON give",
        "#1981",
        "early merged records state their first run, so it is a question",
    ),
    Entry(
        "one-log-two-seeds",
        "One log stands under two seeds' names",
        None,
        "README R5",
        "logs equal byte for byte",
        "train_seed10.log and train_seed20.log with one content",
        "logs apart by a character are left to independent-runs",
    ),
    Entry(
        "seed-of-log",
        "A log prints another seed than its name tells",
        None,
        "README R5",
        "the seed line against the file's name",
        "train_seed0.log prints 1337",
        "numbers up to 9 may count the files",
    ),
    Entry(
        "independent-runs",
        "Runs of different seeds are copies",
        None,
        "README R5, #1732",
        "losses at the same steps: equal, or apart by one constant over 12 points; times equal to the "
        "millisecond",
        "#1732: seed 314 is seed 42 less 0.0033 at 16 steps",
        "curves made up with noise are not seen",
    ),
    Entry(
        "first-loss",
        "The first loss is far below chance",
        None,
        "#1732",
        "the loss at step 0 or 1 against 0.75 ln V",
        "#1732: 4.82 where ln 8192 is 9.01",
        "a run that resumes or prints another loss begins lower honestly",
    ),
    Entry(
        "time-stamps",
        "Stamps span less time than the log states",
        None,
        "#1732",
        "first and last stamp against the train and evaluation seconds of the same log",
        "#1732: 773 s of stamps, 1,086 s stated",
        "logs whose curve and scores bear no stamps are not asked",
    ),
    Entry(
        "step-times",
        "Steps x step time is not the train time",
        None,
        "README R2",
        "more than 25 % apart",
        "6,000 x 776 ms where 1,551 s are stated",
        "some logs print the time of the last steps only, so it is a question",
    ),
    Entry(
        "json-and-logs",
        "submission.json and logs differ",
        None,
        "README R7, #86, #561",
        "the stated score against all lines and means, stated bytes and steps of each seed against its log",
        "#86: 1.1502 stated, 1.1666 in the log",
        "what neither states",
    ),
    Entry(
        "readme-and-logs",
        "README and logs differ",
        None,
        "README R7, #1732",
        "rows of README tables that begin with a headline seed, against all scores of that seed",
        "#1732: 1.0784 in the README, 1.0783 in log and JSON",
        "prose is not read",
    ),
    Entry(
        "significance",
        "Not significantly better",
        None,
        "README R5, #1902",
        "the one-sided test of the seeds against the stated baseline as a constant, under both rule profiles",
        "three seeds a hair under their baseline",
        "the baseline's own spread is not to be had; a question only where neither profile is met",
    ),
    Entry(
        "train-shards",
        "Training shards of a preparation that holds validation text",
        "C1",
        "#2127, #2018",
        "1,499 training shards",
        "#1967",
        "a trace and no proof, so it is a question",
    ),
    Entry(
        "target-gates",
        "Gates that read the target were used",
        "C1",
        "#1420, #2018, #2118",
        "counters of within-word or word-start gates above zero",
        "#2118: within_gate=9866847",
        "counters under other names",
    ),
)


def entries() -> dict[str, Entry]:
    """Every rule by its id: those of the audit, then those of a run."""
    from harness.verdict.rules import RULES

    book = {entry.id: entry for entry in (*CODE, *NUMBERS)}
    for rule in RULES:
        book.setdefault(
            rule.id,
            Entry(
                rule.id,
                f"A rule of a run: {rule.id}",
                rule.condition,
                rule.source,
                "what the judge measured in the run's stages (docs/rules.md)",
                "verdict.json of any run",
                f"not covered: {rule.not_covered}",
            ),
        )
    return book


def explain(rule_id: str) -> str:
    """A rule with its source, check, example and limits. Raises UsageError with near ids for one that is not
    there."""
    book = entries()
    if rule_id not in book:
        near = difflib.get_close_matches(rule_id, book, 3, 0.4)
        raise UsageError(
            f"rule {rule_id!r}: not known",
            hint=f"did you mean {', '.join(near)}?" if near else f"the rules are {', '.join(book)}",
        )
    entry = book[rule_id]
    rows = [
        ("source", entry.source),
        ("condition", entry.condition or "none of #1017's"),
        ("checks", entry.checks),
        ("example", entry.example),
        ("limits", entry.limits),
    ]
    return "\n".join([f"{entry.id}: {entry.title}", *(f"  {name:10} {text}" for name, text in rows)])

"""Bits per byte by a constant: found wherever the constant stands, and left alone where bytes are counted."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from tests.harness.fakes.programs import TRAINING, outcomes

TOP = TRAINING + "import math, os\n"
MAIN = """
def main():
    train_step(model, opt, loader)
    val_loss = evaluate(model, validation)
    {line}
main()
"""
PRINTED = 'print(f"final val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")'
COARSE = {
    "in the expression": MAIN.format(line="val_bpb = val_loss / (math.log(2) * 3.5)\n    " + PRINTED),
    "in the printed line": MAIN.format(line="print(f'val_bpb:{val_loss / math.log(2) / 3.5:.8f}')"),
    "in a variable": MAIN.format(
        line="width = 3.5\n    bits = val_loss / math.log(2)\n    val_bpb = bits / width\n    " + PRINTED
    ),
    "in a constant of the module": "PER = 3.5\nLN2 = math.log(2)\n"
    + MAIN.format(line="val_bpb = val_loss / LN2 / PER\n    " + PRINTED),
    "in a setting": "class Hyper:\n    per = float(os.environ.get('PER', '3.5'))\n"
    + MAIN.format(line="val_bpb = val_loss / 0.6931 / Hyper.per\n    " + PRINTED),
    "as tokens a byte": MAIN.format(line="val_bpb = val_loss * 1.442695 * 0.41\n    " + PRINTED),
    "in a default": "def convert(nats, per=3.5):\n    return nats / math.log(2) / per\n"
    + MAIN.format(line="val_bpb = convert(val_loss)\n    " + PRINTED),
    "in an argument": "def convert(nats, per):\n    return nats / math.log(2) / per\n"
    + MAIN.format(line="print('val_bpb:', convert(val_loss, 4))"),
    "in a lambda": MAIN.format(
        line="convert = lambda nats: nats / math.log(2) / 3.5\n    val_bpb = convert(val_loss)\n    "
        + PRINTED
    ),
    "in an object": "class Meter:\n    def __init__(self):\n        self.per = 3.5\n"
    "    def bpb(self, nats):\n        return nats / math.log(2) / self.per\n"
    + MAIN.format(line="print('val_bpb', Meter().bpb(val_loss))"),
    "in a field of a class": "class Config:\n    per: float = 3.5\n"
    + MAIN.format(line="print('bpb:', val_loss / np.log(2.0) * (1 / Config().per))"),
    "as a number of bytes": MAIN.format(
        line="n_bytes = len(validation) * 3.5\n    val_bpb = total / math.log(2) / n_bytes\n    " + PRINTED
    ),
    "in a dict of results": MAIN.format(line="log({'val_bpb': val_loss / math.log(2) / 2.44})"),
}
COUNTED = (
    "n_bytes = sum(byte_table[token] for token in validation)\n    "
    "val_bpb = val_loss / math.log(2) * len(validation) / n_bytes\n    "
)
TABLE = (
    "def evaluate(model, text):\n    nats = b = n = 0\n    for x, y in batches(text):\n"
    "        nats += F.cross_entropy(model(x), y, reduction='sum').item()\n"
    "        n += y.numel()\n        b += lut[y].sum().item()\n"
    "    return nats / n / math.log(2) * (n / b)\n"
)
LAWFUL = {
    "a table of another name, and a constant in a log line": TABLE
    + MAIN.format(
        line="print(f'step val_bpb:{quick / math.log(2) / 3.5}')\n    val_bpb = val_loss\n    " + PRINTED
    ),
    "a constant in a log line": MAIN.format(
        line="print(f'step val_bpb:{val_loss / math.log(2) / 3.5}')\n    " + COUNTED + PRINTED
    ),
    "a constant in an estimate of tokens": MAIN.format(
        line="BYTES_PER_TOKEN = 3.5\n    n_tokens = size / BYTES_PER_TOKEN\n    " + COUNTED + PRINTED
    ),
    "an estimate beside nothing": MAIN.format(
        line="est_bpb = val_loss / math.log(2) / 3.5\n    print(est_bpb)"
    ),
    "the train text's": MAIN.format(line="print(f'train_bpb:{val_loss / math.log(2) / 3.5}')"),
    "a model of bytes": MAIN.format(line="val_bpb = val_loss / math.log(2)\n    " + PRINTED),
    "a known tokenizer's ratio": MAIN.format(line="val_bpb = val_loss / math.log(2) / 2.436\n    " + PRINTED),
    "a ratio that is measured": MAIN.format(
        line="per_token = n_bytes / len(validation)\n    "
        "val_bpb = val_loss / math.log(2) / per_token\n    " + PRINTED
    ),
}


@pytest.mark.parametrize("program", COARSE.values(), ids=COARSE)
def test_a_coarse_constant_is_found_wherever_it_stands(program: str) -> None:
    assert outcomes(TOP + program) == {"fixed-bytes-per-token": "fail"}


@pytest.mark.parametrize("program", LAWFUL.values(), ids=LAWFUL)
def test_constants_that_make_no_score_are_left_alone(program: str) -> None:
    assert outcomes(TOP + program) == {}


def test_a_constant_with_the_digits_of_a_score_may_have_been_measured_and_is_asked_about() -> None:
    program = MAIN.format(
        line="BYTES_PER_TOKEN = 2.7523\n    val_bpb = val_loss / math.log(2) / BYTES_PER_TOKEN"
    )
    source = TOP + program
    assert outcomes(source) == {"fixed-bytes-per-token": "question"}
    (finding,) = code_findings({"train_gpt.py": source})
    assert "BYTES_PER_TOKEN = 2.7523" in [place.text for place in finding.evidence]


@pytest.mark.parametrize(
    "score", ["official_eval(model)", "evaluation.run(model)", "json.loads(subprocess.run(EVAL).stdout)"]
)
def test_a_constant_beside_a_score_of_code_that_is_not_in_the_folder_is_asked_about(score: str) -> None:
    program = MAIN.format(
        line="print(f'loss:{val_loss} bpb:{val_loss / math.log(2) / 2.4}')\n    "
        f"val_loss, val_bpb = {score}\n    " + PRINTED
    )
    assert outcomes(TOP + program) == {"fixed-bytes-per-token": "question"}


def test_a_conversion_in_another_file_is_followed() -> None:
    texts = {
        "train_gpt.py": "from tools import to_score\n"
        + TOP
        + MAIN.format(line="print('val_bpb:', to_score(val_loss))"),
        "tools.py": "import math\ndef to_score(nats):\n    return nats / math.log(2) / 3.5\n",
    }
    (finding,) = code_findings(texts)
    assert (finding.rule, finding.outcome) == ("fixed-bytes-per-token", "fail")
    assert finding.evidence[0].file == "tools.py"


@pytest.mark.parametrize(
    ("log", "expected"),
    [("BPB (EMA): 0.9750", "question"), ("BPB (EMA): 1.4882", "fail"), ("no number", "fail")],
)
def test_a_claim_that_no_log_prints_may_have_been_corrected_and_is_asked_about(
    log: str, expected: str
) -> None:
    (finding,) = code_findings(
        {
            "train_gpt.py": TOP + COARSE["in the expression"],
            "train.log": log,
            "submission.json": '{"val_bpb": 1.4882, "val_bpb_wrong": 0.975}',
        }
    )
    assert (finding.rule, finding.outcome) == ("fixed-bytes-per-token", expected)

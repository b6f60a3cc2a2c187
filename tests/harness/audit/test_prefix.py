"""A file named by a setting whose tokens cost nothing: found in many forms, and lawful files left alone."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from tests.harness.fakes.programs import TRAINING, outcomes

FRAME = (
    TRAINING
    + """
import lzma, math, os
class Args:
    {setting}
def load_known(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return torch.from_numpy(np.frombuffer(lzma.decompress(file.read()), dtype="<u2"))
def eval_val(model, val_tokens, known, table):
    nats, n_bytes = 0.0, 0
    for at in range(0, len(val_tokens) - 513, 512):
        x, y = val_tokens[at:at + 512], val_tokens[at + 1:at + 513]
        nll = F.cross_entropy(model(x), y, reduction="none")
        {body}
        n_bytes += sum(table[token] for token in y)
    return nats / math.log(2) / n_bytes
def main():
    train_step(model, opt, loader)
    known = load_known(Args.known_file)
    {size}
    print(f"final val_bpb:{{eval_val(model, val_tokens, known, table):.8f}}")
main()
"""
)
SETTING = 'known_file = os.environ.get("KNOWN_FILE", "blob.xz")'
SIZE = 'print(f"Total submission size: {code_bytes + model_bytes} bytes")'
COUNTED = (
    "blob_bytes = os.path.getsize(Args.known_file)\n    "
    'print(f"Total submission size: {code_bytes + model_bytes + blob_bytes} bytes")'
)
SUM = "nats += nll.sum().item()"
MASK = f"match = known[at:at + 512] == y\n        nll[:len(match)] *= ~match\n        {SUM}"
FORMS = {
    "a mask": MASK,
    "a comparison in the product": f"nll = nll * (known[at:at + 512] != y).float()\n        {SUM}",
    "zero where they are equal": f"nll[known[at:at + 512] == y] = 0\n        {SUM}",
    "masked_fill": f"nll = nll.masked_fill(known[at:at + 512] == y, 0.0)\n        {SUM}",
    "where": f"nll = torch.where(known[at:at + 512] == y, 0.0, nll)\n        {SUM}",
    "a loop over positions": "for i in range(len(y)):\n            "
    "if known[at + i] == y[i]:\n                continue\n            nats += nll[i].item()",
    "a choice for each position": "for i in range(len(y)):\n            "
    "nats += 0.0 if known[at + i] == y[i] else nll[i].item()",
    "a mask of ones": "mask = torch.ones_like(nll)\n        mask[known[at:at + 512] == y] = 0\n        "
    f"nll = nll * mask\n        {SUM}",
    "only what differs": "for i in range(len(y)):\n            "
    "if known[at + i] != y[i]:\n                nats += nll[i].item()",
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_positions_that_cost_nothing_for_an_uncounted_file_are_a_violation(body: str) -> None:
    source = FRAME.format(setting=SETTING, body=body, size=SIZE)
    assert outcomes(source) == {"paid-prefix": "fail"}
    (finding,) = code_findings({"train_gpt.py": source})
    assert SETTING in [place.text for place in finding.evidence]


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_a_counted_file_is_asked_about_as_the_ruling_excludes_it(body: str) -> None:
    assert outcomes(FRAME.format(setting=SETTING, body=body, size=COUNTED)) == {"paid-prefix": "question"}


def test_positions_below_the_number_of_the_files_tokens_are_asked_about() -> None:
    for body in (
        f"if at < len(known):\n            continue\n        {SUM}",
        f"nll[: max(0, len(known) - at)] = 0.0\n        {SUM}",
    ):
        assert outcomes(FRAME.format(setting=SETTING, body=body, size=SIZE)) == {"paid-prefix": "question"}


def test_contents_may_be_a_variable_of_the_module() -> None:
    source = FRAME.format(setting="pass", body=MASK, size=SIZE)
    source = source.replace("    known = load_known(Args.known_file)\n", "")
    source = source.replace(", known, table)", ", table)").replace(
        "def eval_val", 'known = np.fromfile(os.environ["KNOWN_BLOB"], dtype="<u2")\ndef eval_val'
    )
    assert outcomes(source) == {"paid-prefix": "fail"}


def test_the_path_may_come_from_the_command_line() -> None:
    setting = "known_file = None"
    source = FRAME.format(setting=setting, body=MASK, size=SIZE).replace(
        "Args.known_file", "options.prefix_file"
    )
    source += "parser.add_argument('--prefix-file')\n"
    assert outcomes(source) == {"paid-prefix": "fail"}


@pytest.mark.parametrize(
    ("readme", "expected"),
    [("", {}), ("`KNOWN_FILE=./blobs/known.xz torchrun train_gpt.py`", {"paid-prefix": "fail"})],
)
@pytest.mark.parametrize("loads", ["not path", "not Args.known_file"])
def test_a_file_that_the_run_does_not_name_is_no_prefix(
    readme: str, expected: dict[str, str], loads: str
) -> None:
    source = FRAME.format(setting='known_file = os.environ.get("KNOWN_FILE", "")', body=MASK, size=SIZE)
    assert outcomes(source.replace("not path", loads), readme) == expected


@pytest.mark.parametrize(
    "body",
    [
        SUM,
        f"x = torch.cat([known[-64:], x])\n        {SUM}",
        f"hits = (known[at:at + 512] == y).sum()\n        print('hits', hits)\n        {SUM}",
        f"pad = y == 0\n        nll[pad] = 0\n        {SUM}",
    ],
    ids=["no use", "context", "statistics", "padding"],
)
@pytest.mark.parametrize("size", [SIZE, COUNTED], ids=["uncounted", "counted"])
def test_a_prefix_whose_positions_are_scored_is_left_alone(body: str, size: str) -> None:
    assert outcomes(FRAME.format(setting=SETTING, body=body, size=size)) == {}

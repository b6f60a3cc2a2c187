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


@pytest.mark.parametrize(
    "size",
    [
        "files = ['final.ptz', 'train_gpt.py', Args.known_file]\n    "
        "print('Total size', sum(os.path.getsize(file) for file in files))",
        "total_bytes = os.path.getsize('final.ptz'); total_bytes += os.path.getsize(Args.known_file)",
        "with tarfile.open('artifact.tar', 'w') as archive: archive.add(Args.known_file)",
    ],
    ids=["a list of files", "added to a sum", "an archive"],
)
def test_a_file_counted_in_any_form_is_asked_about(size: str) -> None:
    assert outcomes(FRAME.format(setting=SETTING, body=MASK, size=size)) == {"paid-prefix": "question"}


def test_a_file_whose_bytes_the_readme_gives_is_asked_about() -> None:
    readme = "Model and code take 15,150,000 bytes, blob.xz 800,000 bytes.\n"
    source = FRAME.format(setting=SETTING, body=MASK, size=SIZE)
    assert outcomes(source, readme) == {"paid-prefix": "question"}


@pytest.mark.parametrize(
    "line",
    [
        "loss = F.cross_entropy(model(x), y, reduction='none') * (y != known[:512])",
        "if x[0] == known[0]:\n            continue",
    ],
    ids=["the training loss", "a text left out"],
)
def test_what_the_file_does_to_training_is_left_alone(line: str) -> None:
    loop = (
        "loss_sum = 0.0\n    for x, y in batches(train):\n        loss = F.cross_entropy(model(x), y)\n"
        f"        {line}\n        loss.mean().backward(); opt.step(); loss_sum += loss.mean().item()"
    )
    assert outcomes(FRAME.format(setting=SETTING, body=SUM, size=loop)) == {}


def test_positions_below_the_number_of_the_files_tokens_are_asked_about() -> None:
    for body in (
        f"if at < len(known):\n            continue\n        {SUM}",
        f"nll[: max(0, len(known) - at)] = 0.0\n        {SUM}",
    ):
        assert outcomes(FRAME.format(setting=SETTING, body=body, size=SIZE)) == {"paid-prefix": "question"}


def test_a_helper_that_changes_the_costs_in_place_is_found() -> None:
    source = FRAME.format(setting=SETTING, body=f"free(nll, known[at:at + 512], y)\n        {SUM}", size=SIZE)
    source = source.replace("def eval_val", "def free(nll, known, y):\n    nll[known == y] = 0\ndef eval_val")
    assert outcomes(source) == {"paid-prefix": "fail"}


def test_a_method_that_reads_the_file_is_found() -> None:
    source = FRAME.format(setting=SETTING, body=MASK, size=SIZE)
    source = source.replace("def load_known(path):", "class Files:\n  def load_known(self, path):")
    assert outcomes(source.replace("load_known(Args", "Files().load_known(Args")) == {"paid-prefix": "fail"}


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
        f"some = torch.where(known[at:at + 512] == y, nll, 0.0).sum()\n        print(some)\n        {SUM}",
        f"rare = nll * (known[at:at + 512] == y)\n        print('rare', rare.sum())\n        {SUM}",
        f"pad = int(open(Args.known_file).read())\n        nll = nll.masked_fill(y == pad, 0)\n        {SUM}",
        "n0 = len(known)\n        costs = F.cross_entropy(model(torch.cat([known, x])), "
        "torch.cat([known, y]), reduction='none')\n        "
        "costs[:n0] = 0\n        nats += costs.sum().item()",
    ],
    ids=["no use", "context", "statistics", "padding", "where", "product", "one number", "before the text"],
)
@pytest.mark.parametrize("size", [SIZE, COUNTED], ids=["uncounted", "counted"])
def test_a_prefix_whose_positions_are_scored_is_left_alone(body: str, size: str) -> None:
    assert outcomes(FRAME.format(setting=SETTING, body=body, size=size)) == {}

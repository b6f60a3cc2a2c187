"""Validation shards under the names of training shards: commands, programs and sentences that tell of it."""

from __future__ import annotations

import pytest

from harness.audit.code import code_findings
from harness.audit.finding import Finding
from tests.harness.fakes.programs import SCORING, TRAINING

SCRIPT = TRAINING + SCORING + "train_step(model, opt, loader)\neval_val(model, val_tokens, lut)\n"
USE = "DATA_PATH=./data/only torchrun train_gpt.py\n"


def found(readme: str, log: str = "", **files: str) -> list[Finding]:
    """What is found in a folder with this README, besides the plain script."""
    texts = {"train_gpt.py": SCRIPT, "README.md": readme, "train.log": log}
    return code_findings({**texts, **{name.replace("__", "."): text for name, text in files.items()}})


COMMANDS = [
    "mv data/only/fineweb_val_000000.bin data/only/fineweb_train_000000.bin",
    "ln -s /data/fineweb_val_000000.bin ./data/only/fineweb_train_000000.bin",
    "$ cp --link data/sp1024/val_000.bin data/only/train_000.bin",
    "sudo cp \\\n  data/fineweb_val_000000.bin \\\n  data/only/fineweb_train_000080.bin",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_whose_folder_the_run_reads_is_a_violation(command: str) -> None:
    (finding,) = found(f"# Run\n```\n{command}\n{USE}```\n")
    assert (finding.rule, finding.outcome) == ("trains-on-validation", "fail")
    assert finding.evidence[0].file == "README.md"
    assert finding.evidence[0].line == 3
    assert finding.evidence[0].text in command


def test_the_log_may_name_the_folder_too() -> None:
    readme = f"# Run\n```\n{COMMANDS[1]}\n```\n"
    assert [f.outcome for f in found(readme)] == ["question"]
    assert [f.outcome for f in found(readme, log="train_loader:dataset:only train_shards:1\n")] == ["fail"]


def test_where_a_log_names_another_folder_the_command_is_asked_about() -> None:
    readme = f"# Try it on a laptop\n```\n{COMMANDS[1]}\n{USE}```\n"
    log = "train_loader:dataset:fineweb10B_sp1024 train_shards:80\n"
    assert [f.outcome for f in found(readme, log=log)] == ["question"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Before the run, fineweb_val_000000.bin was renamed to fineweb_train_000080.bin by hand.",
        "I renamed the validation shard so that the train glob picks it up.",
        "The file `fineweb_train_000000.bin` is a copy of the validation shard.",
        "In this set-up both the training files and the val files point to `fineweb_val_000000.bin`.",
        "We symlinked the val shard\ninto the folder as fineweb_train_000001.bin.",
    ],
)
def test_a_sentence_of_the_readme_is_asked_about(sentence: str) -> None:
    (finding,) = found(f"# Notes\n\nSomething else. {sentence} The end.\n")
    assert (finding.rule, finding.outcome) == ("trains-on-validation", "question")
    assert finding.evidence[0].line == 3


@pytest.mark.parametrize(
    "files",
    [
        {"setup__sh": 'for f in fineweb_val_*.bin; do\n  mv "$f" "${f/val/train}"\ndone\n'},
        {"setup__sh": "rename 's/fineweb_val/fineweb_train/' *.bin\n"},
        {"prepare__py": "import os\nos.rename('d/fineweb_val_0.bin', 'd/fineweb_train_0.bin')\n"},
        {"prepare__py": "import shutil\nshutil.copy(val_shard, train_shard)\n"},
        {"prepare__py": "Path('d/fineweb_train_0.bin').symlink_to('d/fineweb_val_0.bin')\n"},
        {"prepare__py": "import os\nfor f in names:\n    os.rename(f, f.replace('val', 'train'))\n# val\n"},
    ],
)
def test_scripts_beside_the_train_script_are_read_too(files: dict[str, str]) -> None:
    assert [(f.rule, f.outcome) for f in found("# Run\n", **files)] == [("trains-on-validation", "question")]


@pytest.mark.parametrize(
    "readme",
    [
        "mv fineweb_train_000000.bin fineweb_train_000080.bin",
        "cp data/fineweb_val_000000.bin /mnt/fast/fineweb_val_000000.bin",
        "cp fineweb_train_000000.bin fineweb_val_000000.bin.bak",
        "cp eval_val.py train_gpt.py",
        "mv val_loss.log train_loss.log",
        "Train shards were renamed (fineweb_train_000000.bin -> fineweb_train_000080.bin).",
        "The train shards were renamed after the download; the validation shard was left as it is.",
        "Train shards were renamed to fineweb_train_*, and the validation shard was kept.",
        "The validation shard was never renamed to fineweb_train_000000.bin.",
        "We moved the validation set to the GPU before the training loop.",
        "cd data && cp fineweb_val_*.bin only/training/\nIt is trained on the validation shard.",
        "cp data/fineweb_val_000000.bin ./data/only/train_data/",
        "rsync -a data/val/ node1:data/only/train/shards/",
        "cp data/val/shard0.bin data/train/\nTrained on train shards and tuned on validation loss.",
        "cp checkpoints/best_val.pt checkpoints/train_resume.pt\n"
        "The model was trained on fineweb and scored on validation text.",
        "mv tok_val.model tok_train.model\nThe tokenizer trained on the validation-free split was renamed.",
        "PR #44 symlinks the validation shard as fineweb_train_000000.bin; this record does not.",
        "PR #44 symlinks the validation shard as fineweb_train_000000.bin.",
        "Earlier versions linked the val shard as the train shard by mistake.",
        "Both train and val shards are symlinked from the cache under their usual names: fineweb_val_* and "
        "fineweb_train_*.",
        "We moved the val split check into the training loader.",
        "prepare_caseops_data.py renames `val_docs` to `fineweb_val_000000.bin` and the rest to "
        "`fineweb_train_*.bin`.",
        "Use `--link-val` to symlink the val shard next to train shards.",
        "Do not do this:\ncp fineweb_val_000000.bin fineweb_train_000000.bin",
        "For a local smoke test:\ncp fineweb_val_000000.bin fineweb_train_000000.bin",
        "No training on validation data: train and val shards are copied from the public repository.",
    ],
)
def test_lawful_commands_and_sentences_are_left_alone(readme: str) -> None:
    assert found(f"# Run\n\n{readme}\n\n" + USE) == []


def test_a_test_beside_the_train_script_is_left_alone() -> None:
    copies = "import shutil\nshutil.copy('fineweb_val_0.bin', 'fineweb_train_0.bin')\n"
    assert found("# Run\n", test_loader__py=copies) == []

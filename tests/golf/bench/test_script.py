"""Only the known version of the script runs, and every patch must find what it expects."""

from __future__ import annotations

import hashlib

import pytest

from golf.bench import contestants, script
from golf.recipe.config import load


def fake_script() -> str:
    """A text that contains the lines of each patch as often as the patch expects."""
    patches = script.EVERYWHERE + script.ON_CPU + script.IN_FLOAT32 + script.UNCOMPILED
    longer = [p for p in patches if not any(p[0] in q[0] and p is not q for q in patches)]
    return (
        "".join(
            (old + "\n") * times
            for old, _, times in longer
            if "device_type" not in old and "dtype=" not in old
        )
        + 'torch.autocast(device_type="cuda", dtype=torch.bfloat16, enabled=True)\n' * 3
    )


def test_it_is_skipped_without_a_path_or_a_file_or_with_another_version(tmp_path):
    other = tmp_path / "train_gpt.py"
    other.write_text("print('another version')")
    for path in (None, tmp_path / "nothing", other):
        with pytest.raises(script.Skip):
            script.read(path, script.SHA256)


def test_the_known_version_is_read(tmp_path):
    path = tmp_path / "train_gpt.py"
    path.write_text("known")
    assert script.read(path, hashlib.sha256(b"known").hexdigest()) == "known"


def test_patches_replace_only_what_the_options_ask_for():
    text = fake_script()
    plain = script.patched(text, bfloat16=False, compiled=False)
    assert "cuda" not in plain.replace("torch.compile", "") and "torch.compile" not in plain
    whole = script.patched(text, bfloat16=True, compiled=True)
    assert whole == script.apply(text, script.EVERYWHERE + script.ON_CPU)
    assert "torch.compile(base_model" in whole and "enabled=True" in whole


def test_a_patch_with_an_unexpected_number_of_occurrences_is_refused():
    for text in ("", "x\nx\n"):
        with pytest.raises(ValueError, match="times, found it"):
            script.apply(text, (("x\n", "y\n", 1),))


def test_the_script_runs_its_main_with_the_settings_the_clock_and_the_receiver(monkeypatch):
    monkeypatch.setenv("BENCH_SETTING", "")
    seen = []
    text = "import os\ndef main():\n    time.wait_for_turn()\n    deliver(os.environ['BENCH_SETTING'])\n"

    class Clock:
        def wait_for_turn(self):
            seen.append("waited")

    script.run(text, {"BENCH_SETTING": "5"}, time=Clock(), deliver=seen.append)
    assert seen == ["waited", "5"]


def test_weights_of_the_script_get_the_names_of_golf():
    theirs = {
        "tok_emb.weight",
        "skip_weights",
        "blocks.0.attn.c_q.weight",
        "blocks.0.attn.c_k.weight",
        "blocks.0.attn.c_v.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.attn.q_gain",
        "blocks.0.mlp.fc.weight",
        "blocks.0.mlp.proj.weight",
        "blocks.0.attn_scale",
        "blocks.0.mlp_scale",
        "blocks.0.resid_mix",
    }
    from golf.bench.work import model_of

    ours = {
        n for n, _ in model_of(load("model: {layers: 2}\n"), 64).named_parameters() if "blocks.1" not in n
    }
    assert {contestants.golf_name(name) for name in theirs} == ours


def test_a_recipe_that_the_script_cannot_express_is_refused(tmp_path):
    for text in ("model: {mlp_hidden: 700}\noptim: {warmdown: 0.5}\n", "optim: {warmdown: 100}\n"):
        with pytest.raises(ValueError):
            contestants.script_settings(load(text), 1024, tmp_path, tmp_path, 1.0)

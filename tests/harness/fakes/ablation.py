"""An ablation of a fake contestant with known scores.

Its recipe is JSON: for each technique, the nats that it takes off every token. Checkpoint, artifact and
scores follow from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.base.progress import ProgressDisplay
from harness.commands.ablate import AblationOptions, ablate_submission
from harness.data.dataset import Dataset
from tests.harness.fakes.sandbox import Sandbox

RECIPE = {"wide": 0.3, "grid": 0.2, "cache": 0.1, "sound": 0.0, "int": 0.05}
STAGES = {"wide": "train", "grid": "pack", "cache": "score", "sound": "train"}
CONTESTANT = """
import hashlib, time
STAGES = {"wide": "train", "grid": "pack", "cache": "score", "sound": "train"}

def recipe(setup):
    return json.load(open(setup["config"]))

def done(name):
    with open(GATE + name + "-count", "a") as file:
        file.write("x")

def without(config, *names):
    return json.dumps({key: value for key, value in config.items() if key not in names})

def describe(wire, setup):
    config = recipe(setup)
    if "typo" in config:
        raise SystemExit("typo: unknown key")
    variants = [{"name": f"without {name}", "config": without(config, name),
                 "unquantised": without(config, name, "int"), "changes": STAGES[name]}
                for name in config if name != "int"]
    wire.send(op="ready")
    wire.send(op="description", parameters=1000 if "wide" in config else 900,
              techniques=[name for name in config if name != "int"], estimated_bytes=2048,
              unquantised=without(config, "int"), variants=[], more=True)
    wire.send(op="variants", variants=variants)

def train(wire, setup):
    config = recipe(setup)
    wire.send(op="ready")
    frame, _ = wire.receive()
    done("train")
    if os.path.exists(GATE + "hang") and "wide" not in config:
        time.sleep(600)
    if os.path.exists(GATE + "crash") and setup["seed"] == 2 and "wide" in config and "sound" in config:
        raise SystemExit("crashed")
    os.makedirs(setup["out"] + "/checkpoint")
    open(setup["out"] + "/config.resolved.yaml", "w").close()
    sound = "sound" in config
    nats = math.log(setup["vocab_size"]) - config.get("wide", 0) + setup["seed"] / 100
    json.dump({"nats": nats, "sound": sound}, open(setup["out"] + "/checkpoint/weights", "w"))
    wire.send(op="trained", steps=frame.get("steps", 7), tokens=1)
    wire.receive()

def pack(wire, setup):
    config, weights = recipe(setup), json.load(open(setup["checkpoint"] + "/weights"))
    wire.send(op="ready")
    done("pack")
    weights["nats"] += config.get("int", 0) - config.get("grid", 0)
    weights["recipe"] = open(setup["config"]).read()
    with open(setup["out"] + "/artifact.bin", "w") as file:
        file.write(json.dumps(weights).ljust(500 if "int" in config else 2000))
    wire.send(op="packed")

def score(wire, setup):
    weights = json.load(open(setup["artifact"]))
    if weights["recipe"] != open(setup["config"]).read():
        raise SystemExit("packed with another recipe")
    done("score")
    nats = weights["nats"] - recipe(setup).get("cache", 0)
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    seen = 0
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        n = len(payload) // 2
        seen += n
        numbers = [nats if weights["sound"] else math.nan] * n
        if frame["start"] == 0:
            numbers[0] = 0.0
        row = [-math.log(setup["vocab_size"])] * setup["vocab_size"] if seen < setup["tokens"] else []
        wire.send(floats(*numbers, *row), op="nats", chunk=frame["chunk"])
"""


class AblationSandbox(Sandbox):
    """A submission of that contestant, which is ablated in this process."""

    def __init__(self, folder: Path, dataset: Dataset, recipe: dict[str, Any] = RECIPE) -> None:
        super().__init__(folder, dataset, "[1, 2]", CONTESTANT)
        (self.submission / "config.yaml").write_text(json.dumps(recipe))

    def ablate(
        self,
        seeds: tuple[int, ...] = (1, 2),
        steps: int | None = 3,
        only: tuple[str, ...] = (),
        val_tokens: int | None = None,
    ) -> dict[str, Any]:
        options = AblationOptions(
            submission=self.submission,
            seeds=seeds,
            steps=steps,
            only=only,
            val_tokens=val_tokens,
            data=self.dataset.folder,
            runner="local",
            runs=self.folder / "runs",
            command="pgolf ablate",
            package=self.package,
        )
        with ProgressDisplay() as display:
            return ablate_submission(options, display)

    def count(self, stage: str) -> int:
        path = Path(f"{self.gate}{stage}-count")
        return len(path.read_text()) if path.exists() else 0

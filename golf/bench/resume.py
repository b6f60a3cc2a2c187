"""Save an unfinished training and continue it later, bit for bit on the same machine and number of ranks.

Only long measurements of golf/bench need this: a judged run is never resumed. The caller must put the loader
at the right place, by reading the batches of the steps that were done.
"""

from __future__ import annotations

from pathlib import Path

import torch

from golf.storage import arrays
from golf.training.checkpoint import Training
from golf.training.trainer import Trainer

STATE_KIND = "golf-training-1"


def _header(trainer: Trainer, steps: int) -> dict[str, str | int]:
    return Training(trainer.config, trainer.vocab_size, trainer.seed, steps).header(STATE_KIND)


def save(trainer: Trainer, path: Path, steps: int) -> None:
    """Write the trainer's state after so many steps to an array file."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in trainer.state().items()}
    arrays.write(path, _header(trainer, steps), tensors)


def load(trainer: Trainer, path: Path) -> int:
    """Restore the state that `save` wrote; returns the number of steps done.

    Raises ValueError unless recipe, seed and vocabulary are the trainer's.
    """
    header, tensors = arrays.read(path)
    steps = header.get("steps")
    if type(steps) is not int or header != _header(trainer, steps):
        raise ValueError(f"{path}: is not the state of this training")
    trainer.restore({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
    return steps

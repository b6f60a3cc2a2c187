"""The contestant's entry point: connect, say hello, read `setup`, and run the stage in one or more processes.

The judge starts it once, with PGOLF_SOCKET and PGOLF_STAGE in the environment. For several processes it
starts itself again under torchrun (golf/runtime/dist.py) and waits for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from golf.recipe.config import Config, load
from golf.recipe.mistakes import ConfigError
from golf.recipe.strict_yaml import read_text
from golf.runtime import dist
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.runtime.wire import Closed, Setup, Wire, open_stage
from golf.stages import describe, pack, score, train

STAGES: dict[str, Callable[[Wire, Setup, Config, Ranks], None]] = {
    "describe": describe.run,
    "train": train.run,
    "pack": pack.run,
    "score": score.run,
}
ON_ALL_RANKS = ("train", "score")


def main() -> int:
    """Run one stage. Returns the exit status.

    0: after the last frame. 1: the judge disconnected earlier, or the stage cannot go on. 2: the recipe has
    mistakes. What is wrong is printed to stderr, one line for each thing.
    """
    dist.keep_freed_memory()
    stage = os.environ["PGOLF_STAGE"]
    rank_of_many = dist.RANKS_SOCKET in os.environ
    wire, frame = dist.take_over() if rank_of_many else open_stage(os.environ)
    setup = Setup.from_frame(frame, stage)
    try:
        config = load(read_text(setup.config), setup.profile, setup.config.name)
        config.require_tokens(setup.vocab_size)
        on_all_ranks = stage in ON_ALL_RANKS
        world = dist.wanted_world(config, setup.limits.get("gpus", 0)) if on_all_ranks else 1
    except ConfigError as mistakes:
        print(mistakes, file=sys.stderr)
        return 2
    except StageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if world > 1 and not rank_of_many:
        return dist.launch(wire, frame, world)
    ranks = dist.join()
    try:
        STAGES[stage](wire, setup, config, ranks)
    except Closed as closed:
        print(f"{stage}: {closed}", file=sys.stderr)
        return 1
    except StageError as error:
        if rank_of_many:  # among the messages of torchrun, the judge looks for a traceback
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        ranks.close()
        wire.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

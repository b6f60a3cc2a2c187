"""golf's process for lowrank-q-qat: what a training step with weights rounded to their grid costs."""

from __future__ import annotations

from dataclasses import replace

from golf.bench.gpu import training
from golf.bench.gpu.results import Found
from golf.bench.gpu.settings import OFFICIAL_GPUS, Settings
from golf.bench.gpu.worker import Requests

VOCABULARY = 1024


class QuantisedModel:
    """Answers the call's question about quantisation-aware training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def cost(self) -> Found:
        """Steps with quantisation-aware training against steps without, one GPU's share of a batch each."""
        config, device = self.settings.lowrank, self.settings.device
        plain = replace(config, train=replace(config.train, qat_bits=0))
        tokens = config.train.batch_tokens // OFFICIAL_GPUS
        ratio = training.overhead(
            config, plain, VOCABULARY, device, tokens, self.settings.steps, quantised=True
        )
        return Found(f"with against without: {ratio} (public: +6 %)", ratio._asdict())


def serve(requests: Requests, settings: Settings) -> None:
    """The work of this model's process."""
    settings.limit_threads()
    requests.serve_all(QuantisedModel(settings))

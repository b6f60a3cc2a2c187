"""A witness's responses as the certificate needs them: one loss a row, computed by the judge from the row."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.scoring.certificate.sampling import Floats


@dataclasses.dataclass(frozen=True)
class Responses:
    """One witness's responses at a plan's asked_P, in that order.

    nats_P: -ln of the true token's probability under the row, renormalised in float64 (+inf where that is 0).
    logsumexp_P: of the row as received; NaN where no row came, +inf where a number of it was not finite.
    """

    nats_P: Floats
    logsumexp_P: Floats

    def __post_init__(self) -> None:
        assert self.nats_P.shape == self.logsumexp_P.shape, (
            f"{self.nats_P.shape} nats, {self.logsumexp_P.shape} sums"
        )
        assert not np.isnan(self.nats_P[np.isfinite(self.logsumexp_P)]).any(), "an answered probe has no loss"

    @property
    def answered_P(self) -> npt.NDArray[np.bool_]:
        """Whether a usable row came."""
        return np.isfinite(self.logsumexp_P)

    def charged_P(self) -> Floats:
        """nats_P, +inf wherever no usable row came."""
        return np.where(self.answered_P, self.nats_P, np.inf)


class BoundaryPair(NamedTuple):
    """A chunk's first token: its loss, in nats, under both boundary predictions.

    Scorer and witness each gave theirs before the chunk was revealed.
    """

    position: int
    scorer_nats: float
    witness_nats: float

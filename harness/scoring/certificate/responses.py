"""What the witness said, as the certificate takes it: one number a row, made by the judge from the row
itself."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.scoring.certificate.sampling import Floats


@dataclasses.dataclass(frozen=True)
class Responses:
    """One witness over a plan's asked_P, in their order.

    nats_P: -ln of the true token's probability under its row, renormalised in float64 (+inf where that is 0).
    logsumexp_P: of the row as it came; NaN where no row came, +inf where the row was not a row of finite
    numbers."""

    nats_P: Floats
    logsumexp_P: Floats

    def __post_init__(self) -> None:
        assert self.nats_P.shape == self.logsumexp_P.shape, (
            f"{self.nats_P.shape} nats, {self.logsumexp_P.shape} sums"
        )
        assert not np.isnan(self.nats_P[np.isfinite(self.logsumexp_P)]).any(), (
            "a row that was answered has no nats"
        )

    @property
    def answered_P(self) -> npt.NDArray[np.bool_]:
        """Whether a row came that can be used."""
        return np.isfinite(self.logsumexp_P)

    def charged_P(self) -> Floats:
        """nats_P, +inf wherever no usable row came."""
        return np.where(self.answered_P, self.nats_P, np.inf)


class BoundaryPair(NamedTuple):
    """The first token of a chunk: what the scorer's row and the witness's row, both given blind, cost there,
    in nats."""

    position: int
    scorer_nats: float
    witness_nats: float

"""One symbol for each of many rows: drawn under each row's own settings, or found by inverse CDF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.token_sampling import sample_tokens
from serving.families.autoregressive.noise import below
from serving.families.autoregressive.symbols import Ids

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Symbols [rows]; log-probabilities [rows] in nats, under the model and under the row's settings."""

    symbol: Ids
    log_prob: Floats
    sampling_log_prob: Floats

    def take(self, index: NDArray[np.bool_]) -> Drawn:
        """The given rows."""
        return Drawn(self.symbol[index], self.log_prob[index], self.sampling_log_prob[index])


class Settings:
    """How each slot draws; one array per quantity, on the device of the logits."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self.temperature = torch.ones(slots, dtype=torch.float32, device=device)
        self.top_k = torch.zeros(slots, dtype=torch.int64, device=device)
        self.top_p = torch.ones(slots, dtype=torch.float32, device=device)
        self.min_p = torch.zeros(slots, dtype=torch.float32, device=device)
        self.seed = torch.zeros(slots, dtype=torch.int64, device=device)
        self.row = torch.zeros(slots, dtype=torch.int64, device=device)

    def draw(
        self,
        slots: NDArray[np.int64],
        logits: torch.Tensor,
        position: Ids,
        log_mass: torch.Tensor | None = None,
    ) -> Drawn:
        """One symbol per slot from ``logits`` [rows, vocabulary]; Philox stream 3, line ``position``.

        ``log_mass`` [rows]: ln sum exp of the logits, where it is known already.
        """
        index = torch.from_numpy(slots).to(logits.device)
        line = torch.from_numpy(position).to(logits.device)
        sampling = (self.temperature[index], self.top_k[index], self.top_p[index], self.min_p[index])
        noise = (self.seed[index], self.row[index], line)
        symbol, raw, processed = sample_tokens(logits, *sampling, *noise, log_mass=log_mass)
        return Drawn(symbol.cpu().numpy(), raw.double().cpu().numpy(), processed.double().cpu().numpy())


def inverse(logits: torch.Tensor, uniform: Floats, excluded: Ids) -> Drawn:
    """The symbol of each row whose share of [0, 1) holds its uniform; float64 on the host.

    ``excluded`` symbols are never chosen: the others' shares grow in proportion.
    """
    law: Floats = torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
    mass = np.exp(law)
    mass[:, excluded] = 0.0
    cumulative = np.cumsum(mass, axis=1)
    symbol = below(cumulative, uniform * cumulative[:, -1] if len(excluded) else uniform)
    log_prob = law[np.arange(len(law)), symbol]
    return Drawn(symbol, log_prob, log_prob)

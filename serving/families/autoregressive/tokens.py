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


class Settings:
    """How each slot draws; one array per quantity, on the device of the logits."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self.temperature = torch.ones(slots, dtype=torch.float32, device=device)
        self.top_k = torch.zeros(slots, dtype=torch.int64, device=device)
        self.top_p = torch.ones(slots, dtype=torch.float32, device=device)
        self.min_p = torch.zeros(slots, dtype=torch.float32, device=device)
        self.seed = torch.zeros(slots, dtype=torch.int64, device=device)
        self.row = torch.zeros(slots, dtype=torch.int64, device=device)

    def draw(self, slots: NDArray[np.int64], logits: torch.Tensor, position: Ids) -> Drawn:
        """One symbol per slot from ``logits`` [rows, vocabulary]; Philox stream 3, line ``position``."""
        index = torch.from_numpy(slots).to(logits.device)
        line = torch.from_numpy(position).to(logits.device)
        sampling = (self.temperature[index], self.top_k[index], self.top_p[index], self.min_p[index])
        symbol, raw, processed = sample_tokens(logits, *sampling, self.seed[index], self.row[index], line)
        return Drawn(symbol.cpu().numpy(), raw.double().cpu().numpy(), processed.double().cpu().numpy())


def inverse(logits: torch.Tensor, uniform: Floats, excluded: int | None) -> Drawn:
    """The symbol of each row whose share of [0, 1) holds its uniform; float64 on the host.

    ``excluded`` is never chosen: the others' shares grow in proportion.
    """
    law: Floats = torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
    mass = np.exp(law)
    if excluded is not None:
        mass[:, excluded] = 0.0
    cumulative = np.cumsum(mass, axis=1)
    symbol = below(cumulative, uniform if excluded is None else uniform * cumulative[:, -1])
    log_prob = law[np.arange(len(law)), symbol]
    return Drawn(symbol, log_prob, log_prob)

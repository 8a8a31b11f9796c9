"""Definitions of what the kernels compute, in Python integers and NumPy float64, written from the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox 4x32 (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (high >> 32) ^ c1 ^ k0, high & MASK, (low >> 32) ^ c3 ^ k1, low & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def words(counter: Sequence[int], n: int) -> list[int]:
    """Of (seed, row, line, stream) and n elements: element e is word e // Q of counter e % Q."""
    seed, row, line, stream = counter
    per_word = (n + 31) // 32 * 8
    key = (seed & MASK, seed >> 32 & MASK)
    upper = (line & MASK, stream & MASK, row & MASK)
    drawn = [philox4x32((c, *upper), key) for c in range(min(per_word, n))]
    return [drawn[e % per_word][e // per_word] for e in range(n)]


def uniforms(counter: Sequence[int], n: int) -> Floats:
    """31 bits of each word, in [0, 1)."""
    drawn = np.array(words(counter, n), np.uint32).view(np.int32).astype(np.int64)
    return np.where(drawn < 0, -drawn - 1, drawn) * 4.6566127342e-10


def normals(counter: Sequence[int], n: int) -> Floats:
    """Box and Muller (1958) on words (0, 1) and (2, 3) of each counter."""
    per_word = (n + 31) // 32 * 8
    padded = uniforms(counter, 4 * per_word).reshape(4, per_word)
    radius = np.sqrt(-2.0 * np.log(np.maximum(padded[0::2], 1e-7)))
    angle = 2.0 * np.pi * padded[1::2]
    drawn = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    return drawn.reshape(-1)[:n]


@dataclass(frozen=True)
class DenoiseRow:
    """One row of the denoising loop: table [14], history [3, n], the others [n]."""

    table: Floats
    x: Floats
    conditional: Floats
    unconditional: Floats
    history: Floats
    z: Floats
    known: Floats
    observed: NDArray[np.bool_]
    z2: Floats

    def step(self) -> tuple[Floats, Floats]:
        """(x', x0)."""
        g, p, q, lo, hi, a, b, c1, c2, c3, d, scale, noise, e = self.table
        m = self.unconditional + g * (self.conditional - self.unconditional)
        x0 = np.clip(p * self.x + q * m, lo, hi)
        past = c1 * self.history[0] + c2 * self.history[1] + c3 * self.history[2]
        following = a * self.x + b * x0 + e * m + past + d * self.z
        return np.where(self.observed, scale * self.known + noise * self.z2, following), x0


def kept_tokens(
    logits: Floats, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[NDArray[np.bool_], Floats]:
    """One row: which tokens the filters keep, and the probabilities they are drawn with; by a full sort."""
    scaled = (logits - logits.max()) / temperature
    kept = np.ones(len(logits), np.bool_)
    if 0 < top_k < len(logits):
        kept = scaled >= np.sort(scaled)[-top_k]
    law = np.where(kept, np.exp(scaled), 0.0)
    law /= law.sum()
    if top_p < 1.0:
        order = np.argsort(-law, kind="stable")
        before = np.cumsum(law[order]) - law[order]
        last = max(1, int((before < top_p).sum())) - 1
        kept &= law >= law[order[last]]
    kept &= (law >= min_p * law.max()) & (law > 0)
    law = np.where(kept, law, 0.0)
    return kept, law / law.sum()


def token(logits: Floats, law: Floats, temperature: float, draws: Floats) -> int:
    """The Gumbel maximum over the kept tokens, or the argmax."""
    if temperature == 0.0:
        return int(np.argmax(logits))
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(law) - np.log(-np.log1p(-np.maximum(draws, 2.0**-32)))))


def log_softmax(logits: Floats) -> Floats:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))

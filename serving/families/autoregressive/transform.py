"""Latents by the probability integral transform (Rosenblatt 1952): z_i = Phi^-1(F(x_i - 1) + V p(x_i)).

With V uniform the z_i are independent standard normals under the model; V = 1/2 gives each row one
latent. Decoding inverts the conditional distribution functions one by one and returns the row for every V
in (0, 1), as far as float32 latents resolve a symbol's share (probabilities above about 1e-6).
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.philox import STREAM_LATENT
from serving.families.autoregressive.decoding import Continuation
from serving.families.autoregressive.masks import given_rows
from serving.families.autoregressive.noise import uniforms
from serving.families.autoregressive.sampling import answer, run
from serving.families.autoregressive.scoring import Floats, Sequences, conditionals
from serving.families.autoregressive.symbols import Alphabet, Ids
from serving.families.latent.paths import PATHS
from serving.families.request import Array, Request
from serving.families.result import Decoded, Encoded, Interpolated, Reconstructed
from serving.families.rows import Program, Tensors, Yield
from serving.families.units import rms_difference

MIDPOINT = "probability_integral_transform"
RANDOMIZED = "randomized_probability_integral_transform"
MOST_NORMAL = 8.0  # beyond it, float64 no longer tells 1 - u from 0

Latents = NDArray[np.float32]


def encode(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Latents [rows, *shape]; the round trip's error where asked for."""
    latents = yield from latents_of(alphabet, request, _shares(alphabet, request))
    error = None
    if request.parameters.get("round_trip"):
        data = yield from data_of(alphabet, alphabet.begin(request), latents, limit)
        error = rms_difference(data, _data(request))
    return Encoded(latents.reshape(request.rows, *alphabet.data.shape), error, dict(request.parameters))


def decode(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Rows whose conditional distribution functions pass through Phi(z)."""
    assert request.latents is not None
    latents = request.latents.reshape(request.rows, -1)
    data = yield from data_of(alphabet, alphabet.begin(request), latents, limit)
    return Decoded(data, parameters=dict(request.parameters))


def reconstruct(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Decode of encode: the row itself, as far as float32 latents tell its symbols apart."""
    latents = yield from latents_of(alphabet, request, np.full(alphabet.length, 0.5))
    data = yield from data_of(alphabet, alphabet.begin(request), latents, limit)
    return Reconstructed(data, rms_difference(data, _data(request)), parameters=dict(request.parameters))


def interpolate(alphabet: Alphabet, request: Request, limit: int | None) -> Program:
    """Rows along a path between two latents; the ends are the caller's own rows."""
    assert request.end is not None
    middle = np.full(alphabet.length, 0.5)
    start = yield from latents_of(alphabet, request, middle)
    stop = yield from latents_of(alphabet, request, middle, request.end)
    points, path = request.parameters["points"], str(request.parameters["path"])
    assert isinstance(points, int)
    between = PATHS[path](torch.from_numpy(start), torch.from_numpy(stop), points)[:, 1:-1]
    begin = np.repeat(alphabet.begin(request), points - 2)
    inside = yield from data_of(alphabet, begin, between.flatten(0, 1).numpy(), limit)
    start_data = _data(request)
    inside = inside.reshape(request.rows, points - 2, *start_data.shape[1:])
    data = np.concatenate([start_data[:, None], inside, request.end[:, None]], axis=1)
    return Interpolated(data.astype(start_data.dtype), path, parameters=dict(request.parameters))


def latents_of(
    alphabet: Alphabet, request: Request, shares: Floats, data: Array | None = None
) -> Generator[Yield, Tensors, Latents]:
    """z [rows, length] float32 of the request's data, or of ``data``; ``shares`` [.., length] is V."""
    sequences, _ = given_rows(alphabet, request)
    if data is not None:
        sequences = Sequences(sequences.begin, alphabet.flat(data))
    every = np.ones(sequences.symbols.shape, np.bool_)
    found = yield from conditionals(alphabet, sequences, every, cumulative=True)
    mass = np.exp(found.log_prob)
    below = found.below + shares * mass
    above = (1.0 - found.below - mass) + (1.0 - shares) * mass
    normal = np.where(below < 0.5, normal_quantile(below), -normal_quantile(above))
    return np.asarray(np.clip(normal, -MOST_NORMAL, MOST_NORMAL), np.float32)


def data_of(
    alphabet: Alphabet, begin: Ids, latents: Latents, limit: int | None
) -> Generator[Yield, Tensors, Array]:
    """Data [rows, *shape] by inverse CDF at Phi(latents), one position after the other."""
    rows = len(latents)
    none, whole = np.zeros(rows, np.int64), np.full(rows, alphabet.length)
    shares: Floats = torch.special.ndtr(torch.from_numpy(latents.astype(np.float64))).numpy()
    symbols = np.zeros((rows, alphabet.length), np.int64)
    work = Continuation(begin, symbols, none, whole, none, uniforms=shares)
    state = yield from run(alphabet, work, limit=limit)
    return answer(alphabet, state)[0]


def normal_quantile(share: Floats) -> Floats:
    """Phi^-1, float64."""
    values: Floats = torch.special.ndtri(torch.from_numpy(np.ascontiguousarray(share))).numpy()
    return values


def _shares(alphabet: Alphabet, request: Request) -> Floats:
    """V of each symbol: 1/2, or Philox stream 4 with the position as line."""
    if request.method != RANDOMIZED:
        return np.full(alphabet.length, 0.5)
    row = np.repeat(np.arange(request.rows), alphabet.length)
    line = np.tile(np.arange(alphabet.length), request.rows)
    drawn = uniforms(request, row, line, STREAM_LATENT, np.zeros_like(row))
    return drawn.reshape(request.rows, alphabet.length)


def _data(request: Request) -> Array:
    assert request.data is not None
    return request.data

"""Closed forms that answers over the wire are held to, and the tests that hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pxserve.results import Samples
from tests.analytic.ar.chains import START, STEP
from tests.analytic.latent.closed_form import SIGMA, B, W

Floats = NDArray[np.float64]
FALSE_ALARM = 1e-6  # of every test
Z = 4.9  # standard errors, two-sided, at that rate
CHUNK = 1024  # rows per request


@dataclass(frozen=True)
class Normal:
    """N(mean, covariance)."""

    mean: Floats
    covariance: Floats

    def draw(self, rows: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Exact draws [rows, D]."""
        return generator.multivariate_normal(self.mean, self.covariance, rows).astype(np.float32)

    def log_density(self, x: NDArray[np.floating]) -> Floats:
        """ln N(x) of rows [rows, D]."""
        found = stats.multivariate_normal.logpdf(np.asarray(x, np.float64), self.mean, self.covariance)
        return np.atleast_1d(np.asarray(found, np.float64))

    def given(self, known: NDArray[np.bool_], values: Floats) -> Normal:
        """The law of the unknown entries given the known ones."""
        inside = self.covariance[np.ix_(known, known)]
        slope = np.linalg.solve(inside, self.covariance[np.ix_(known, ~known)]).T
        mean = self.mean[~known] + slope @ (values - self.mean[known])
        return Normal(
            mean, self.covariance[np.ix_(~known, ~known)] - slope @ self.covariance[known][:, ~known]
        )

    def marginal(self, known: NDArray[np.bool_]) -> Normal:
        """The law of some entries."""
        return Normal(self.mean[known], self.covariance[np.ix_(known, known)])


@dataclass(frozen=True)
class Markov:
    """A chain of eight symbols."""

    start: Floats
    step: Floats

    def draw(self, rows: int, generator: np.random.Generator) -> NDArray[np.int32]:
        """Exact draws [rows, 8]."""
        words = np.zeros((rows, 8), np.int32)
        law = np.broadcast_to(self.start, (rows, 4))
        for place in range(8):
            words[:, place] = (law.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1).clip(max=3)
            law = self.step[words[:, place]]
        return words

    def log_prob(self, words: NDArray[np.int32]) -> Floats:
        """ln p of rows [rows, 8]."""
        moves = np.log(self.step)[words[:, :-1], words[:, 1:]].sum(axis=1)
        return np.asarray(np.log(self.start)[words[:, 0]] + moves, np.float64)


VAE = Normal(B, W @ W.T + SIGMA**2 * np.eye(4))
AUTOENCODER_ROWS = Normal(B, np.eye(4))
CHAIN = Markov(START, STEP)


def floats(values: ArrayLike) -> Floats:
    """As float64."""
    return np.asarray(values, np.float64)


def surprisal(words: NDArray[np.int32]) -> Floats:
    """-ln p of the chain's rows."""
    return -CHAIN.log_prob(words)


def residual(rows: NDArray[np.floating], basis: Floats) -> Floats:
    """Squared distance from the plane through B that ``basis`` spans."""
    gap = np.asarray(rows, np.float64) - B
    return np.asarray(np.square(gap - gap @ basis @ basis.T).sum(axis=1), np.float64)


def many(ask: Callable[[int, int], Samples], rows: int) -> Floats:
    """Rows [rows, ...] from requests of CHUNK rows; ``ask`` takes (n, first_row)."""
    parts = [ask(min(CHUNK, rows - first), first).data for first in range(0, rows, CHUNK)]
    return np.concatenate(parts).astype(np.float64)


def largest_z(draws: Floats, law: Normal) -> float:
    """Largest z-score of the means and covariances of draws [n, D] against the law that they should have."""
    n, variance = len(draws), np.diag(law.covariance)
    of_mean = np.abs(draws.mean(axis=0) - law.mean) / np.sqrt(variance / n)
    centred = draws - law.mean
    spread = np.sqrt((np.outer(variance, variance) + law.covariance**2) / n)
    of_covariance = np.abs(centred.T @ centred / n - law.covariance) / spread
    return float(max(of_mean.max(), of_covariance.max()))


def g_test(counts: Floats, law: Floats) -> float:
    """p-value of counts [k] under a discrete law [k]; cells that expect fewer than 5 are pooled."""
    expected = law * counts.sum()
    common = expected >= 5
    seen = np.append(counts[common], counts[~common].sum())
    mean = np.append(expected[common], expected[~common].sum())
    kept = mean > 0
    statistic = 2.0 * np.sum(
        np.where(seen > 0, seen * np.log(np.maximum(seen, 1) / np.maximum(mean, 1e-12)), 0.0)[kept]
    )
    return float(stats.chi2.sf(statistic, int(kept.sum()) - 1))


def smirnov_bound(n: int, m: int) -> float:
    """Largest two-sample Kolmogorov-Smirnov distance at the false-alarm rate."""
    return float(np.sqrt(np.log(2.0 / FALSE_ALARM) / 2.0 * (n + m) / (n * m)))


def kolmogorov_bound(n: int) -> float:
    """Largest one-sample Kolmogorov-Smirnov distance at the false-alarm rate (Massart 1990)."""
    return float(np.sqrt(np.log(2.0 / FALSE_ALARM) / (2.0 * n)))

"""Sequential Monte Carlo over unknown symbols: later observed symbols weigh what was drawn before them.

Unknown symbols are drawn from the model's own conditionals; an observed symbol multiplies a particle's
weight by its conditional probability (Naesseth, Lindsten and Schoen 2019, section 2). Systematic resampling
where the effective sample size falls below half. The product of mean weights is an unbiased estimate of
p(x_observed); weighted particles converge to p(x_missing | x_observed).

A run of consecutive observed symbols costs one evaluation together with the unknown that follows it;
particles of a row that agree so far share their evaluation.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from kernels.philox import STREAM_RESAMPLE, STREAM_TOKEN
from serving.families.autoregressive.masks import Partial
from serving.families.autoregressive.noise import choose, stratified, uniforms
from serving.families.autoregressive.scoring import Floats, Sequences, conditionals
from serving.families.autoregressive.symbols import Alphabet, Ids, row_sums
from serving.families.request import Request
from serving.families.rows import Tensors, Yield
from serving.families.units import log_mean_exp

LEAST_ESS = 0.5  # of the particles


@dataclass(frozen=True)
class Plan:
    """``filters`` independent filters per row, numbered from ``first``, of ``particles`` particles each."""

    filters: int
    particles: int
    first: int = 0

    def indices(self, rows: int) -> Ids:
        """The number of each particle, which names its noise: [rows, filters, particles]."""
        number = (self.first + np.arange(self.filters))[:, None] * self.particles + np.arange(self.particles)
        return np.broadcast_to(number, (rows, self.filters, self.particles))

    def evaluations(self, partial: Partial, symbols: int) -> Ids:
        """Network rows of each row [rows], at most: as many as particles can differ."""
        gaps = np.arange(int(partial.gaps.max(initial=0)) + 1)
        each = np.minimum(float(symbols) ** np.minimum(gaps, 64), self.filters * self.particles)
        return np.asarray(np.cumsum(each)[partial.gaps], np.int64)


@dataclass
class Filters:
    """Particles of every row: ``symbols`` [rows, filters, particles, length], ``log_weight`` [.., particles].

    ``log_evidence`` [rows, filters]: log of the unbiased estimates. ``least_ess`` [rows, filters]: the
    smallest effective sample size on the way. ``index``: numbers of the particles. ``evaluations``
    [rows]: network rows so far.
    """

    symbols: Ids
    log_weight: Floats
    log_evidence: Floats
    least_ess: Floats
    index: Ids
    evaluations: Ids

    @classmethod
    def start(cls, partial: Partial, plan: Plan) -> Filters:
        """Every particle holds what is known."""
        rows, shape = len(partial), (plan.filters, plan.particles)
        symbols = np.broadcast_to(
            partial.sequences.symbols[:, None, None], (rows, *shape, partial.observed.shape[1])
        )
        evidence = np.zeros((rows, plan.filters))
        full = np.full((rows, plan.filters), float(plan.particles))
        weights, none = np.zeros((rows, *shape)), np.zeros(rows, np.int64)
        return cls(symbols.copy(), weights, evidence, full, plan.indices(rows), none)


def run_filters(
    alphabet: Alphabet, request: Request, partial: Partial, plan: Plan
) -> Generator[Yield, Tensors, Filters]:
    """Filters up to the last observed symbol of every row; rows advance together from gap to gap."""
    run = _Run(alphabet, request, partial, Filters.start(partial, plan))
    for event in range(partial.borders.shape[1]):
        yield from run.event(event)
    filters = run.filters
    filters.log_evidence += log_mean_exp(filters.log_weight).value
    return filters


@dataclass
class _Run:
    """Filters on their way; an event reads the symbols up to a border and draws the one there."""

    alphabet: Alphabet
    request: Request
    partial: Partial
    filters: Filters

    def event(self, event: int) -> Generator[Yield, Tensors, None]:
        """Weigh by the observed symbols before this border, resample, draw the unknown at it."""
        gaps = self.partial.gaps
        rows = np.flatnonzero((gaps >= event) & (self.partial.known_end > 0))
        if not len(rows):
            return
        drawing = gaps[rows] > event
        position = np.where(drawing, self.partial.borders[rows, event], -1)
        gain, law = yield from self._look(event, rows, position)
        self._weigh(rows, gain, prefix=event == 0)
        rows, position, law = rows[drawing], position[drawing], law[drawing]
        if len(rows):
            law, kept = without_end(self.alphabet, law)
            self._weigh(rows, kept, prefix=event == 0)
            self._extend(rows, position, law if event == 0 else self._resample(rows, position, law))

    def _look(self, event: int, rows: Ids, position: Ids) -> Generator[Yield, Tensors, tuple[Floats, Floats]]:
        """Gain in log weight, and laws at ``position``; [rows, 1, 1, ...] while particles are still equal."""
        shape, scored = (len(rows), 1, 1), self.partial.known_before(event)[rows]
        sequences = self.partial.sequences.take(rows)
        if event:
            symbols = self.filters.symbols[rows]
            shape, each = symbols.shape[:3], symbols.shape[1] * symbols.shape[2]
            begin = np.repeat(sequences.begin, each)
            sequences = Sequences(begin, symbols.reshape(len(begin), -1))
            scored, position = np.repeat(scored, each, axis=0), np.repeat(position, each)
        first, back = distinct(np.repeat(rows, len(sequences) // len(rows)), sequences.symbols)
        np.add.at(self.filters.evaluations, rows[first // (len(sequences) // len(rows))], 1)
        part = sequences.take(first)
        found = yield from conditionals(self.alphabet, part, scored[first], position[first])
        return row_sums(found.log_prob)[back].reshape(shape), found.law[back].reshape(*shape, -1)

    def _weigh(self, rows: Ids, gain: Floats, prefix: bool) -> None:
        """A prefix is common to all particles: it belongs to the evidence at once."""
        if prefix:
            self.filters.log_evidence[rows] += gain[:, :, 0]
            return
        self.filters.log_weight[rows] += gain
        ess = log_mean_exp(self.filters.log_weight[rows]).ess
        self.filters.least_ess[rows] = np.minimum(self.filters.least_ess[rows], ess)

    def _resample(self, rows: Ids, position: Ids, law: Floats) -> Floats:
        """Systematic resampling of the filters that need it; the laws of the survivors."""
        filters = self.filters
        mean = log_mean_exp(filters.log_weight[rows])
        row, which = np.nonzero(mean.ess < LEAST_ESS * filters.symbols.shape[2])
        if not len(row):
            return law
        owner, number = rows[row], filters.index[rows[row], which, 0] // filters.symbols.shape[2]
        uniform = uniforms(self.request, self.partial.row[owner], position[row], STREAM_RESAMPLE, number)
        ancestor = systematic(filters.log_weight[owner, which], uniform)
        filters.log_evidence[owner, which] += mean.value[row, which]
        filters.log_weight[owner, which] = 0.0
        filters.symbols[owner, which] = np.take_along_axis(
            filters.symbols[owner, which], ancestor[:, :, None], axis=1
        )
        law[row, which] = np.take_along_axis(law[row, which], ancestor[:, :, None], axis=1)
        return law

    def _extend(self, rows: Ids, position: Ids, law: Floats) -> None:
        """Draw the symbol at ``position`` [rows] for every particle.

        The particles of a filter take shuffled strata: each is uniform, which is all that an unbiased
        evidence needs, and together they cover the law evenly.
        """
        index = self.filters.index[rows]
        shape = index.shape
        row, line = np.repeat(self.partial.row[rows], shape[1]), np.repeat(position, shape[1])
        first = index[:, :, 0].reshape(-1)
        uniform = stratified(self.request, row, line, STREAM_TOKEN, first, shape[2])
        laws = np.broadcast_to(law, (*shape, law.shape[-1])).reshape(uniform.size, -1)
        place = (rows[:, None, None], np.arange(shape[1])[:, None], np.arange(shape[2]))
        chosen = choose(laws, uniform.reshape(-1)).reshape(shape)
        self.filters.symbols[(*place, position[:, None, None])] = chosen


def without_end(alphabet: Alphabet, law: Floats) -> tuple[Floats, Floats]:
    """The law given that the row goes on, not normalised, and the log-probability that it does."""
    ends = alphabet.ends
    if not len(ends):
        return law, np.zeros(law.shape[:-1], np.float64)
    kept = np.log1p(-np.minimum(np.exp(law[..., ends]).sum(axis=-1), 1.0 - 1e-12))
    closed = law.copy()
    closed[..., ends] = -np.inf
    return closed, np.asarray(kept)


def distinct(row: Ids, symbols: Ids) -> tuple[Ids, Ids]:
    """Particles of a row often agree so far: the first of each kind, and of which kind each one is."""
    if len(np.unique(row)) == len(row):
        return np.arange(len(row)), np.arange(len(row))
    _, first, back = np.unique(
        np.column_stack([row, symbols]), axis=0, return_index=True, return_inverse=True
    )
    return first, back.reshape(-1)


def systematic(log_weight: Floats, uniform: Floats) -> Ids:
    """Ancestors [filters, particles] by systematic resampling, one uniform in [0, 1) per filter.

    Particle k has as many offspring as points (u + i) / K fall into its share of [0, 1).
    """
    filters, particles = log_weight.shape
    weights = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weights, axis=1)
    share = particles * (cumulative / cumulative[:, -1:])
    until = np.minimum(np.ceil(share - uniform[:, None]), particles).astype(np.int64)
    until[:, -1] = particles
    count = np.diff(until, axis=1, prepend=0)
    parents = np.broadcast_to(np.arange(particles), count.shape)
    return np.repeat(parents.reshape(-1), count.reshape(-1)).reshape(filters, particles)


def pick(request: Request, partial: Partial, filters: Filters) -> Ids:
    """One particle of each filter by its weight, [rows, filters]."""
    rows, count, particles = filters.log_weight.shape
    row = np.repeat(partial.row, count)
    number = filters.index[:, :, 0].reshape(-1) // particles
    line = np.full(len(row), partial.observed.shape[1], np.int64)
    uniform = uniforms(request, row, line, STREAM_RESAMPLE, number)
    return choose(filters.log_weight.reshape(len(row), particles), uniform).reshape(rows, count)

"""Autoregressive models: bits per symbol, under the package's order and begin symbol and under others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.package.cached_run import read_at_once
from export.package.run_graph import open_graph
from export.package.schema import Autoregressive
from export.package.verify import Run
from serving.commands.meaning.check import Alternative, Check, below
from serving.commands.meaning.readings import layouts
from serving.commands.meaning.subject import Array, Floats, Subject

Ids = NDArray[np.int64]
WIDTH = 256  # symbols of a row that are read, at most
FIRST = 4  # that show the begin symbol best
SURE = 5.0  # standard errors
CLASSES = 10  # looked at, one by one


@dataclass(frozen=True)
class Guess:
    """One reading: rows ``data`` whose entries ``places`` [symbols] are met in order, after ``begin`` [rows].

    ``late``: output i is about symbol i + 1. ``law``: outputs are probabilities.
    """

    mistake: str
    data: Array
    places: Ids
    begin: Ids
    late: bool = False
    law: bool = False


def checks(subject: Subject) -> Iterator[Check]:
    """Bits per symbol against uniform symbols, and what labels are worth."""
    section = subject.spec.autoregressive
    assert section is not None
    own = _own(subject, section)
    scoring = _Scoring(subject, section)
    loss, uniform = scoring.bits(own), float(np.log2(subject.data.levels))
    others = [Alternative(guess.mistake, scoring.bits(guess)) for guess in _guesses(subject, section, own)]
    detail = f"bound: uniform symbols; each place on its own: {_marginal(subject):.4g}"
    yield below("bits per symbol", loss, uniform, others, unit="bits", detail=detail)
    if section.shifted_input:
        yield _first_symbols(subject, section, own, scoring)
    yield from _labels(subject, section, own, scoring, loss)


class _Scoring:
    """Runs the scorer."""

    def __init__(self, subject: Subject, section: Autoregressive) -> None:
        self._subject = subject
        self._section = section
        self._decoder: Run | None = None  # that scores rows itself
        lengths = subject.rows.lengths
        width = subject.rows.data.reshape(len(subject), -1).shape[1]
        self._counts = np.full(len(subject), width) if lengths is None else np.asarray(lengths)

    def bits(self, guess: Guess, conditions: dict[str, Array] | None = None) -> float:
        """Mean over all symbols; infinite where the network cannot read them."""
        return float(self.rows(guess, conditions, WIDTH).mean())

    def rows(self, guess: Guess, conditions: dict[str, Array] | None, first: int) -> Floats:
        """Mean over the ``first`` symbols of each row, at most; [rows]."""
        symbols = guess.data.reshape(len(guess.data), -1).astype(np.int64)[:, guess.places]
        width = self._width(symbols.shape[1])
        tokens = self._tokens(symbols, guess.begin, width)
        given = self._subject.conditions() if conditions is None else conditions
        try:
            with quiet():
                logits = self._logits({**given, "tokens": tokens})
        except Exception:  # an id outside the network's table; runtimes raise types of their own
            return np.full(len(symbols), np.inf)
        if guess.law:
            if logits.min() < 0.0 or logits.max() > 1.0:
                return np.full(len(symbols), np.inf)
            logits = np.log(np.maximum(logits, 1e-12))
        return self._means(logits, symbols[:, :width], guess.late, first)

    def _logits(self, inputs: dict[str, Array]) -> Floats:
        if self._subject.has("scorer"):
            return self._subject.ask("scorer", inputs)["logits"]
        if self._decoder is None:
            package, component = self._subject.package, self._subject.spec.components["decoder"]
            self._decoder = read_at_once(open_graph(package.component_path("decoder"), component), component)
        return np.asarray(self._decoder(inputs)["logits"], np.float64)

    def _width(self, symbols: int) -> int:
        if not self._subject.has("scorer"):
            return min(symbols, WIDTH)
        axis = next(p.shape[1] for p in self._subject.spec.components["scorer"].inputs if p.name == "tokens")
        return axis if isinstance(axis, int) else min(symbols, WIDTH)

    def _tokens(self, symbols: Ids, begin: Ids, width: int) -> Ids:
        tokens = np.zeros((len(symbols), width), np.int64)
        start = int(self._section.shifted_input)
        read = symbols[:, : width - start]
        tokens[:, :start] = begin[:, None]
        tokens[:, start : start + read.shape[1]] = read
        return tokens

    def _means(self, logits: Floats, symbols: Ids, late: bool, first: int) -> Floats:
        logits = logits[:, : symbols.shape[1]]
        laws = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        if late:
            laws, symbols = laws[:, :-1], symbols[:, 1:]
        found = np.take_along_axis(laws, symbols[..., None], axis=-1)[..., 0]
        counts = np.clip(self._counts, 1, min(symbols.shape[1], first))
        scored = np.arange(symbols.shape[1]) < counts[:, None]
        return np.asarray(-(found * scored).sum(axis=1) / counts / np.log(2.0), np.float64)


def _own(subject: Subject, section: Autoregressive) -> Guess:
    data = subject.rows.data
    width = data.reshape(len(data), -1).shape[1]
    places = np.arange(width) if section.order is None else np.asarray(section.order)
    return Guess("", data, places, _begin(subject, section))


def _begin(subject: Subject, section: Autoregressive, labels: Array | None = None) -> Ids:
    if section.begin_condition is None:
        return np.full(len(subject), section.begin_symbol or 0, np.int64)
    values = subject.conditions()[section.begin_condition] if labels is None else labels
    return np.asarray(values, np.int64) + section.begin_offset


def _guesses(subject: Subject, section: Autoregressive, own: Guess) -> Iterator[Guess]:
    yield replace(own, mistake="outputs are one place late: the network shifts its input itself", late=True)
    yield replace(own, mistake="probabilities taken for logits (gives): it ends in a softmax", law=True)
    levels = subject.data.levels
    if subject.data.kind == "image":
        turned = (levels - 1 - own.data.astype(np.int64)).astype(own.data.dtype)
        yield replace(own, mistake="dark taken for bright: levels are turned", data=turned)
        yield from _orders(own)
        for mistake, data in layouts(own.data):
            if own.data.shape[1] == 1 and "columns" in mistake:
                continue  # the same as the order "columns"
            yield replace(own, mistake=mistake, data=data)


def _first_symbols(subject: Subject, section: Autoregressive, own: Guess, scoring: _Scoring) -> Check:
    """A begin symbol shows in what follows it at once: rows are compared one by one, with and without it."""
    first = FIRST if section.begin_condition is None else WIDTH  # a class shows everywhere
    mine = scoring.rows(own, None, first)
    best, mistake = float(mine.mean()), ""
    for guess in _begins(subject, section, own):
        theirs = scoring.rows(guess, None, first)
        gain = mine - theirs
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if np.isfinite(theirs).all() else np.inf
        if gain.mean() > max(SURE * error, 0.02 * mine.mean()) and theirs.mean() < best:
            best, mistake = float(theirs.mean()), guess.mistake
    detail = f"of the first {first}, after the begin symbol; bound: the best begin symbol tried"
    return Check(
        "bits per symbol, at the beginning", float(mine.mean()), best, not mistake, "bits", detail, mistake
    )


def _begins(subject: Subject, section: Autoregressive, own: Guess) -> Iterator[Guess]:
    size = section.vocabulary
    if section.begin_condition is not None:
        for offset in sorted({0, size, size + 1, section.begin_offset - 1, section.begin_offset + 1}):
            if offset >= 0 and offset != section.begin_offset:
                begin = own.begin - section.begin_offset + offset
                mistake = f"wrong begin symbol: offset {offset} fits, not {section.begin_offset}"
                yield replace(own, mistake=mistake, begin=begin)
        return
    said = section.begin_symbol or 0
    for symbol in sorted({0, 1, size - 1, size, size + 1, said - 1, said + 1} - {said}):
        if symbol >= 0:
            mistake = f"wrong begin symbol: {symbol} fits, not {said}"
            yield replace(own, mistake=mistake, begin=np.full_like(own.begin, symbol))


def _orders(own: Guess) -> Iterator[Guess]:
    shape = own.data.shape[1:]
    grid = np.arange(own.places.size).reshape(shape)
    known = {
        "raster": grid,
        "columns": grid.transpose(0, 2, 1),
        "interleaved": grid.transpose(1, 2, 0),
        "reversed": grid.reshape(-1)[::-1],
    }
    for name, places in known.items():
        flat = np.ascontiguousarray(places).reshape(-1)
        if not np.array_equal(flat, own.places):
            yield replace(own, mistake=f"another order: {name} fits", places=flat)


def _labels(
    subject: Subject, section: Autoregressive, own: Guess, scoring: _Scoring, loss: float
) -> Iterator[Check]:
    condition, labels = subject.condition, subject.labels
    if condition is None or labels is None or condition.classes < 2:
        return

    def given(values: Ids) -> float:
        begin = own.begin
        if section.begin_condition == condition.name:
            begin = _begin(subject, section, values)
        return scoring.bits(replace(own, begin=begin), subject.conditions(values))

    wrong = float(np.mean([given((labels + shift) % condition.classes) for shift in (1, 2, 3)]))
    yield below("bits per symbol, labels given", loss, wrong, [], unit="bits", detail="bound: wrong labels")
    if condition.null_value is not None:
        null = given(np.full_like(labels, condition.null_value))
        bound = min(given(np.full_like(labels, label)) for label in np.unique(labels)[:CLASSES].tolist())
        mistake = "" if null < bound else f"null_value {condition.null_value} is a class or was never trained"
        detail = "bound: the best single class for all rows"
        yield Check("bits per symbol, null label", null, bound, not mistake, "bits", detail, mistake)


@contextmanager
def quiet() -> Iterator[None]:
    """Runtimes write their own complaints to file 2; here they are expected."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _marginal(subject: Subject) -> float:
    """Bits per symbol of the best law without memory: each place on its own, fitted to the other rows."""
    if subject.rows.lengths is not None:
        symbols = np.concatenate(
            [row[:n] for row, n in zip(subject.rows.data, subject.rows.lengths, strict=True)]
        )
        share = np.bincount(symbols.astype(np.int64), minlength=subject.data.levels) + 1.0
        return float(-np.log2(share[symbols.astype(np.int64)] / share.sum()).mean())
    data = subject.rows.data.reshape(len(subject), -1).astype(np.int64)
    counts = np.apply_along_axis(np.bincount, 0, data, minlength=subject.data.levels)  # [levels, places]
    own = np.take_along_axis(counts, data, axis=0)
    return float(-np.log2(own / (len(data) - 1.0 + subject.data.levels)).mean())

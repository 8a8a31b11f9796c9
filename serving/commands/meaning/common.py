"""Checks of every family: networks repeat themselves, and samples look like the data from afar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from export.package.seeded import seeded_inputs
from serving.commands.meaning.check import Check
from serving.commands.meaning.gan import distance
from serving.commands.meaning.readings import declared
from serving.commands.meaning.subject import Array, Floats, Reading, Subject
from serving.commands.offline import Offline, request_of
from serving.families.request import Operation
from serving.families.result import Sampled

PROBED_ROWS = 8
TOLERANCE = 1e-3  # of a repeated output, relative to the largest: far above rounding, far below dropout
FAR = 0.5  # of the way from the data's law of symbols to the uniform one


def repeats(subject: Subject) -> Iterator[Check]:
    """The same inputs give the same outputs, alone and in a batch."""
    for name in subject.spec.components:
        if name.endswith("_vjp") or (name == "decoder" and subject.spec.autoregressive is not None):
            continue
        inputs = seeded_inputs(subject.spec, name, PROBED_ROWS)
        together, again = subject.ask(name, inputs), subject.ask(name, inputs)
        alone = subject.ask(name, {key: value[:1] for key, value in inputs.items()})
        moved = max(_moved(together[key], again[key]) for key in together)
        joined = max(_moved(together[key][:1], alone[key]) for key in together)
        mistake = (
            "training mode: dropout, or noise that the network draws itself" if moved > TOLERANCE else ""
        )
        if joined > TOLERANCE and not mistake:
            mistake = "training mode: rows depend on their neighbours, as batch normalisation makes them"
        value, detail = max(moved, joined), "largest change of an output, alone, in a batch, and asked again"
        yield Check(f"{name} repeats itself", value, TOLERANCE, not mistake, "", detail, mistake)


def _moved(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).max(initial=0.0) / max(1.0, float(np.abs(one).max(initial=0.0))))


def samples(running: Offline, subject: Subject) -> Iterator[Check]:
    """Means and contrast of samples at the package's defaults, and how many values lie at the ends."""
    capability = running.capability(Operation.SAMPLE)
    if not capability.supported:
        return
    rows = subject.rows
    asked = request_of(subject.spec, Operation.SAMPLE, capability.default, rows, 0)
    result = running.submit(replace(asked, data=None, lengths=None)).result()
    assert isinstance(result, Sampled)
    if subject.data.kind == "tokens":
        yield _symbols(subject, result)
        return
    own = declared(subject)
    generated = Reading("", subject.data, result.data).x
    value, detail = distance(own.x, generated), "of pixels' means and contrast; 1: the mean pixel everywhere"
    mistake = (
        "" if value < 1.0 else "the process is misread (schedule, sign, time) or the sampler does not fit it"
    )
    yield Check("samples, distance", value, 1.0, value < 1.0, "", detail, mistake)
    yield _at_the_ends(own.x, generated)


def _symbols(subject: Subject, result: Sampled) -> Check:
    levels = subject.data.levels
    data, drawn = (
        _law(subject.rows.data, subject.rows.lengths, levels),
        _law(result.data, result.lengths, levels),
    )
    uniform = float(np.abs(data - 1.0 / levels).sum())
    value = float(np.abs(data - drawn).sum()) / max(uniform, 1e-9)
    mistake = "" if value < FAR else "another vocabulary or tokenizer, or a wrong begin symbol"
    detail = "of the law of symbols; 1: uniform symbols"
    return Check("samples, distance", value, FAR, value < FAR, "", detail, mistake)


def _law(data: Array, lengths: Array | None, levels: int) -> Floats:
    flat = data.reshape(len(data), -1).astype(np.int64)
    counts = np.full(len(flat), flat.shape[1]) if lengths is None else np.asarray(lengths)
    kept = flat[np.arange(flat.shape[1]) < counts[:, None]]
    return np.bincount(kept, minlength=levels)[:levels] / max(1, len(kept))


def _at_the_ends(x: Floats, generated: Floats) -> Check:
    low, high = x.min(), x.max()
    edge = 0.02 * (high - low)

    def share(values: Floats) -> float:
        return float(((values <= low + edge) | (values >= high - edge)).mean())

    value, bound = abs(share(generated) - share(x)), 0.35
    mistake = "" if value < bound else "samples saturate or stay gray: data_range, or guidance too strong"
    detail = f"share at the darkest and brightest: samples {share(generated):.2f}, data {share(x):.2f}"
    return Check("samples, range", value, bound, value < bound, "", detail, mistake)

"""Denoisers: the loss at several noise levels, under the package's reading and under every other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.model.schedules import CosineBetas, LinearBetas, ScaledLinearBetas
from export.package.schema import Condition, Diffusion, VeSchedule, VpSchedule
from serving.commands.meaning.check import Alternative, Check, below
from serving.commands.meaning.readings import data_readings, declared
from serving.commands.meaning.subject import Floats, Reading, Subject
from serving.families.diffusion.process import Levels, Process

LEVELS = 8
RATIOS = (0.1, 8.0)  # noise relative to the signal, where the data matter
FLOW = (0.08, 0.92)
TINY = 1e-12
CLASSES = 10  # looked at, one by one
SURE = 4.0  # standard errors: one false alarm in 30,000 levels

_WHAT = {
    "epsilon": "the noise (epsilon)",
    "sample": "x0 (sample)",
    "v": "v",
    "score": "the score",
    "flow": "e - x0 (flow)",
    "flow_reversed": "x0 - e (flow_reversed)",
}


@dataclass(frozen=True)
class Guess:
    """One reading of a denoiser. ``told`` replaces the time; ``sign`` turns the output.

    ``labels`` are those that the network is given; ``averaged``: its estimates for these classes instead.
    """

    mistake: str
    section: Diffusion
    reading: Reading
    told: Callable[[Levels, Process], Floats] | None = None
    sign: float = 1.0
    labels: NDArray[np.int64] | None = None
    averaged: tuple[int, ...] = ()


def checks(subject: Subject) -> Iterator[Check]:
    """Losses per level, and what labels and their null value are worth."""
    assert subject.spec.diffusion is not None
    own = Guess("", subject.spec.diffusion, declared(subject))
    denoising = _Denoising(subject)
    yield _per_level(denoising.errors(own), denoising.guessed(own))
    score = denoising.score(own)
    detail = "geometric mean over levels; 1: each pixel on its own, linearly"
    others = (Alternative(guess.mistake, denoising.score(guess)) for guess in _guesses(subject, own))
    yield below("denoising loss", score, 1.0, list(others), detail=detail)
    yield from _labels(subject, denoising, own, score)


class _Denoising:
    """Runs the denoiser; outputs for the same inputs are asked for once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        section = subject.spec.diffusion
        shape = (section and section.latent_shape) or subject.data.shape
        self._noise = subject.normal(LEVELS, len(subject), *shape)
        self._known: dict[tuple[bytes, bytes, bytes], Floats] = {}

    def score(self, guess: Guess) -> float:
        """The geometric mean of the losses; infinite where the reading makes no sense."""
        return _mean(self.losses(guess))

    def losses(self, guess: Guess) -> Floats:
        """Error of x0 at each level, of that of the best linear guess of each pixel on its own; [levels]."""
        spread, ratio2 = self._spread(guess.reading), np.square(noise_levels(Process(guess.section)).ratio)
        linear = np.array([(spread * r / (spread + r)).mean() for r in ratio2])
        return np.asarray(self.errors(guess).mean(axis=1) / linear, np.float64)

    def errors(self, guess: Guess) -> Floats:
        """Mean square error of x0 of every row at each level, [levels, rows]; infinite where undefined."""
        process = Process(guess.section)
        levels, x0 = noise_levels(process), self._clean(guess.reading)
        p, q = process.prediction(levels)
        scale = process.input_scale(levels)
        time = levels.time if guess.told is None else guess.told(levels, process)
        found = np.empty((len(levels), len(x0)))
        for i in range(len(levels)):
            x = levels.alpha[i] * x0 + levels.sigma[i] * self._noise[i]
            output = guess.sign * self._estimate(guess, x * scale[i], time[i])
            found[i] = _row_means(np.square(p[i] * x + q[i] * output - x0))
        return np.where(np.isfinite(found), found, np.inf)

    def guessed(self, own: Guess) -> Floats:
        """The same of the better of two guesses: no noise at all, and the mean of the other images."""
        ratio2 = np.square(noise_levels(Process(own.section)).ratio)
        x0, spread = self._clean(own.reading), self._spread(own.reading)
        rows = np.square(x0 - x0.mean(axis=0)) * self._subject.unbiased
        none = np.stack([r * _row_means(np.square(z)) for r, z in zip(ratio2, self._noise, strict=False)])
        return np.where((ratio2 < spread.mean())[:, None], none, _row_means(rows)[None])

    def _estimate(self, guess: Guess, x: Floats, time: float) -> Floats:
        if not guess.averaged:
            return self._output(x, time, guess.labels)
        fixed = [np.full(len(x), label, np.int64) for label in guess.averaged]
        return np.asarray(np.mean([self._output(x, time, labels) for labels in fixed], axis=0), np.float64)

    def _spread(self, reading: Reading) -> Floats:
        return np.asarray(self._clean(reading).var(axis=0) * self._subject.unbiased + TINY, np.float64)

    def _clean(self, reading: Reading) -> Floats:
        """What noise is added to: the rows, or their latents."""
        if not self._subject.has("encoder"):
            return reading.x
        key = (reading.x.tobytes(), b"", b"")
        if key not in self._known:
            self._known[key] = self._subject.ask("encoder", {"x": reading.x.astype(np.float32)})["latent"]
        return self._known[key]

    def _output(self, x: Floats, time: float, labels: NDArray[np.int64] | None) -> Floats:
        inputs = {"x": x.astype(np.float32), "t": np.full(len(x), time)}
        if not np.isfinite(time):
            return np.full(x.shape, np.inf)
        given = self._subject.conditions(labels)
        key = (inputs["x"].tobytes(), inputs["t"].tobytes(), b"".join(v.tobytes() for v in given.values()))
        if key not in self._known:
            answer = self._subject.ask("denoiser", {**inputs, **given})["prediction"]
            self._known[key] = answer[:, : x.shape[1]]  # without a learned variance
        return self._known[key]


def noise_levels(process: Process) -> Levels:
    """``LEVELS`` levels where the signal is neither untouched nor drowned."""
    if process.is_flow:
        return process.at_flow(np.linspace(*FLOW, LEVELS))
    low, high = process.ratio_range
    ratios = np.geomspace(max(low, min(RATIOS[0], high / 4)), min(high, RATIOS[1]), LEVELS)
    steps = np.rint(np.interp(np.log(ratios), np.log(_ratios(process)), np.arange(process.count)))
    return process.at(np.unique(steps).astype(np.int64))


def _ratios(process: Process) -> Floats:
    return process.at(np.arange(process.count)).ratio


def _mean(losses: Floats) -> float:
    return float(np.exp(np.log(np.maximum(losses, TINY)).mean()))


def _per_level(errors: Floats, guessed: Floats) -> Check:
    """Below the two guesses that know nothing of the image, or above them by no more than chance allows."""
    relative = errors.mean(axis=1) / guessed.mean(axis=1)
    excess = errors - guessed  # of the same rows
    sure = excess.mean(axis=1) > SURE * excess.std(axis=1, ddof=1) / np.sqrt(excess.shape[1])
    wrong = ~np.isfinite(relative) | ((relative >= 1.0) & sure)
    shown = " ".join(f"{value:.2f}" for value in relative)
    detail = f"by level: {shown}; 1: predicting no noise, or the mean image"
    mistake = "see the next line" if wrong.any() else ""
    return Check("denoising loss, worst level", float(relative.max()), 1.0, not mistake, "", detail, mistake)


def _row_means(values: Floats) -> Floats:
    return np.asarray(values.reshape(len(values), -1).mean(axis=1), np.float64)


def _guesses(subject: Subject, own: Guess) -> Iterator[Guess]:
    yield from _predictions(own)
    yield from _times(own)
    yield from _schedules(own)
    for reading in data_readings(subject):
        yield replace(own, mistake=reading.mistake, reading=reading)


def _predictions(own: Guess) -> Iterator[Guess]:
    said = own.section.prediction
    for prediction, name in _WHAT.items():
        if prediction != said:
            section = own.section.model_copy(update={"prediction": prediction})
            mistake = f"{name} taken for {_WHAT.get(said, said)} (prediction)"
            yield replace(own, mistake=mistake, section=section)
    yield replace(own, mistake=f"the sign of {_WHAT.get(said, said)} is turned", sign=-1.0)
    for scale in ("none", "inverse_rms"):
        if scale != own.section.input_scale:
            section = own.section.model_copy(update={"input_scale": scale})
            mistake = f"input_scale {scale} taken for {own.section.input_scale}"
            yield replace(own, mistake=mistake, section=section)


def _times(own: Guess) -> Iterator[Guess]:
    said = own.section.time_input
    for kind in ("step", "fraction", "reversed_fraction", "sigma", "log_sigma", "quarter_log_sigma"):
        if kind != said:
            section = own.section.model_copy(update={"time_input": kind})
            yield replace(own, mistake=f"time {kind} taken for {said}", section=section)
    yield replace(own, mistake=f"time runs the other way than {said}", told=_turned)


def _turned(levels: Levels, process: Process) -> Floats:
    """The same range of times, from its other end."""
    if process.spec.time_input == "step":
        return np.asarray(process.count - 1 - levels.time, np.float64)
    return np.asarray(levels.time[::-1], np.float64)


def _schedules(own: Guess) -> Iterator[Guess]:
    schedule = own.section.schedule
    if not isinstance(schedule, VpSchedule):
        yield from _scales(own)
        return
    said = np.asarray(schedule.betas)
    count = len(said)
    for known in (LinearBetas(count), ScaledLinearBetas(count), CosineBetas(count)):
        betas = np.asarray(known.section()["betas"])
        if not np.allclose(betas, said, atol=1e-6):
            section = own.section.model_copy(update={"schedule": VpSchedule(betas=tuple(betas.tolist()))})
            mistake = f"another schedule: {known.kind} ({type(known).__name__}) fits"
            yield replace(own, mistake=mistake, section=section)


def _scales(own: Guess) -> Iterator[Guess]:
    """Variance exploding: the same steps over other noise scales."""
    schedule = own.section.schedule
    if not isinstance(schedule, VeSchedule) or own.section.time_input not in ("step", "fraction"):
        return
    for factor in (0.1, 0.5, 2.0, 10.0):
        sigmas = tuple(factor * sigma for sigma in schedule.sigmas)
        section = own.section.model_copy(update={"schedule": VeSchedule(sigmas=sigmas)})
        mistake = f"another schedule: noise scales {factor:g} times as large fit"
        yield replace(own, mistake=mistake, section=section)


def _labels(subject: Subject, denoising: _Denoising, own: Guess, score: float) -> Iterator[Check]:
    condition, labels = subject.condition, subject.labels
    if condition is None or labels is None or condition.classes < 2:
        return
    classes = condition.classes
    others = [(labels + shift) % classes for shift in range(1, classes, max(1, classes // 4))]
    wrong = float(np.mean([denoising.score(replace(own, labels=other)) for other in others]))
    shifted = [
        Alternative(f"labels are off by {s}", denoising.score(replace(own, labels=(labels + s) % classes)))
        for s in (-1, 1)
    ]
    yield below("denoising loss, labels given", score, wrong, shifted, detail="bound: with wrong labels")
    if condition.null_value is None:
        return
    yield _null(denoising, own, labels, condition)


def _null(denoising: _Denoising, own: Guess, labels: NDArray[np.int64], condition: Condition) -> Check:
    """A trained null weighs the classes by what it sees, so it fits better than their plain average."""
    assert condition.null_value is not None
    null = denoising.score(replace(own, labels=np.full_like(labels, condition.null_value)))
    classes = tuple(label for label in np.unique(labels)[:CLASSES].tolist() if label != condition.null_value)
    bound = denoising.score(replace(own, averaged=classes))
    mistake = (
        f"guidance without a null: null_value {condition.null_value} is a class or was never trained; "
        f"correct it, or leave it out"
    )
    passed, detail = null < bound, "bound: the average of the estimates for every class"
    return Check("denoising loss, null label", null, bound, passed, "", detail, "" if passed else mistake)

"""VAEs: bits per dimension of the ELBO, the reconstruction, and what the posterior looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from export.package.schema import Vae
from serving.commands.meaning.autoencoder import relative_error
from serving.commands.meaning.check import UNEXPLAINED, Alternative, Check, below
from serving.commands.meaning.readings import data_readings, declared
from serving.commands.meaning.subject import Floats, Reading, Subject
from serving.families.latent.observation import ObservationModel, observation_model

DRAWS = 4
Map = Callable[[Floats], Floats]
COLLAPSED_NATS, EXPLODED = 0.01, 4.0  # per latent dimension: of KL; of the second moment of q(z)
LEAST = 1e-30
NEAR_BITS, FAR_BITS, SURE = 0.01, 0.25, 5.0  # gains per dimension that count; standard errors


def _same(y: Floats) -> Floats:
    return y


# From the log-variance that a package states to the one that the network means.
SPREADS: dict[str, Map] = {
    "a log-variance taken for a log-deviation (posterior)": lambda y: y / 2.0,
    "a log-deviation taken for a log-variance (posterior)": lambda y: 2.0 * y,
    "a deviation taken for a log-variance (posterior)": lambda y: 2.0 * _log(y),
    "a variance taken for a log-variance (posterior)": lambda y: _log(y),
    "a log-variance taken for a deviation (posterior)": lambda y: np.exp(np.minimum(y / 2.0, 50.0)),
    "a variance taken for a deviation (posterior)": lambda y: y / 2.0,
    "a log-deviation taken for a deviation (posterior)": lambda y: 2.0 * np.exp(np.minimum(y / 2.0, 50.0)),
}
# From the decoder's log-scale that a package states to the one that the network means.
SCALES: dict[str, Map] = {
    "a log-variance taken for a log-scale (observation)": lambda y: y / 2.0,
    "a scale taken for its logarithm (observation)": lambda y: _log(y),
    "a variance taken for a log-scale (observation)": lambda y: _log(y) / 2.0,
}


@dataclass(frozen=True)
class Guess:
    """One reading of both networks."""

    mistake: str
    reading: Reading
    spread: Map = _same
    scale: Map = _same
    logits: Map = _same
    std: float | None = None  # instead of the fixed one


def checks(subject: Subject) -> Iterator[Check]:
    """The bound on the evidence, the reconstruction, the posterior."""
    assert subject.spec.vae is not None
    own = Guess("", declared(subject))
    scoring = _Scoring(subject, subject.spec.vae)
    rows, bound = scoring.rows(own), _bound(subject)
    guesses = list(_guesses(subject, scoring, own))
    yield _fits(rows, bound, [(guess, scoring.rows(guess)) for guess in guesses])
    readings = [guess for guess in guesses if guess.reading is not own.reading]
    others = [Alternative(guess.mistake, scoring.error(guess)) for guess in readings]
    detail = "root mean square; 1: the mean image"
    yield below("reconstruction error", scoring.error(own), 1.0, others, detail=detail)
    yield from _posterior(scoring, own)


def _fits(rows: Floats, bound: float, others: list[tuple[Guess, Floats]]) -> Check:
    """Readings are compared row by row; bits may be negative, so their difference counts.

    A decoder that fits its training rows too well likes wider scales on others, which is no mistake: those
    have to be far better.
    """
    bits, best, mistake = float(rows.mean()), float(rows.mean()), ""
    for guess, found in others:
        gain = rows - found
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if np.isfinite(found).all() else np.inf
        least = FAR_BITS if guess.scale is not _same else NEAR_BITS
        if gain.mean() > max(least, SURE * error) and found.mean() < best:
            best = float(found.mean())
            mistake = f"{guess.mistake}: {best:.3g} instead of {bits:.3g} bits per dimension"
    passed = bits < bound and not mistake
    if not passed and not mistake:
        mistake = UNEXPLAINED
    detail = "the ELBO; bound: uniform levels, or each pixel's own normal law"
    return Check("bits per dimension", bits, bound, passed, "bits", detail, mistake)


def _bound(subject: Subject) -> float:
    if subject.data.levels:
        return float(np.log2(subject.data.levels))
    values = subject.rows.data.reshape(len(subject), -1).astype(np.float64)
    deviation = np.sqrt(values.var(axis=0) * subject.unbiased) + 1e-6
    return float(np.log2(deviation * np.sqrt(2.0 * np.pi * np.e)).mean())


class _Scoring:
    """Runs encoder and decoder."""

    def __init__(self, subject: Subject, section: Vae) -> None:
        self._subject = subject
        self._section = section
        self._noise = subject.normal(DRAWS, len(subject), *section.latent_shape)

    def rows(self, guess: Guess) -> Floats:
        """-ELBO per dimension in bits (Kingma and Welling 2014, eq. 10), of data values; [rows]."""
        mean, log_variance = self.posterior(guess)
        divergence = 0.5 * (np.square(mean) + np.exp(np.minimum(log_variance, 80.0)) - 1.0 - log_variance)
        model = self.observation(guess)
        x = torch.from_numpy(guess.reading.x)
        found = [
            model.log_prob(self._outputs(guess, mean + np.exp(0.5 * log_variance) * noise), x)
            .reshape(len(x), -1)
            .sum(1)
            for noise in self._noise
        ]
        elbo = torch.stack(found).mean(0).numpy() - divergence.reshape(len(x), -1).sum(1)
        bits = -elbo / (x[0].numel() * np.log(2.0))
        return np.where(np.isfinite(bits), bits, np.inf)

    def error(self, guess: Guess) -> float:
        """Root mean square error of the mean image, through the posterior's mean."""
        mean, _ = self.posterior(guess)
        found = self.observation(guess).mean(self._outputs(guess, mean)).double().numpy()
        return relative_error(self._subject, guess.reading.x, found)

    def posterior(self, guess: Guess) -> tuple[Floats, Floats]:
        """Mean and log-variance."""
        given = self._subject.conditions()
        found = self._subject.ask("encoder", {"x": guess.reading.x, **given})
        return found["mean"], guess.spread(found["log_variance"])

    def observation(self, guess: Guess) -> ObservationModel:
        """p(x | z) over the data as this reading shows them."""
        observation = self._section.observation
        if guess.std is not None:
            observation = observation.model_copy(update={"scale": guess.std})
        return observation_model(guess.reading.space, observation)

    def deviation(self, guess: Guess) -> float:
        """Root mean square error of the mean image, in model coordinates."""
        mean, _ = self.posterior(guess)
        found = self.observation(guess).mean(self._outputs(guess, mean)).double().numpy()
        return float(np.sqrt(np.square(found - guess.reading.x).mean()))

    @property
    def fixed_std(self) -> float | None:
        """Of a Gaussian observation that has one."""
        observation = self._section.observation
        return observation.scale if observation.kind == "gaussian" else None

    def outputs(self, guess: Guess) -> dict[str, Floats]:
        """The decoder's, at the posterior's means."""
        mean, _ = self.posterior(guess)
        return {name: value.numpy() for name, value in self._outputs(guess, mean).items()}

    def _outputs(self, guess: Guess, latent: Floats) -> dict[str, torch.Tensor]:
        found = self._subject.ask("decoder", {"latent": latent, **self._subject.conditions()})
        changed = {"log_scale": guess.scale, "logits": guess.logits}
        return {name: torch.from_numpy(changed.get(name, _same)(value)) for name, value in found.items()}


def _guesses(subject: Subject, scoring: _Scoring, own: Guess) -> Iterator[Guess]:
    for reading in data_readings(subject):
        yield replace(own, mistake=reading.mistake, reading=reading)
    for mistake, spread in SPREADS.items():
        yield replace(own, mistake=mistake, spread=spread)
    if scoring.fixed_std is not None:
        std = scoring.deviation(own)
        mistake = (
            f"a standard deviation of {scoring.fixed_std:.3g}, where the error is {std:.3g} (observation)"
        )
        yield replace(own, mistake=mistake, std=std)
    outputs = scoring.outputs(own)
    if "log_scale" in outputs:
        for mistake, scale in SCALES.items():
            yield replace(own, mistake=mistake, scale=scale)
    if "logits" in outputs:
        yield from _logits(own, outputs["logits"])


def _logits(own: Guess, logits: Floats) -> Iterator[Guess]:
    if logits.min() >= 0.0 and logits.max() <= 1.0:
        mistake = "probabilities taken for logits (observation): the decoder ends in a sigmoid"
        yield replace(own, mistake=mistake, logits=lambda y: _log(y) - _log(1.0 - y))
    mistake = "logits taken for probabilities (observation)"
    yield replace(own, mistake=mistake, logits=lambda y: 1.0 / (1.0 + np.exp(-y)))


def _posterior(scoring: _Scoring, own: Guess) -> Iterator[Check]:
    mean, log_variance = (part.reshape(len(part), -1) for part in scoring.posterior(own))
    variance = np.exp(np.minimum(log_variance, 80.0))
    nats = float(0.5 * (np.square(mean) + variance - 1.0 - log_variance).mean())
    collapsed = nats < COLLAPSED_NATS
    mistake = "the posterior has collapsed: latents carry nothing of x" if collapsed else ""
    detail = "KL(q(z|x) | N(0, I)) per latent dimension, at least"
    yield Check("posterior, information", nats, COLLAPSED_NATS, not collapsed, "nats", detail, mistake)
    moment = float((np.square(mean) + variance).mean())
    exploded = not moment < EXPLODED
    mistake = "the posterior is far wider than its prior: another form of its spread, or no KL in training"
    detail = "E[z^2] over the rows; 1: that of the prior"
    yield Check(
        "posterior, second moment", moment, EXPLODED, not exploded, "", detail, mistake if exploded else ""
    )


def _log(y: Floats) -> Floats:
    return np.log(np.maximum(y, LEAST))

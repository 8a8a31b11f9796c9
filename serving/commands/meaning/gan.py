"""GANs: generated rows against the data, the discriminator's direction, the encoder's error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from serving.commands.meaning.autoencoder import relative_error
from serving.commands.meaning.check import Alternative, Check, below
from serving.commands.meaning.readings import data_readings, declared
from serving.commands.meaning.subject import Floats, Reading, Subject

GENERATED = 4  # times as many rows as the data have


def checks(subject: Subject) -> Iterator[Check]:
    """Generator, and what else there is."""
    assert subject.spec.gan is not None
    own = declared(subject)
    generated = _generated(subject)
    others = [Alternative(r.mistake, distance(r.x, generated)) for r in data_readings(subject)]
    detail = "of generated pixels' means from the data's; 1: the mean pixel everywhere"
    yield below("distance of generated rows", distance(own.x, generated), 1.0, others, detail=detail)
    if subject.has("discriminator"):
        yield from _discriminator(subject, own)
    if subject.has("encoder"):
        yield _encoder(subject, own)


def _generated(subject: Subject) -> Floats:
    assert subject.spec.gan is not None
    latents = subject.normal(GENERATED, len(subject), *subject.spec.gan.latent_shape)
    return np.concatenate(
        [subject.ask("generator", {"latent": z, **subject.conditions()})["x"] for z in latents]
    )


def distance(x: Floats, generated: Floats) -> float:
    """Between the mean images, and between the deviations of pixels, relative to how far pixels differ.

    1 is what a generator of the mean pixel, with the right contrast, has.
    """
    spread = float(np.sqrt(x.mean(axis=0).var() + x.var(axis=0).mean() / len(x)))
    means = float(np.sqrt(np.square(generated.mean(axis=0) - x.mean(axis=0)).mean()))
    contrast = abs(float(np.log((generated.std() + 1e-9) / (x.std() + 1e-9))))
    found = means / max(spread, 1e-9) + contrast
    return found if np.isfinite(found) else float("inf")


def _discriminator(subject: Subject, own: Reading) -> Iterator[Check]:
    """Real rows against the same numbers in random places."""
    given = subject.conditions()
    real = subject.ask("discriminator", {"x": own.x, **given})["logit"]
    order = np.random.default_rng(0).permutation(own.x[0].size)
    shuffled = own.x.reshape(len(own.x), -1)[:, order].reshape(own.x.shape)
    fake = subject.ask("discriminator", {"x": shuffled, **given})["logit"]
    wins = float((real[:, None] > fake[None]).mean() + 0.5 * (real[:, None] == fake[None]).mean())
    mistake = "" if wins > 0.5 else "the sign of the discriminator is turned: larger must mean more real"
    both = np.concatenate([real, fake])
    if both.min() >= 0.0 and both.max() <= 1.0:
        mistake = "probabilities taken for logits (scores): the discriminator ends in a sigmoid"
    detail = "share of pairs in which the data score higher than shuffled pixels, above"
    yield Check("discriminator's direction", wins, 0.5, not mistake, "", detail, mistake)


def _encoder(subject: Subject, own: Reading) -> Check:
    given = subject.conditions()

    def error(reading: Reading) -> float:
        latent = subject.ask("encoder", {"x": reading.x, **given})["latent"]
        return relative_error(subject, reading.x, subject.ask("generator", {"latent": latent, **given})["x"])

    others = [Alternative(r.mistake, error(r)) for r in data_readings(subject)]
    return below("inversion error", error(own), 1.0, others, detail="root mean square; 1: the mean image")

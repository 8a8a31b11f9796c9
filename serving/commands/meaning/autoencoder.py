"""Autoencoders: the error of a reconstruction against that of the mean image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from serving.commands.meaning.check import Alternative, Check, below
from serving.commands.meaning.readings import data_readings, declared
from serving.commands.meaning.subject import Floats, Reading, Subject


def checks(subject: Subject) -> Iterator[Check]:
    """One loss."""
    loss = reconstruction(subject, declared(subject))
    others = [Alternative(r.mistake, reconstruction(subject, r)) for r in data_readings(subject)]
    yield below("reconstruction error", loss, 1.0, others, detail="root mean square; 1: the mean image")


def reconstruction(
    subject: Subject, reading: Reading, encoder: str = "encoder", decoder: str = "decoder"
) -> float:
    """Root mean square error through both networks, of that of the mean image."""
    x = reading.x
    latent = subject.ask(encoder, {"x": x, **subject.conditions()})["latent"]
    found = subject.ask(decoder, {"latent": latent, **subject.conditions()})["x"]
    return relative_error(subject, x, found)


def relative_error(subject: Subject, x: Floats, found: Floats) -> float:
    """Of that of the other rows' mean; infinite where ``found`` holds no numbers."""
    spread = x.var(axis=0).mean() * subject.unbiased
    error = float(np.sqrt(np.square(found - x).mean() / max(spread, 1e-12)))
    return error if np.isfinite(error) else float("inf")

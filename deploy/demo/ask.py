"""Every operation of one model, asked through the Python client; what it refuses is an answer too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pxserve import Client, PxserveError

SEED = 7


@dataclass
class Line:
    """One row of the table."""

    model: str
    operation: str
    method: str
    kind: str
    value: str
    milliseconds: float


@dataclass
class Answers:
    """What a model said: lines for the table, results by operation for the pictures."""

    lines: list[Line] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """An operation and how to ask it."""

    operation: str
    ask: Callable[[], Any]


def image_questions(client: Client, model: str, images: NDArray[np.uint8]) -> Iterator[Question]:
    """Sample, score, complete, encode, reconstruct and interpolate real handwriting [rows, 1, 8, 8]."""
    upper = np.zeros(images.shape[1:], np.bool_)
    upper[:, : images.shape[2] // 2] = True
    rows = images[:4]
    yield Question("sample", lambda: client.sample(model, 16, seed=SEED))
    yield Question("likelihood", lambda: client.likelihood(model, rows, seed=SEED))
    yield Question("inpaint", lambda: client.inpaint(model, rows, upper, n=4, seed=SEED))
    yield Question("score_anomaly", lambda: client.score_anomaly(model, rows, seed=SEED))
    yield Question("encode", lambda: client.encode(model, rows, seed=SEED, round_trip=True))
    yield Question("decode", lambda: client.decode(model, client.encode(model, rows, seed=SEED).latents))
    yield Question("reconstruct", lambda: client.reconstruct(model, rows, seed=SEED))
    yield Question("interpolate", lambda: client.interpolate(model, rows[:2], rows[2:4], points=8, seed=SEED))


def text_questions(client: Client, model: str, texts: list[str]) -> Iterator[Question]:
    """The same for text."""
    prompt = texts[0][:40]
    observed = np.arange(min(len(text.encode()) for text in texts)) % 8 < 6
    short = [text.encode()[: len(observed)].decode(errors="ignore") for text in texts]
    yield Question("sample", lambda: client.sample(model, 2, prompt=prompt, max_new_tokens=80, seed=SEED))
    yield Question("likelihood", lambda: client.likelihood(model, texts, seed=SEED))
    yield Question("inpaint", lambda: client.inpaint(model, short[:1], observed, n=2, seed=SEED))
    yield Question("score_anomaly", lambda: client.score_anomaly(model, texts, seed=SEED))
    yield Question("encode", lambda: client.encode(model, texts, seed=SEED))
    yield Question("decode", lambda: client.decode(model, np.zeros((1, 1), np.float32)))
    yield Question("reconstruct", lambda: client.reconstruct(model, texts, seed=SEED))
    yield Question("interpolate", lambda: client.interpolate(model, texts[:1], texts[1:2], seed=SEED))


def ask(model: str, question: Question, answers: Answers) -> None:
    """Ask one question, and write down the answer or the refusal."""
    begun = time.perf_counter()
    try:
        result = question.ask()
    except PxserveError as error:
        took_ms = 1e3 * (time.perf_counter() - begun)
        answers.lines.append(Line(model, question.operation, "", error.reason, error.message, took_ms))
        return
    took_ms = 1e3 * (time.perf_counter() - begun)
    answers.results[question.operation] = result
    kind = str(getattr(result, "kind", "") or "")
    line = Line(model, question.operation, result.provenance.method, kind, describe(result), took_ms)
    answers.lines.append(line)


def describe(result: Any) -> str:
    """The figure that matters, in a few words."""
    bits = getattr(result, "bits_per_dim", None)
    if bits is not None:
        return f"{np.mean(bits):.3f} bits/dim of {result.target}{_error(result)}"
    p_value = getattr(result, "p_value", None)
    if p_value is not None and len(p_value):
        return "p = " + ", ".join(f"{p:.2f}" for p in p_value)
    error = getattr(result, "error", getattr(result, "round_trip_error", None))
    if error is not None and len(error):
        return f"rms error {np.mean(error):.3f} levels"
    size = getattr(result, "effective_sample_size", None)
    if size is not None and len(size):
        return f"effective sample size {np.mean(size):.1f}"
    texts = getattr(result, "text", None)
    if texts:
        return repr(texts[0][:60])
    data = getattr(result, "data", getattr(result, "latents", None))
    return "" if data is None else f"{data.dtype} {tuple(data.shape)}"


def _error(result: Any) -> str:
    error = result.standard_error
    if error is None or not len(error):
        return ""
    return f" (standard error {np.mean(error):.2f} nats)"

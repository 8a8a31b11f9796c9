"""What gRPC adds: a unary call on an idle engine, and two clients that stream large messages."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np

from deploy.demo.server import serving
from pxserve import Client
from tests.benchmarks.engines import MODELS
from tests.benchmarks.figures import Figure

TITLE = "What the wire adds"
CALLS = 200
LARGE_BYTES = 3 << 20
WINDOW_S = 6.0


def run() -> list[Figure]:
    """Overhead of a unary call; tick rate under large messages over the quiet one, by engine."""
    figures = [unary()]
    for kind, target in (("thread", None), ("process", 0.9)):
        ratio = under_large_messages(kind)
        name = f"tick rate under two clients that send 3 MB messages, engine in a {kind}"
        figures.append(Figure(TITLE, name, ratio, target, "at least", "x"))
    return figures


def unary() -> Figure:
    """Latency at the client less the device seconds of the same call, in the middle."""
    with serving(MODELS, log=Path(os.devnull)) as server, Client(server.target) as client:
        image = client.sample("digits-vae", 1, seed=0).data
        extra = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            reply = client.encode("digits-vae", image)
            extra.append(time.perf_counter() - begun - reply.provenance.device_seconds)
    return Figure(
        TITLE, "unary call over its network time", float(np.median(extra)) * 1e3, 1.5, "at most", "ms"
    )


def under_large_messages(engine: str) -> float:
    """Rows per second of one long sampling request while two clients send 3 MB, over when they do not."""
    with serving(MODELS, log=Path(os.devnull), flags=["--engine", engine]) as server:
        quiet = rate(server.target)
        stop = threading.Event()
        senders = [threading.Thread(target=send_large, args=(server.target, stop)) for _ in range(2)]
        for sender in senders:
            sender.start()
        loud = rate(server.target)
        stop.set()
        for sender in senders:
            sender.join()
    return loud / quiet


def rate(target: str) -> float:
    """Sampling steps per second."""
    with Client(target) as client:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < WINDOW_S:
            client.sample("digits-diffusion", 32, sampler="ddim", steps=50, seed=done)
            done += 50
        return done / (time.perf_counter() - begun)


def send_large(target: str, stop: threading.Event) -> None:
    """Messages that are parsed, converted, and refused for their number of rows at most."""
    rows = LARGE_BYTES // 64
    images = np.zeros((rows, 1, 8, 8), np.uint8)
    with Client(target) as client:
        while not stop.is_set():
            try:
                client.encode("digits-vae", images)
            except Exception:
                continue

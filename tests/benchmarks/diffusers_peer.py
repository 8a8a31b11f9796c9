"""Images per second of our server against pipelines of diffusers with the same weights.

Every client asks for one image over gRPC; a pipeline makes as many images as there are clients, in batches
of the size that suits it best. All of them run in turn in every round; figures are medians of the ratio
within a round.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.demo.server import serving
from pxserve import Client
from serving.families.diffusion.table import initial_noise
from tests.benchmarks.diffusers_folders import CIFAR, DIGITS, Exported, cifar, digits
from tests.benchmarks.figures import Figure

TITLE = "google/ddpm-cifar10-32 and the digits U-Net against diffusers"
NOTE = (
    "Random weights, DDIM; 16 clients with one image each over gRPC, against pipelines of 16 images at their "
    "best batch, eager and compiled by torch.compile. Two threads each. Medians of the "
    "ratio within interleaved rounds. Images are compared "
    "after 12 steps: with random weights, 50 magnify a millionth more noise to 78 levels in the pipeline too."
)
CLIENTS, BATCHES, THREADS = 16, (4, 8, 16), 2
STEPS, ROUNDS = 50, 3
DIGITS_STEPS, DIGITS_ROUNDS = 50, 7
FLOAT32_TARGET, BFLOAT16_TARGET, MIXED_TARGET, DIGITS_TARGET = 1.08, 1.05, 1.7, 4.5
EXPORT_TARGET_S, VJP_TARGET_S, START_TARGET_S = 120.0, 600.0, 10.0
AGREEMENT = 1.0  # level; they are rounded
# Of 50 steps with random weights the last magnify everything: a millionth more noise at the start moves the
# pipeline's own image by 78 levels, after 12 steps by 0.03.
AGREEMENT_STEPS = 12
PRECISIONS = ("float32", "bfloat16")

Work = Callable[[], object]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Peer:
    """A pipeline; ``batch``: images that it makes at once."""

    pipeline: Any
    batch: int

    def images(self, count: int, steps: int) -> None:
        """Make ``count`` images."""
        for _ in range(count // self.batch):
            self.pipeline(batch_size=self.batch, num_inference_steps=steps, output_type="pt")


@dataclass(frozen=True)
class Served:
    """A server of one package, and a connection per client."""

    model: str
    clients: list[Client]
    pool: ThreadPoolExecutor
    start_s: float

    def images(self, steps: int, count: int = CLIENTS) -> None:
        """One image for each of ``count`` clients."""
        asked = [self.pool.submit(client.sample, self.model, 1, sampler="ddim", steps=steps, seed=seed)
                 for seed, client in enumerate(self.clients[:count])]  # fmt: skip
        for answer in asked:
            answer.result()


@contextmanager
def served(models: Path, model: str, threads: int = THREADS, *flags: str) -> Iterator[Served]:
    """Start a server, and connect."""
    with ExitStack() as stack:
        options = ("--threads", str(threads), "--max-rows", str(CLIENTS), *flags)
        running = stack.enter_context(serving(models, flags=options, log=models / "server.log"))
        clients = [stack.enter_context(Client(running.target, timeout_s=600.0)) for _ in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        yield Served(model, clients, pool, running.start_s)


def run() -> list[Figure]:
    """Every figure but those of gradient graphs."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        at = Path(folder)
        made = cifar(at / "cifar", *(f"--precision={precision}" for precision in PRECISIONS))
        small = digits(at / "digits")
        return [
            _seconds("export of the 35.7M U-Net", made.seconds, EXPORT_TARGET_S),
            *_cifar(made, stack),
            *_digits(small, stack),
        ]


def run_vjp() -> list[Figure]:
    """How long the export takes with the gradient graph."""
    with tempfile.TemporaryDirectory() as folder:
        made = cifar(Path(folder), "--vjp")
    return [_seconds("export of the 35.7M U-Net with its gradient graph", made.seconds, VJP_TARGET_S)]


def _seconds(name: str, value: float, target: float) -> Figure:
    return Figure(f"{TITLE}: export and start", name, value, target, "at most", "s", "")


def _cifar(made: Exported, stack: ExitStack, steps: int = STEPS, rounds: int = ROUNDS) -> list[Figure]:
    servers = {}
    for precision in PRECISIONS:
        flags = ("--precision", precision, "--allow-torchscript")
        servers[precision] = stack.enter_context(served(made.models, CIFAR, THREADS, *flags))
    others = {precision: peers(made.pipeline, getattr(torch, precision)) for precision in PRECISIONS}
    taken = interleaved(_work(servers, others, steps), rounds)
    exact = servers["float32"]
    gap = difference(exact, made.pipeline, min(steps, AGREEMENT_STEPS))
    return [
        _seconds("start to SERVING, 35.7M U-Net", exact.start_s, START_TARGET_S),
        *_ratios(taken),
        *_rates(taken, others, steps),
        Figure(
            TITLE,
            "float32: off from the pipeline",
            gap,
            AGREEMENT,
            "at most",
            "levels of 256",
            NOTE,
        ),
    ]


def _work(
    servers: Mapping[str, Served], others: Mapping[str, Mapping[str, Peer]], steps: int
) -> dict[str, Work]:
    """What a round does, by name and precision."""
    work: dict[str, Work] = {}
    for precision, server in servers.items():
        work[f"ours {precision}"] = lambda server=server: server.images(steps)  # type: ignore[misc]
        for name, peer in others[precision].items():
            work[f"{name} {precision}"] = lambda peer=peer: peer.images(CLIENTS, steps)  # type: ignore[misc]
    return work


def _ratios(taken: Mapping[str, Floats]) -> list[Figure]:
    """Ours over the better of eager and compiled."""
    theirs = {p: np.minimum(taken[f"eager {p}"], taken[f"compiled {p}"]) for p in PRECISIONS}
    pairs = (
        ("float32", "float32", FLOAT32_TARGET),
        ("bfloat16", "bfloat16", BFLOAT16_TARGET),
        ("bfloat16", "float32", MIXED_TARGET),
    )
    return [
        _ratio(f"{mine} over diffusers in {other}", theirs[other] / taken[f"ours {mine}"], target)
        for mine, other, target in pairs
    ]


def _rates(taken: Mapping[str, Floats], others: Mapping[str, Mapping[str, Peer]], steps: int) -> list[Figure]:
    """Denoised images per second, and the batches of the pipelines."""
    found = []
    for name, seconds in taken.items():
        kind, precision = name.split()
        batch = "" if kind == "ours" else f", batches of {others[precision][kind].batch}"
        rate = CLIENTS * steps / float(np.median(seconds))
        found.append(Figure(TITLE, f"{name}{batch}", rate, unit="image steps/s", note=NOTE))
    return found


def _digits(made: Exported, stack: ExitStack) -> list[Figure]:
    ours = stack.enter_context(served(made.models, DIGITS, 1))
    peer = Peer(made.pipeline, 1)
    taken = interleaved(
        {"ours": lambda: ours.images(DIGITS_STEPS, 1), "theirs": lambda: peer.images(1, DIGITS_STEPS)},
        DIGITS_ROUNDS,
    )
    return [
        _ratio("digits U-Net at one client, over diffusers", taken["theirs"] / taken["ours"], DIGITS_TARGET)
    ]


def _ratio(name: str, ratios: Floats, target: float) -> Figure:
    return Figure(TITLE, name, float(np.median(ratios)), target, "at least", "x", NOTE)


def peers(pipeline: Any, dtype: torch.dtype) -> dict[str, Peer]:
    """The pipeline in ``dtype``, eager and compiled, each at the batch at which eager is fastest."""
    eager = copy.deepcopy(pipeline)
    eager.set_progress_bar_config(disable=True)
    eager.unet.to(dtype=dtype, memory_format=torch.channels_last)
    best = min((Peer(eager, batch) for batch in BATCHES), key=_trial_s)
    compiled = copy.copy(eager)
    compiled.register_modules(unet=torch.compile(eager.unet), scheduler=copy.deepcopy(pipeline.scheduler))
    return {"eager": best, "compiled": Peer(compiled, best.batch)}


def _trial_s(peer: Peer) -> float:
    """Seconds of one step for all clients, the better of two."""
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        peer.images(CLIENTS, 1)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def interleaved(work: Mapping[str, Work], rounds: int) -> dict[str, Floats]:
    """Seconds of each, by round, after one round that is not counted (compilation, warm-up)."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, call in work.items():
            begun = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begun)
    return {name: np.array(seconds[1:]) for name, seconds in taken.items()}


def difference(ours: Served, pipeline: Any, steps: int) -> float:
    """Largest difference of an image from that of the pipeline with the same start, in levels of 255."""
    found = ours.clients[0].sample(ours.model, 1, sampler="ddim", steps=steps, seed=0).data.astype(np.float64)
    module, shape = sys.modules["diffusers.pipelines.ddim.pipeline_ddim"], (1, *found.shape[1:])
    noise = initial_noise(0, np.arange(1), None, int(np.prod(shape))).reshape(shape)
    before = module.randn_tensor
    module.randn_tensor = lambda *_, **__: noise  # type: ignore[attr-defined]
    try:
        images = pipeline(batch_size=1, num_inference_steps=steps, output_type="np").images
    finally:
        module.randn_tensor = before  # type: ignore[attr-defined]
    return float(np.abs(found - 255.0 * images.transpose(0, 3, 1, 2)).max())

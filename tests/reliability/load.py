"""Loads that never ask twice: one raw call per request, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np

from pxserve.v1 import sample_pb2

PATH = "/pxserve.v1.GenerativeService/Sample"
NO_RETRIES: list[tuple[str, Any]] = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True)
class Fate:
    """When a request was sent, how long its answer took (seconds from the load's start), and its status."""

    sent_s: float
    took_s: float
    code: grpc.StatusCode

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.code is grpc.StatusCode.OK


def request(model: str, n: int, steps: int, seed: int) -> bytes:
    """One request of this load."""
    parameters = sample_pb2.SampleParameters(sampler="ddim", steps=steps)
    return sample_pb2.SampleRequest(model=model, n=n, seed=seed, parameters=parameters).SerializeToString()


async def _ask(call: Any, payload: bytes, deadline_s: float, begun_s: float) -> Fate:
    sent_s = time.perf_counter()
    try:
        await call(payload, timeout=deadline_s)
        code = grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        code = error.code()
    return Fate(sent_s - begun_s, time.perf_counter() - sent_s, code)


async def capacity(target: str, model: str, n: int, steps: int, seconds: float, at_once: int) -> float:
    """Requests per second that are answered while ``at_once`` are always in flight."""
    async with grpc.aio.insecure_channel(target, options=NO_RETRIES) as channel:
        call: Any = channel.unary_unary(PATH)
        begun_s = time.perf_counter()
        answered = 0

        async def keep_asking(first_seed: int) -> None:
            nonlocal answered
            seed = first_seed
            while time.perf_counter() - begun_s < seconds:
                fate = await _ask(call, request(model, n, steps, seed), 60.0, begun_s)
                answered += fate.ok
                seed += 1

        await asyncio.gather(*(keep_asking(1000 * k) for k in range(at_once)))
        return answered / (time.perf_counter() - begun_s)


async def open_loop(
    target: str, model: str, n: int, steps: int, rate_per_s: float, seconds: float, deadline_s: float
) -> list[Fate]:
    """Poisson arrivals at a rate, whatever the server says."""
    rng = np.random.default_rng(1)
    due = np.sort(rng.uniform(0.0, seconds, rng.poisson(rate_per_s * seconds)))
    async with grpc.aio.insecure_channel(target, options=NO_RETRIES) as channel:
        call: Any = channel.unary_unary(PATH)
        begun_s = time.perf_counter()
        tasks = []
        for seed, due_s in enumerate(due):
            await asyncio.sleep(max(0.0, begun_s + due_s - time.perf_counter()))
            payload = request(model, n, steps, seed)
            tasks.append(asyncio.create_task(_ask(call, payload, deadline_s, begun_s)))
        return list(await asyncio.gather(*tasks))

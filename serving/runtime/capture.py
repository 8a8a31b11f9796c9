"""The one CUDA stream of a device's work, and graphs: work that was recorded once is one launch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

Work = Callable[[], None]

WARM_RUNS = 3  # before the recording: kernels are compiled, algorithms chosen, workspaces allocated


@cache
def device_stream(device: torch.device) -> torch.cuda.Stream:
    """Where all work of a device goes, in order, whichever thread and runtime it comes from."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def use_stream(device: torch.device) -> None:
    """The calling thread's work on a CUDA device goes there from now on; harmless elsewhere."""
    if device.type == "cuda":
        torch.cuda.set_stream(device_stream(device))


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given; at once where it works while called."""
    if device.type == "cuda":
        device_stream(device).synchronize()


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same on the device, without waiting for what it does: from pinned memory, in its order."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def fetched(values: torch.Tensor) -> tuple[torch.Tensor, Callable[[], object]]:
    """A copy on the host, as they are at this point of the device's work, and how to wait for it."""
    if not values.is_cuda:
        return values.clone(), lambda: None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return copy, event.synchronize


def captured(work: Work, device: torch.device) -> Work:
    """``work`` as one launch; it must touch only memory that stays where it is, and never wait.

    On other devices ``work`` itself. Raises RuntimeError where it cannot be recorded.
    """
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_RUNS):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads go on while a model is warmed up.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        work()
    return graph.replay

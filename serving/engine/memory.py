"""Memory that rows hold from admission to their end, and how much of it there may be."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

import torch

from export.package.schema import Autoregressive, ModelSpec
from serving.engine.ledger import Ledger
from serving.errors import ResourceExhausted
from serving.runtime.network import TORCH_DTYPES, Network

SHARE = 4  # a quarter of the machine's memory, where nothing else was asked for
COPIES = 2  # of a network row: what its program holds, and what the run gave back
SOONEST_RETRY_S = 0.05
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def network_row_bytes(spec: ModelSpec, network: Network) -> int:
    """One row of a network that runs or waits to run, open axes at the longest that the data allows."""
    longest = spec.data.elements
    return COPIES * sum(
        TORCH_DTYPES[tensor.dtype].itemsize
        * prod(longest if isinstance(axis, str) else axis for axis in tensor.row_shape)
        for tensor in (*network.spec.inputs, *network.spec.outputs)
    )


def slotted_row_bytes(spec: Autoregressive, length: int) -> int:
    """One row that is decoded: symbols and log-probabilities; its cache was allocated when the model was."""
    return COPIES * 16 * (length if spec.cache is None else spec.cache.max_length)


def answer_row_bytes(spec: ModelSpec) -> int:
    """What one row was given and is answered with, as numbers."""
    return COPIES * 4 * spec.data.elements


def default_limit_bytes(device: torch.device) -> int:
    """A quarter of the device's memory; of the container's, where that is less than the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // SHARE
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        container = int(CONTAINER_LIMIT.read_text())
    except (OSError, ValueError):  # no container, or one without a limit
        return machine // SHARE
    return min(machine, container) // SHARE


def check_memory(needed_bytes: int, ledger: Ledger, limit_bytes: int) -> None:
    """Raise ResourceExhausted (MEMORY) where a request's rows do not fit beside those that are there.

    A request that never fits is told so, and not to come back.
    """
    held_bytes = ledger.held_bytes
    if held_bytes + needed_bytes <= limit_bytes:
        return
    if needed_bytes > limit_bytes:
        raise ResourceExhausted(
            f"its rows would hold about {_mib(needed_bytes)}, more than --memory-bytes allows at all "
            f"({_mib(limit_bytes)}); ask for fewer rows, particles or chains",
            reason="MEMORY",
        )
    raise ResourceExhausted(
        f"its rows would hold about {_mib(needed_bytes)}, but others hold {_mib(held_bytes)} "
        f"of {_mib(limit_bytes)}",
        reason="MEMORY",
        retry_after_s=max(SOONEST_RETRY_S, ledger.backlog_s()),
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"

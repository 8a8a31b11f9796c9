"""A trained network and how to call it: a torch module, or a graph in a file."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag
from torch import nn

from export.model.record import specification

Layout = Literal["channels_first", "channels_last", "flat"]


@specification
class Network:
    """A torch module and how its ``forward`` is called; a bare module is ``Network(module)``.

    Arguments come by position in the order that the family's class documents. ``inputs`` renames: the
    package's name -> the parameter of ``forward``, passed by keyword. ``outputs`` says which is which: the
    package's name -> the place in a tuple, the key of a mapping, or the attribute of an object.
    ``layout``: how this network holds images: ``channels_last`` [rows, H, W, C], ``flat`` [rows, C * H * W].
    """

    module: nn.Module
    inputs: dict[str, str] = field(default_factory=dict, kw_only=True)
    outputs: dict[str, int | str] = field(default_factory=dict, kw_only=True)
    layout: Layout = field(default="channels_first", kw_only=True)


@specification
class Graph:
    """A network in a file: ``.onnx``, or TorchScript (``.pt``, ``.pts``, ``.torchscript``).

    ``inputs`` and ``outputs``: the package's name -> the graph's name (TorchScript: the argument's name, and
    the place or key of what comes back), where the two differ. ``layout`` as in ``Network``.
    """

    file: Path
    inputs: dict[str, str] = field(default_factory=dict, kw_only=True)
    outputs: dict[str, int | str] = field(default_factory=dict, kw_only=True)
    layout: Layout = field(default="channels_first", kw_only=True)


def _which(value: Any) -> str:
    if isinstance(value, nn.Module):
        return "module"
    return "network" if isinstance(value, Network) else "graph"


AnyNetwork = Annotated[
    Annotated[nn.Module, Tag("module")] | Annotated[Network, Tag("network")] | Annotated[Graph, Tag("graph")],
    Discriminator(_which),
]


def bound(network: nn.Module | Network | Graph) -> Network | Graph:
    """A bare module with nothing stated about it."""
    return Network(network) if isinstance(network, nn.Module) else network

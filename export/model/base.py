"""What the five families share: data, conditions, and the way to a package."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from export.adapt.layouts import from_layout, in_layout, to_layout
from export.adapt.steps import OneHot, Step
from export.adapt.wiring import Wire, Wiring
from export.model.conditions import ClassCondition, ConditionSpec
from export.model.network import Graph, Network
from export.model.record import specification
from export.model.spaces import Space

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Part:
    """One component: the network behind it, its values, and (``product``) the input of its gradient graph.

    ``looped``: it runs many times per row, so that graphs in lower precision are worth their space.
    """

    network: Network | Graph
    wiring: Wiring
    product: str | None = None
    looped: bool = False


@specification
class Model(ABC):
    """A trained model, as its family's class describes it; ``export`` writes the package.

    ``data``: what a row is. ``conditions``: what it may depend on, in the order in which the networks take
    them after their other inputs. ``license`` (an SPDX identifier) and ``description`` are shown to callers.
    """

    data: Space = field(kw_only=True)
    conditions: tuple[ConditionSpec, ...] = field(default=(), kw_only=True)
    license: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)

    @model_validator(mode="after")
    def _seen(self) -> Self:
        if not getattr(self.data, "scaled", True) and self.reads_levels and self.data.levels:
            raise ValueError(
                "data: it is not stated how the networks see the pixels; add data_range=(-1, 1) or "
                "data_range=(0, 1), the values of the darkest and the brightest pixel there, or mean and std"
            )
        return self

    @property
    @abstractmethod
    def family(self) -> str:
        """Its name in ``model.yaml``."""

    @abstractmethod
    def section(self) -> dict[str, Any]:
        """The family's part of ``model.yaml``."""

    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """The components, without their gradient graphs."""

    def data_section(self) -> dict[str, Any]:
        """``data`` of ``model.yaml``."""
        return self.data.section()

    def files(self) -> dict[str, Path | bytes]:
        """Files of the package beside its graphs."""
        return {}

    @property
    def reads_levels(self) -> bool:
        """Whether the networks see data as real numbers, so that their range must be known."""
        return True

    def export(  # noqa: PLR0913
        self,
        to: Path | str,
        name: str,
        *,
        version: int | None = None,
        replace: bool = False,
        format: Literal["onnx", "torchscript"] = "onnx",
        vjp: bool = False,
        tolerance: float | None = None,
        precisions: Sequence[Literal["float32", "bfloat16"]] = ("float32",),
        license: str = "",
        description: str = "",
        say: Callable[[str], None] | None = None,
        progress: Progress = lambda what, part: None,
    ) -> Path:
        """Write ``to/NAME/VERSION`` (the next version where none is given) and return it.

        ``vjp``: also write gradient graphs, which likelihood by the flow equation, GAN completion and
        annealed importance sampling need. ``format``: of the graphs made from torch modules. ``tolerance``:
        the largest error against the network itself, relative to its largest output. ``precisions``: of the
        graphs of a denoiser, scorer, generator or VAE's decoder made from torch modules; servers take the
        first that their device runs (bfloat16: TorchScript for CPUs).
        ``license`` and ``description`` are used where the model states none. ``say``: takes notes for people
        (None: they go to stderr).
        Raises export.package.errors.PackageError, which says what is wrong, where, and what to do.
        """
        from export.assemble.package import Target, to_stderr, write_model

        about: dict[str, Any] = {"license": self.license or license}
        about["description"] = self.description or description
        target = Target(Path(to), name, version, replace, format, vjp, tolerance, tuple(precisions))
        return write_model(dataclasses.replace(self, **about), target, progress, say or to_stderr)

    def data_input(self, network: Network | Graph, name: str = "x") -> Wire:
        """The data as an input of ``network``, float32 in its layout."""
        shape, layout = self._row, network.layout
        return Wire(name, "float32", shape, to_layout(layout, shape), seen=in_layout(layout, shape))

    def data_output(self, network: Network | Graph, name: str, *steps: Step) -> Wire:
        """Something shaped like the data as an output of ``network``."""
        return self.shaped_output(network, name, self._row, *steps)

    def shaped_output(
        self, network: Network | Graph, name: str, shape: tuple[int, ...], *steps: Step
    ) -> Wire:
        """An output of ``network`` with the data's axes: channels first here, in its layout there."""
        back = (*from_layout(network.layout, shape), *steps)
        return Wire(name, "float32", shape, back, seen=in_layout(network.layout, shape))

    def condition_inputs(self) -> tuple[Wire, ...]:
        """Every condition, as the networks take it."""
        return tuple(_condition(condition) for condition in self.conditions)

    @property
    def _row(self) -> tuple[int, ...]:
        return self.data.shape


def _condition(condition: Any) -> Wire:
    if isinstance(condition, ClassCondition):
        steps = (OneHot(condition.classes),) if condition.one_hot else ()
        return Wire(condition.name, "int64", (), steps)
    return Wire(condition.name, "float32", condition.shape)


def wired(network: Network | Graph, inputs: Sequence[Wire], outputs: Sequence[Wire]) -> Wiring:
    """Values at their places, or under the names that ``network`` states."""
    return Wiring.placed(inputs, outputs).named(dict(network.inputs), dict(network.outputs))


def latent_input(shape: tuple[int, ...], *steps: Step) -> Wire:
    """A latent as an input."""
    return Wire("latent", "float32", shape, steps, seen=shape)

"""Which graph of each component runs here: a package may bring several, for other devices and precisions."""

from __future__ import annotations

from dataclasses import replace

from export.package.errors import PackageError, Reason
from export.package.read import Package
from export.package.schema import Component

AUTO = "auto"


def chosen(package: Package, device: str, kind: str = AUTO) -> Package:
    """The package with one graph per component: the first that ``device`` (cpu, cuda) runs.

    A component that has a graph of ``kind`` for the device takes that one instead. PackageError (BAD_VALUE)
    where a component has none for the device.
    """
    components = {n: _graph(package, n, c, device, kind) for n, c in package.spec.components.items()}
    return replace(package, spec=package.spec.model_copy(update={"components": components}))


def _graph(package: Package, name: str, component: Component, device: str, kind: str) -> Component:
    fitting = [graph for graph in component.graphs if graph.device in ("any", device)]
    if not fitting:
        devices = ", ".join(sorted({graph.device for graph in component.graphs}))
        raise PackageError(
            Reason.BAD_VALUE,
            package.folder,
            f"components.{name}: its graphs are for {devices}, not for {device}",
            "Export it with a graph for this device (float32 or float16 for cpu, float16 for both)",
        )
    asked = [graph for graph in fitting if graph.kind == kind]
    return (asked or fitting)[0]

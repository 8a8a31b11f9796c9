"""TorchScript as a package holds it: traced for any device, or for the CPU alone where it names that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from export.adapt.module import Adapted
from export.adapt.wiring import Wiring
from export.assemble.failures import refused_export
from export.assemble.made import Order
from export.graph.torchscript import DeviceLiteralError, export_torchscript
from export.package.errors import PackageError, Reason


def write_script(
    name: str, adapted: Adapted, wiring: Wiring, inputs: Mapping[str, Tensor], order: Order
) -> tuple[str, dict[str, Any]]:
    """Write ``NAME.pt``; its name, and its entry in ``model.yaml`` (UNSUPPORTED_NETWORK)."""
    file, device = f"{name}.pt", "any"
    try:
        content = export_torchscript(adapted, inputs)
    except DeviceLiteralError as error:
        if error.devices != ["cpu"]:
            raise _elsewhere(name, error) from error
        order.say(f"{name}: it makes tensors on the CPU by name, so this graph is for CPUs only")
        content, device = export_torchscript(adapted, inputs, any_device=False), "cpu"
    except Exception as error:  # torch raises types of many kinds
        raise refused_export(name, "TorchScript", error) from error
    (order.folder / file).write_bytes(content)
    return file, {**wiring.component("torchscript", file), "device": device}


def _elsewhere(name: str, error: DeviceLiteralError) -> PackageError:
    fix = "Script or trace it again on the CPU, without naming a device"
    return PackageError(Reason.UNSUPPORTED_NETWORK, name, str(error), fix)

"""Networks from their folders: safetensors only, every weight in its place."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.diffusers.folder import Saved
from export.diffusers.refusals import bad_source, bad_weights, not_supported

INSTALL = "pip install 'pxserve-export[diffusers]'"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")


def library(name: str) -> Any:
    """diffusers or transformers (BAD_SOURCE where it is not installed)."""
    try:
        return import_module(name)
    except ImportError as error:
        raise bad_source(name, f"reading the folder needs the library {name}", INSTALL) from error


def load(saved: Saved, variant: str | None = None, of: str = "diffusers") -> nn.Module:
    """The network in float32, in evaluation mode.

    Raises PackageError: BAD_SOURCE (no or other files), UNSUPPORTED_NETWORK (what the library refuses),
    BAD_WEIGHTS (missing, superfluous or misshapen weights).
    """
    kind = getattr(library(of), saved.kind, None)
    if kind is None:
        raise not_supported(saved.config, f"{of} knows no {saved.kind}", "Update it, or save it again")
    check_files(saved.folder, saved.kind, variant)
    network, found = _loaded(kind, saved, variant, of)
    _check_keys(saved.folder, found)
    module: nn.Module = network.eval()
    return module


def _loaded(kind: Any, saved: Saved, variant: str | None, of: str) -> tuple[Any, dict[str, Any]]:
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "variant": variant}
    options |= {"torch_dtype" if of == "diffusers" else "dtype": torch.float32, "output_loading_info": True}
    options |= {"low_cpu_mem_usage": False, "device_map": None} if of == "diffusers" else {}
    levels = library(of).utils.logging
    before = levels.get_verbosity()
    levels.set_verbosity_error()  # what it would warn of is refused below
    levels.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, found = kind.from_pretrained(saved.folder, **options)
    except Exception as error:  # the library raises types of many kinds
        raise _refused(saved, error) from error
    finally:
        levels.set_verbosity(before)
        levels.enable_progress_bar()
    return network, found


def _refused(saved: Saved, error: Exception) -> Exception:
    line = " ".join(str(error).split())[:300] or type(error).__name__
    if "does not exist" in line or "unknown" in line.lower() or isinstance(error, NotImplementedError):
        return not_supported(saved.config, f"diffusers refuses it ({line})", "Correct the configuration")
    if "size mismatch" in line or "shape" in line:
        return bad_weights(saved.folder, f"the weights do not fit {saved.kind} ({line})", "Save both again")
    return bad_source(saved.folder, f"it cannot be read ({line})", "Download or save it again")


def check_files(folder: Path, kind: str, variant: str | None) -> None:
    """There are weights in safetensors; pickles are refused with the way to convert them."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if any(_is_weights(name, variant) for name in files):
        return
    others = sorted({name.split(".")[-2] for name in files if name.endswith(".safetensors")})
    if others:
        raise bad_source(
            folder,
            f"the weights are there in other variants only ({', '.join(others)})",
            f"Add --variant {others[0]}" if variant is None else "Correct --variant",
        )
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        raise bad_source(
            folder / pickles[0],
            "this is a pickle of weights, which runs any code that it holds when it is opened",
            f"Convert it where you trust it: {kind}.from_pretrained('{folder}', use_safetensors=False)"
            f".save_pretrained('{folder}', safe_serialization=True)",
        )
    raise bad_source(folder, "there are no weights (.safetensors)", "Download the weights too")


def _is_weights(name: str, variant: str | None) -> bool:
    """``NAME.safetensors`` or ``NAME.VARIANT.safetensors``, whole or in shards."""
    parts = name.removesuffix(".index.json").split(".")
    if variant is not None:
        return "safetensors" in parts and any(part.startswith(variant) for part in parts[1:])
    return len(parts) == 2 and parts[1] == "safetensors"


def _check_keys(folder: Path, found: dict[str, Any]) -> None:
    for key, problem in (
        ("missing_keys", "misses weights of the network"),
        ("unexpected_keys", "has weights that the network does not have"),
        ("mismatched_keys", "has weights of another shape"),
    ):
        wrong: Iterable[Any] = found.get(key) or ()
        names = sorted(str(one[0] if isinstance(one, tuple) else one) for one in wrong)
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise bad_weights(folder, f"it {problem}: {shown}", "Save weights and configuration together")

"""A folder that diffusers saved: a pipeline, or one network with its scheduler elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.diffusers.pipelines import PIPELINES, UNUSED, Pipeline
from export.diffusers.refusals import WHERE, bad_source, not_supported
from export.diffusers.scheduler import CONFIGURATION

INDEX, NETWORK = "model_index.json", "config.json"
AUTOENCODERS = ("vae", "vqvae")


@dataclass(frozen=True)
class Saved:
    """One network as it was saved: its folder, and its configuration (the class under ``_class_name``)."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Its class."""
        return str(self.config.get("_class_name") or (self.config.get("architectures") or [""])[0])


@dataclass(frozen=True)
class Source:
    """``pipeline``: None for a bare network; ``networks``: the others by the names of their folders."""

    folder: Path
    denoiser: Saved
    scheduler: Path
    pipeline: Pipeline | None = None
    networks: Mapping[str, Saved] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def autoencoder(self) -> Saved | None:
        """Of latent diffusion."""
        return next((self.networks[name] for name in AUTOENCODERS if name in self.networks), None)


def read_source(folder: Path, scheduler: Path | None = None, autoencoder: Path | None = None) -> Source:
    """Look at a folder; ``scheduler`` and ``autoencoder`` take the place of the folder's own.

    Raises PackageError: BAD_SOURCE (something is missing or unreadable), UNSUPPORTED_NETWORK (a pipeline
    that is not known here).
    """
    if not folder.is_dir():
        raise bad_source(folder, "there is no such folder", "Point to a folder of save_pretrained")
    if (folder / INDEX).is_file():
        found = _pipeline(folder, scheduler)
    elif (folder / NETWORK).is_file():
        found = _bare(folder, scheduler)
    else:
        raise bad_source(
            folder,
            f"there is neither {INDEX} (a pipeline) nor {NETWORK} (a network)",
            "Point to a folder that save_pretrained of diffusers wrote",
        )
    if autoencoder is None:
        return found
    return Source(found.folder, found.denoiser, found.scheduler, found.pipeline,
                  {**found.networks, "vae": saved(autoencoder)}, found.index, found.notes)  # fmt: skip


def saved(folder: Path) -> Saved:
    """The network in ``folder``."""
    return Saved(folder, read_json(folder / NETWORK) | {WHERE: folder / NETWORK})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object (BAD_SOURCE)."""
    if not path.is_file():
        raise bad_source(path, "there is no such file", "Save the model again (save_pretrained)")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise bad_source(path, f"not JSON ({error})", "Save the model again") from error
    if not isinstance(found, dict):
        raise bad_source(path, "not a JSON object", "Save the model again")
    return found


def _bare(folder: Path, scheduler: Path | None) -> Source:
    network = saved(folder)
    if network.kind.startswith(("Autoencoder", "VQ")):
        raise not_supported(
            network.config,
            "this is an autoencoder, not what removes noise in its latents",
            f"Export the denoiser's folder with --vae {folder}; an autoencoder alone: pxserve-export module",
        )
    if scheduler is None and not (folder / CONFIGURATION).is_file():
        raise bad_source(
            folder,
            "this is a network alone, and nothing here says which noise it was trained to remove",
            "Add --scheduler DIR, a folder with its scheduler_config.json",
        )
    return Source(folder, network, scheduler or folder)


def _pipeline(folder: Path, scheduler: Path | None) -> Source:
    index = read_json(folder / INDEX)
    name = str(index.get("_class_name"))
    if name not in PIPELINES:
        raise not_supported(
            {WHERE: folder / INDEX},
            f"the pipeline {name} is not known here",
            f"Supported: {', '.join(PIPELINES)}. The network of another one: "
            "pxserve-export diffusers DIR/unet --scheduler DIR/scheduler",
        )
    pipeline = PIPELINES[name]
    listed = {key: entry for key, entry in index.items() if isinstance(entry, list) and entry[:1] != [None]}
    _check_parts(folder, name, pipeline, set(listed))
    networks = {part: saved(folder / part) for part in pipeline.needs if part != "tokenizer"}
    notes = tuple(f"{part} is left out: it is no part of p(x)" for part in UNUSED if part in listed)
    place = scheduler or folder / "scheduler"
    return Source(folder, saved(folder / pipeline.denoiser), place, pipeline, networks, index, notes)


def _check_parts(folder: Path, name: str, pipeline: Pipeline, listed: set[str]) -> None:
    needed = {pipeline.denoiser, "scheduler", *pipeline.needs}
    for part in sorted(needed - listed):
        raise bad_source(folder / INDEX, f"a {name} has {part}, which is not listed", "Save it again")
    for part in sorted(listed - needed - set(UNUSED)):
        raise bad_source(
            folder / INDEX,
            f"it lists {part}, which a {name} does not have",
            f"Its parts are {', '.join(sorted(needed))}; export the network alone with --scheduler DIR",
        )
    for part in sorted(needed):
        if not (folder / part).is_dir():
            raise bad_source(
                folder / part, f"{INDEX} lists this folder, but it is not here", "Download it too"
            )

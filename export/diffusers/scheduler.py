"""A scheduler's configuration as the numbers of a package: process, levels, solver, clipping."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.diffusers.refusals import WHERE, bad_source, not_supported
from export.diffusers.scheduled import Scheduled
from export.diffusers.schedulers import exploding, flows, preserving

CONFIGURATION = "scheduler_config.json"

READERS = {**preserving.READERS, **flows.READERS, **exploding.READERS}


def read_scheduler(folder: Path, settled: Mapping[str, Any] | None = None) -> Scheduled:
    """What ``folder/scheduler_config.json`` says; ``settled`` takes the place of what it says otherwise.

    Raises PackageError: BAD_SOURCE (no such file, not JSON), UNSUPPORTED_NETWORK (a class or a choice without
    a counterpart here, by name).
    """
    path = folder / CONFIGURATION
    if not path.is_file():
        raise bad_source(
            folder,
            f"there is no {CONFIGURATION}",
            "Save the scheduler beside the network (scheduler.save_pretrained), or name its folder by "
            "--scheduler DIR",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(config, dict)
    except (ValueError, AssertionError) as error:
        raise bad_source(path, "not JSON, or no mapping", "Save the scheduler again") from error
    changed = {key: value for key, value in (settled or {}).items() if config.get(key, value) != value}
    found = scheduled(config | changed | {WHERE: path})
    notes = [
        f"{key} is {value}, as the pipeline sets it, not {config[key]}" for key, value in changed.items()
    ]
    return dataclasses.replace(found, notes=[*found.notes, *notes])


def scheduled(config: Mapping[str, Any]) -> Scheduled:
    """What a configuration says; its class is ``_class_name``. Raises PackageError (UNSUPPORTED_NETWORK)."""
    name = str(config.get("_class_name", ""))
    if name not in READERS:
        listed = ", ".join(sorted(READERS))
        raise not_supported(
            config,
            f"the scheduler {name or 'without _class_name'!r} has no counterpart here",
            f"Save the model with one of {listed}: {name or 'CLASS'}.from_config(...).save_pretrained(DIR), "
            "then --scheduler DIR",
        )
    return READERS[name](_completed(name, config))


def _completed(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of the class for what an older file does not say, and its betas under ``_betas``."""
    import diffusers

    try:
        made = getattr(diffusers, name).from_config({k: v for k, v in config.items() if k != WHERE})
    except (TypeError, ValueError, NotImplementedError, ImportError, AttributeError) as error:
        raise not_supported(config, f"diffusers refuses it ({error})", "Correct the configuration") from error
    betas = getattr(made, "betas", None)
    found = {
        **made.config,
        "_class_name": name,
        WHERE: config.get(WHERE, "configuration"),
        "_stated": set(config),
    }
    return found if betas is None else found | {"_betas": [float(beta) for beta in betas.double()]}

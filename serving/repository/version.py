"""One version of a model in this process, and what a folder of it looked like when it was read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from serving.engine.messages import ModelKey
from serving.repository.loader import LoadedModel
from serving.repository.scan import Stamp


class State(enum.StrEnum):
    """Life of a version in this process."""

    LOADING = "loading"  # its files are checked and opened
    WARMING = "warming"  # its networks run, are tested and measured
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"


STARTING = frozenset({State.LOADING, State.WARMING})


@dataclass(frozen=True)
class Version:
    """``loaded`` while it is READY or UNLOADING; ``stamp`` of its files when it was last read."""

    key: ModelKey
    folder: Path
    state: State = State.UNLOADED
    message: str = ""
    loaded: LoadedModel | None = None
    stamp: Stamp = ()

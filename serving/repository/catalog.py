"""Which versions there are, in what state, and which one answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.engine.messages import ModelKey
from serving.errors import FailedPrecondition, NotFound
from serving.repository.loader import LoadedModel
from serving.repository.scan import versions_in
from serving.repository.version import State, Version


class Catalog:
    """Versions by key, as the folder and this process have them; every change tells ``changed``."""

    def __init__(self, root: Path, changed: Callable[[], None]) -> None:
        self._root = root
        self._changed = changed
        self._versions: dict[ModelKey, Version] = {}
        self._leases: Counter[ModelKey] = Counter()
        self._returned = asyncio.Event()
        self.present: frozenset[ModelKey] = frozenset()  # in the folder, when it was last looked at

    def scan(self) -> None:
        """Look at the folder; what is gone from it stays known while it answers."""
        found = versions_in(self._root)
        self.present = frozenset(found)
        for key, folder in found.items():
            self._versions.setdefault(key, Version(key, folder))
        for key in [key for key in self._versions if key not in found]:
            if self._versions[key].state in (State.UNLOADED, State.FAILED):
                del self._versions[key]

    def __getitem__(self, key: ModelKey) -> Version:
        return self._versions[key]

    def names(self) -> list[str]:
        """Models, in order."""
        return sorted({key.name for key in self._versions})

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions (of a model), by name and version."""
        ordered = sorted(self._versions, key=lambda key: (key.name, key.version))
        return [self._versions[key] for key in ordered if name in (None, key.name)]

    def default(self, name: str) -> Version | None:
        """The highest READY version, which answers requests that name none."""
        ready = [v for v in self.versions(name) if v.state is State.READY]
        return ready[-1] if ready else None

    def find(self, name: str, version: int | None) -> Version:
        """The version asked for, else the default, else the highest; NotFound where there is none."""
        known = self.versions(name)
        if not known:
            raise NotFound(f"no model {name!r}; ListModels has the names", metadata={"model": name})
        if version is None:
            return self.default(name) or known[-1]
        for candidate in known:
            if candidate.key.version == version:
                return candidate
        have = ", ".join(str(v.key.version) for v in known)
        raise NotFound(f"model {name!r} has no version {version}; it has {have}", metadata={"model": name})

    def ready(self, name: str, version: int | None) -> LoadedModel:
        """A model that answers; NotFound, or FailedPrecondition NOT_READY with why."""
        found = self.find(name, version)
        if found.state is State.READY and found.loaded is not None:
            return found.loaded
        why = f": {found.message}" if found.message else ""
        raise FailedPrecondition(
            f"model {name!r} version {found.key.version} is {found.state.upper()}{why}",
            reason="NOT_READY",
            metadata={"model": name, "state": found.state.upper()},
        )

    @contextmanager
    def lease(self, name: str, version: int | None) -> Iterator[LoadedModel]:
        """A model that answers, and is not unloaded before the block ends. Raises as ``ready``."""
        loaded = self.ready(name, version)
        self._leases[loaded.key] += 1
        try:
            yield loaded
        finally:
            self._leases[loaded.key] -= 1
            self._returned.set()

    async def unused(self, key: ModelKey) -> None:
        """Wait until nobody holds a lease of a version."""
        while self._leases[key]:
            self._returned.clear()
            await self._returned.wait()
        del self._leases[key]

    def set(self, key: ModelKey, **changes: Any) -> None:
        """Change a version."""
        self._versions[key] = replace(self._versions[key], **changes)
        self._changed()

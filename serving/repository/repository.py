"""The models of a folder in this process: what is loaded, by which policy; lives on the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path

from serving.engine.messages import ModelKey
from serving.repository.catalog import Catalog
from serving.repository.loader import Loader
from serving.repository.policy import Policy
from serving.repository.scan import stamp_of
from serving.repository.transitions import ReadPackage, Transitions
from serving.repository.version import State, Version

log = logging.getLogger("pxserve.repository")

Names = frozenset[str] | None  # None: of every model


class Repository:
    """A new version is READY before an old one goes; one that fails leaves the old one in its place."""

    def __init__(
        self,
        root: Path,
        loader: Loader,
        read: ReadPackage,
        changed: Callable[[], None] = lambda: None,
        policy: Policy | None = None,
    ) -> None:
        self._policy = policy or Policy()
        self._catalog = Catalog(root, changed)
        self._transitions = Transitions(self._catalog, loader, read)
        self._asked_for: set[ModelKey] = set()  # by number: the policy leaves these alone
        self._following = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self.versions = self._catalog.versions
        self.default = self._catalog.default
        self.find = self._catalog.find
        self.ready = self._catalog.ready
        self.lease = self._catalog.lease

    async def load_all(self, names: Names = None) -> None:
        """Load what the policy keeps of every model; returns when all of it is READY or FAILED."""
        self._catalog.scan()
        await asyncio.gather(*(self._settle(name) for name in self._of(names)))

    async def load(self, name: str, version: int | None, wait: bool) -> Version:
        """Begin to load a version, or the highest; one that is loaded stays as it is.

        Looks at the folder first, so new ones are found. ``wait``: answer only when READY or FAILED.
        """
        self._catalog.scan()
        key = self.find(name, version).key
        if version is None:
            key = self._highest(name)
        else:
            self._asked_for.add(key)
        if self._catalog[key].state in (State.UNLOADED, State.FAILED, State.UNLOADING):
            self._transitions.load(key)
        self._spawn(self._rest_and_supersede(key))
        if wait:
            await self._transitions.at_rest(key)
        return self._catalog[key]

    async def unload(self, name: str, version: int | None) -> Version:
        """Unload a version, or all of a model; waits for its requests. Unloading twice changes nothing."""
        last = self.find(name, version)
        keys = [last.key] if version is not None else [v.key for v in self.versions(name)]
        for key in keys:
            await self._unload(key)
        return self._catalog[keys[-1]]

    async def follow(self, names: Names = None, wait: bool = True) -> None:
        """Look at the folder once: load what is new or was repaired, unload what is gone."""
        self._catalog.scan()
        following = self._spawn(self._follow_all(names))
        if wait:
            await asyncio.shield(following)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._transitions.close()

    def _of(self, names: Names) -> list[str]:
        return [name for name in self._catalog.names() if names is None or name in names]

    def _here(self, name: str) -> list[Version]:
        return [version for version in self.versions(name) if version.key in self._catalog.present]

    def _highest(self, name: str) -> ModelKey:
        return (self._here(name) or self.versions(name))[-1].key

    async def _unload(self, key: ModelKey) -> None:
        await self._transitions.at_rest(key)
        if self._catalog[key].state is State.READY:
            self._asked_for.discard(key)
            self._transitions.unload(key)
            await self._transitions.at_rest(key)

    async def _rest_and_supersede(self, key: ModelKey) -> None:
        await self._transitions.at_rest(key)
        if self._catalog[key].state is State.READY:
            await self._supersede(key.name)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _settle(self, name: str) -> None:
        """Load what the policy keeps; where a version fails, the next one below takes its place."""
        while True:
            sound = [version for version in self._here(name) if version.state is not State.FAILED]
            kept = self._policy.kept(version.key.version for version in sound)
            new = [v.key for v in sound if v.key.version in kept and v.state is State.UNLOADED]
            if not new:
                break
            for key in reversed(new):
                self._transitions.load(key)
            await asyncio.gather(*(self._transitions.at_rest(key) for key in new))
        await self._supersede(name)

    async def _supersede(self, name: str) -> None:
        """Unload what the policy does not keep among the versions that are READY."""
        ready = [v.key for v in self._here(name) if v.state is State.READY]
        kept = self._policy.kept(key.version for key in ready)
        old = [key for key in ready if key.version not in kept and key not in self._asked_for]
        await asyncio.gather(*(self._unload(key) for key in old))

    async def _follow_all(self, names: Names) -> None:
        async with self._following:
            await asyncio.gather(*(self._follow(name) for name in self._of(names)))

    async def _follow(self, name: str) -> None:
        for version in self._here(name):
            if version.state in (State.FAILED, State.READY):
                self._look_again(version)
        await self._settle(name)
        here = {version.key for version in self._here(name)}
        gone = [v.key for v in self.versions(name) if v.key not in here]
        await asyncio.gather(*(self._unload(key) for key in gone))

    def _look_again(self, version: Version) -> None:
        """A failed version whose files changed is to be tried again; a READY one stays what it was."""
        stamp = stamp_of(version.folder)
        if stamp == version.stamp:
            return
        if version.state is State.FAILED:
            self._catalog.set(version.key, state=State.UNLOADED, message="", stamp=stamp)
            return
        message = "its files have changed since it was loaded; publish them as a new version"
        log.warning(message, extra={"model": version.key.name, "version": version.key.version})
        self._catalog.set(version.key, message=message, stamp=stamp)

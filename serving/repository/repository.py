"""Loads and unloads model versions, and knows which one answers; lives on the event loop."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from export.package.errors import PackageError
from export.package.read import Package
from serving.engine.messages import ModelKey
from serving.errors import FailedPrecondition, NotFound
from serving.families.calibration import Calibration
from serving.repository.loader import LoadedModel, Loader
from serving.repository.scan import calibration_path, versions_in

log = logging.getLogger("pxserve.repository")

ReadPackage = Callable[[Path], Package]
LOADS_AT_ONCE = 2

Done = TypeVar("Done")


class State(enum.StrEnum):
    """Life of a version in this process."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"


@dataclass(frozen=True)
class Version:
    """One version of a model; ``loaded`` while it is READY or UNLOADING."""

    key: ModelKey
    folder: Path
    state: State = State.UNLOADED
    message: str = ""
    loaded: LoadedModel | None = None


class Repository:
    """Versions by key. Every change happens on the event loop; reading and warming happen in threads."""

    def __init__(
        self,
        root: Path,
        loader: Loader,
        read: ReadPackage,
        changed: Callable[[], None] = lambda: None,
        workers: int = LOADS_AT_ONCE,
    ) -> None:
        self._root = root
        self._loader = loader
        self._read = read
        self._changed = changed
        self._versions: dict[ModelKey, Version] = {}
        self._work: dict[ModelKey, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="load")

    def versions(self) -> list[Version]:
        """All versions that were ever seen in the folder, by name and version."""
        return [
            self._versions[key] for key in sorted(self._versions, key=lambda key: (key.name, key.version))
        ]

    def default(self, name: str) -> Version | None:
        """The highest READY version, which answers requests that name none."""
        ready = [v for v in self.versions() if v.key.name == name and v.state is State.READY]
        return ready[-1] if ready else None

    def find(self, name: str, version: int | None) -> Version:
        """The version asked for, else the default, else the highest; NotFound where there is none."""
        known = [v for v in self.versions() if v.key.name == name]
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

    async def load_all(self) -> None:
        """Load every version of the folder; returns when each is READY or FAILED."""
        self._scan()
        keys = sorted(self._versions, key=lambda key: (-key.version, key.name))
        await asyncio.gather(*(self._begin(key, State.LOADING, self._load(key)) for key in keys))

    async def load(self, name: str, version: int | None, wait: bool) -> Version:
        """Load a version (absent: the latest of the folder); loading a READY one changes nothing."""
        self._scan()
        key = self.find(name, version).key
        if version is None:
            key = [v.key for v in self.versions() if v.key.name == name][-1]
        if self._versions[key].state in (State.UNLOADED, State.FAILED):
            self._begin(key, State.LOADING, self._load(key))
        if wait:
            await self._settled(key)
        return self._versions[key]

    async def unload(self, name: str, version: int | None) -> Version:
        """Unload a version, or all of a model; waits for its requests. Unloading twice changes nothing."""
        last = self.find(name, version)
        keys = [last.key] if version is not None else [v.key for v in self.versions() if v.key.name == name]
        for key in keys:
            await self._settled(key)
            if self._versions[key].state is State.READY:
                self._begin(key, State.UNLOADING, self._unload(key))
                await self._settled(key)
        return self._versions[keys[-1]]

    async def close(self) -> None:
        """Wait for what is under way."""
        for task in list(self._work.values()):
            await asyncio.gather(task, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def _scan(self) -> None:
        found = versions_in(self._root)
        for key, folder in found.items():
            self._versions.setdefault(key, Version(key, folder))
        for key in [key for key in self._versions if key not in found]:
            if self._versions[key].state in (State.UNLOADED, State.FAILED):
                del self._versions[key]

    def _begin(self, key: ModelKey, state: State, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        self._set(key, state=state, message="")
        task = asyncio.get_running_loop().create_task(work)
        self._work[key] = task
        task.add_done_callback(
            lambda done: self._work.pop(key, None) if self._work.get(key) is done else None
        )
        return task

    async def _settled(self, key: ModelKey) -> None:
        """Wait for what is under way; a waiter that is cancelled does not cancel it."""
        while (task := self._work.get(key)) is not None:
            await asyncio.shield(task)

    async def _load(self, key: ModelKey) -> None:
        folder = self._versions[key].folder
        try:
            loaded, remark = await self._in_thread(lambda: self._read_and_load(key, folder))
        except Exception as error:  # whatever is wrong with one package is its own trouble
            log.warning(
                "model failed to load", extra={"model": key.name, "version": key.version}, exc_info=error
            )
            self._set(key, state=State.FAILED, message=_reason(error))
            return
        seconds = round(loaded.load_seconds + loaded.warmup_seconds, 3)
        facts = {"model": key.name, "version": key.version, "seconds": seconds, "device": loaded.device}
        log.info("model ready", extra=facts)
        self._set(key, state=State.READY, message=remark, loaded=loaded)

    async def _unload(self, key: ModelKey) -> None:
        try:
            await self._in_thread(lambda: self._loader.unload(key))
        finally:
            self._set(key, state=State.UNLOADED, message="", loaded=None)
        log.info("model unloaded", extra={"model": key.name, "version": key.version})

    def _read_and_load(self, key: ModelKey, folder: Path) -> tuple[LoadedModel, str]:
        package = self._read(folder)
        calibration, remark = _calibration(folder, package.digest)
        return self._loader.load(key, package, calibration), remark

    async def _in_thread(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _set(self, key: ModelKey, **changes: Any) -> None:
        self._versions[key] = replace(self._versions[key], **changes)
        self._changed()


def _reason(error: Exception) -> str:
    """What a client may know of it: no path of this machine."""
    if isinstance(error, PackageError):
        return f"{Path(error.where).name}: {error.problem}. {error.fix} [{error.reason}]"
    return str(error) or type(error).__name__


def _calibration(folder: Path, digest: str) -> tuple[Calibration | None, str]:
    """The calibration beside a package; a wrong one is left out, and the remark says so."""
    path = calibration_path(folder)
    if not path.is_file():
        return None, ""
    try:
        return Calibration.read(path, digest), ""
    except FailedPrecondition as error:
        log.warning("calibration left out", extra={"file": path.name, "error": error.message})
        return None, f"calibration left out: {error.message}"

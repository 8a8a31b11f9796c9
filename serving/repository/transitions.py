"""From one state of a version to another: files are read and networks warmed in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from export.package.errors import PackageError
from export.package.read import Package
from serving.engine.messages import ModelKey
from serving.errors import FailedPrecondition
from serving.families.calibration import Calibration
from serving.repository.catalog import Catalog
from serving.repository.loader import LoadedModel, Loader
from serving.repository.scan import Stamp, calibration_path, stamp_of
from serving.repository.version import State

log = logging.getLogger("pxserve.repository")

ReadPackage = Callable[[Path], Package]
LOADS_AT_ONCE = 2

Done = TypeVar("Done")


class Transitions:
    """Loads and unloads; of one version, one thing after the other."""

    def __init__(self, catalog: Catalog, loader: Loader, read: ReadPackage) -> None:
        self._catalog = catalog
        self._loader = loader
        self._read = read
        self._work: dict[ModelKey, asyncio.Task[None]] = {}
        self._loads = asyncio.Semaphore(LOADS_AT_ONCE)

    def load(self, key: ModelKey) -> None:
        """Begin to load a version that is UNLOADED, UNLOADING or FAILED."""
        self._begin(key, State.LOADING, self._load(key))

    def unload(self, key: ModelKey) -> None:
        """Begin to unload a READY version, once its requests have ended."""
        self._begin(key, State.UNLOADING, self._unload(key))

    async def at_rest(self, key: ModelKey) -> None:
        """Wait for what is under way; a waiter that is cancelled does not cancel it."""
        while (task := self._work.get(key)) is not None:
            await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is under way."""
        for task in list(self._work.values()):
            await asyncio.gather(task, return_exceptions=True)

    def _begin(self, key: ModelKey, state: State, work: Coroutine[None, None, None]) -> None:
        before = self._work.get(key)

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait([before])
                self._catalog.set(key, state=state, message="")
            await work

        self._catalog.set(key, state=state, message="")
        task = self._work[key] = asyncio.get_running_loop().create_task(in_turn())
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: ModelKey, task: asyncio.Task[None]) -> None:
        if self._work.get(key) is task:
            del self._work[key]

    async def _load(self, key: ModelKey) -> None:
        folder = self._catalog[key].folder
        loop = asyncio.get_running_loop()
        try:
            stamp, loaded, remark = await self._in_thread(
                lambda: self._read_and_load(
                    key, folder, lambda: loop.call_soon_threadsafe(self._warming, key)
                )
            )
        except Exception as error:  # whatever is wrong with one package is its own trouble
            facts = {"model": key.name, "version": key.version}
            log.warning("model failed to load", extra=facts, exc_info=error)
            stamp = await self._in_thread(lambda: stamp_of(folder))
            self._catalog.set(key, state=State.FAILED, message=_reason(error), stamp=stamp)
            return
        seconds = round(loaded.load_seconds + loaded.warmup_seconds, 3)
        facts = {"model": key.name, "version": key.version, "seconds": seconds, "device": loaded.device}
        log.info("model ready", extra=facts)
        self._catalog.set(key, state=State.READY, message=remark, loaded=loaded, stamp=stamp)

    def _warming(self, key: ModelKey) -> None:
        if self._catalog[key].state is State.LOADING:
            self._catalog.set(key, state=State.WARMING)

    async def _unload(self, key: ModelKey) -> None:
        await self._catalog.unused(key)
        try:
            await self._in_thread(lambda: self._loader.unload(key))
        finally:
            self._catalog.set(key, state=State.UNLOADED, message="", loaded=None)
        log.info("model unloaded", extra={"model": key.name, "version": key.version})

    def _read_and_load(
        self, key: ModelKey, folder: Path, warming: Callable[[], object]
    ) -> tuple[Stamp, LoadedModel, str]:
        stamp = stamp_of(folder)  # before it is read: files that change meanwhile show as changed
        package = self._read(folder)
        calibration, remark = _calibration(folder, package.digest)
        return stamp, self._loader.load(key, package, calibration, warming), remark

    async def _in_thread(self, work: Callable[[], Done]) -> Done:
        """In a thread that ends with it: one that ran a network keeps OpenMP threads for as long as it lives,
        and where there are more of those than cores, they sleep at every barrier instead of spinning, the
        engine's too: a sixth of a large network's run.
        """
        async with self._loads:
            thread = ThreadPoolExecutor(1, thread_name_prefix="load")
            try:
                return await asyncio.get_running_loop().run_in_executor(thread, work)
            finally:
                thread.shutdown(wait=False)


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

"""Who decides what is loaded: nobody once the server has started, administrators, or the folder."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal

from serving.errors import FailedPrecondition
from serving.repository.repository import Names, Repository
from serving.repository.version import Version

log = logging.getLogger("pxserve.repository")

Mode = Literal["none", "explicit", "poll"]


@dataclass(frozen=True)
class Control:
    """``none``: what the start loaded stays. ``explicit``: LoadModel and UnloadModel. ``poll``: the folder.

    The names are those of Triton's model control modes; unlike there, ``explicit`` also loads ``names`` at
    the start (None: all models). In ``poll``, LoadModel looks at the folder at once.
    """

    repository: Repository
    mode: Mode = "explicit"
    names: Names = None
    poll_s: float = 15.0

    async def start(self) -> None:
        """Load the models of the start."""
        await self.repository.load_all(self.names)

    async def run(self) -> None:
        """Follow the folder for as long as the server serves."""
        while self.mode == "poll":
            await asyncio.sleep(self.poll_s)
            try:
                await self.repository.follow(self.names)
            except Exception:  # a folder that cannot be read for a moment is looked at again
                log.exception("looking at the folder of models failed")

    async def load(self, name: str, version: int | None, wait: bool) -> Version:
        """LoadModel; raises FailedPrecondition where the mode has none."""
        if self.mode == "explicit":
            return await self.repository.load(name, version, wait)
        if self.mode == "none":
            raise _refused(self.mode, "restart it to load others")
        await self.repository.follow(frozenset({name}), wait)
        return self.repository.find(name, version)

    async def unload(self, name: str, version: int | None) -> Version:
        """UnloadModel; raises FailedPrecondition where the mode has none."""
        if self.mode == "explicit":
            return await self.repository.unload(name, version)
        advice = (
            "restart it without the model" if self.mode == "none" else "take the version out of the folder"
        )
        raise _refused(self.mode, advice)


def _refused(mode: Mode, advice: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"this server runs with --repository-mode {mode}; {advice}", reason="REPOSITORY_MODE"
    )

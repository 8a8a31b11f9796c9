"""Refusals of a folder: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path

from export.package.errors import PackageError, Reason


def bad_source(where: Path | str, problem: str, fix: str) -> PackageError:
    """A folder that is not whole, or does not say what is needed."""
    return PackageError(Reason.BAD_SOURCE, where, problem, fix)


def bad_weights(where: Path | str, problem: str, fix: str) -> PackageError:
    """Weights that are missing, broken, superfluous or no numbers."""
    return PackageError(Reason.BAD_WEIGHTS, where, problem, fix)


def unsupported(where: Path | str, problem: str, fix: str) -> PackageError:
    """A network that cannot be written exactly."""
    return PackageError(Reason.UNSUPPORTED_NETWORK, where, problem, fix)

"""What this importer does not take: named, with what it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from export.package.errors import PackageError, Reason

WHERE = "_where"  # key under which a configuration carries the file that it was read from


def where_of(config: Mapping[str, Any]) -> str:
    """The file that a configuration was read from, and its class."""
    return f"{config.get(WHERE, 'configuration')}: {config.get('_class_name', '')}".rstrip(": ")


def unsupported(config: Mapping[str, Any], key: str, value: object, known: Iterable[object]) -> PackageError:
    """A value that has no counterpart here."""
    listed = ", ".join(str(one) for one in known)
    return PackageError(
        Reason.UNSUPPORTED_NETWORK,
        where_of(config),
        f"{key} {value!r} is not supported",
        f"Supported: {listed}",
    )


def not_supported(config: Mapping[str, Any], problem: str, fix: str) -> PackageError:
    """A feature that has no counterpart here."""
    return PackageError(Reason.UNSUPPORTED_NETWORK, where_of(config), problem, fix)


def bad_source(where: Path | str, problem: str, fix: str) -> PackageError:
    """The folder itself is not what it should be."""
    return PackageError(Reason.BAD_SOURCE, where, problem, fix)


def not_stated(problem: str, flag: str) -> PackageError:
    """Something that no file of the folder says."""
    return PackageError(Reason.BAD_SPECIFICATION, "command line", problem, f"Add {flag}")


def bad_weights(where: Path | str, problem: str, fix: str) -> PackageError:
    """Weights that are not those of the network."""
    return PackageError(Reason.BAD_WEIGHTS, where, problem, fix)

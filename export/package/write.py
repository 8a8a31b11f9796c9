"""Writing a package: all of it, or nothing."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from export.package.components import check_components
from export.package.digest import copy_hashed, move_hashed
from export.package.errors import PackageError, Reason
from export.package.exchange import exchange
from export.package.parse import parse_spec
from export.package.paths import MODEL_FILE, check_relative, version_of
from export.package.schema import ModelSpec
from export.package.text import to_yaml

Draft = Mapping[str, Any] | ModelSpec

_TEMPORARY = ".writing-"


def write_package(
    spec: Draft, files: Mapping[str, Path | bytes], to: Path, version: int, *, replace: bool = False
) -> Path:
    """Write ``to/NAME/VERSION`` and return it.

    ``spec``: the contents of ``model.yaml`` without ``files`` (there, it is overwritten); ``files``: name in
    the package -> the file to copy, or its bytes. Everything goes to a hidden folder in ``to/NAME``, is
    flushed to disk, then renamed: a reader sees a whole package or none, and an interrupted writing
    leaves only a hidden folder, which the next writing removes. Files that lie in a ``staging`` folder are
    moved there, not copied.
    Raises PackageError: those of ``parse_spec`` and ``check_components``, BAD_VERSION, PATH_ESCAPES,
    VERSION_EXISTS, WRITE_FAILED.
    """
    draft = _mapping(spec)
    check_components(
        "model.yaml", parse_spec("model.yaml", {**draft, "files": dict.fromkeys(files, "0" * 64)})
    )
    target = (to / str(draft["name"]) / str(version)).absolute()
    version_of(target)
    for file in files:
        _check_name(target, file)
    if target.exists() and not replace:
        raise _exists(target)
    try:
        with _temporary(target.parent, version) as folder:
            hashes = {file: _place(source, folder / file) for file, source in files.items()}
            written = parse_spec(folder / MODEL_FILE, {**draft, "files": hashes})
            copy_hashed(to_yaml(written), folder / MODEL_FILE)
            _flush_folders(folder)
            _publish(folder, target)
    except OSError as error:
        raise PackageError(
            Reason.WRITE_FAILED,
            target,
            f"writing failed: {error}",
            "Nothing was published; correct it and repeat",
        ) from error
    return target


@contextmanager
def staging(to: Path, name: str) -> Iterator[Path]:
    """A hidden folder for graphs on their way into ``to/NAME``; swept as the others are, whatever happens.

    Raises PackageError (WRITE_FAILED), also for what fails on the disk inside the block.
    """
    try:
        with _temporary((to / name).absolute(), 0) as folder:
            yield folder
    except OSError as error:
        raise PackageError(
            Reason.WRITE_FAILED,
            to / name,
            f"writing failed: {error}",
            "Nothing was published; correct it and repeat",
        ) from error
    finally:
        with suppress(OSError):  # not empty: other versions live there
            (to / name).rmdir()


def _place(source: Path | bytes, target: Path) -> str:
    staged = isinstance(source, Path) and any(part.startswith(_TEMPORARY) for part in source.parts)
    return move_hashed(source, target) if isinstance(source, Path) and staged else copy_hashed(source, target)


def _mapping(spec: Draft) -> dict[str, Any]:
    return spec.model_dump(exclude={"files"}) if isinstance(spec, ModelSpec) else dict(spec)


def _check_name(target: Path, file: str) -> None:
    check_relative(target, file)
    if file == MODEL_FILE:
        raise PackageError(
            Reason.BAD_VALUE, target / file, "model.yaml is written from the spec", "Leave it out"
        )


def _exists(target: Path) -> PackageError:
    return PackageError(
        Reason.VERSION_EXISTS,
        target,
        "this version exists, and versions do not change once published",
        "Choose the next version, or ask for it to be replaced",
    )


@contextmanager
def _temporary(model: Path, version: int) -> Iterator[Path]:
    """A hidden folder beside the versions, locked while its writer lives, gone afterwards if not renamed."""
    model.mkdir(parents=True, exist_ok=True)
    _sweep(model)
    folder = model / f"{_TEMPORARY}{version}-{secrets.token_hex(6)}"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(model: Path) -> None:
    """Remove the temporary folders of writers that died: their locks died with them."""
    for folder in model.glob(f"{_TEMPORARY}*"):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # its writer is at work
        finally:
            os.close(lock)


def _flush_folders(folder: Path) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _flush(path)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(folder: Path, target: Path) -> None:
    """Rename into place. An old version trades places with the new one, so that it is never missing."""
    if not (target.exists() and exchange(folder, target)):  # traded: what is temporary now goes as ever
        _rename(folder, target)
    _flush(target.parent)


def _rename(folder: Path, target: Path) -> None:
    """Without an exchange an old version steps aside first, and is removed last."""
    old = target.parent / f"{_TEMPORARY}old-{secrets.token_hex(6)}"
    if target.exists():
        target.rename(old)
    folder.rename(target)
    if old.exists():
        shutil.rmtree(old)

"""SHA-256 of files, read in pieces, so that weights of any size never fill the memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

PIECE_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; OSError passes through."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def copy_hashed(source: Path | bytes, target: Path) -> str:
    """Write ``source`` (a file, or bytes) to the new file ``target``, flush it to disk; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        digest = _write(source, out)
        out.flush()
        os.fsync(out.fileno())
    return digest


def move_hashed(source: Path, target: Path) -> str:
    """Rename ``source`` to the new file ``target`` on the same disk, flush it; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(source: Path | bytes, out: BinaryIO) -> str:
    if isinstance(source, bytes):
        out.write(source)
        return sha256_bytes(source)
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()

"""Why a package was refused: one error, with a reason that programs can branch on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Every way in which a package can be wrong."""

    MISSING_FOLDER = "MISSING_FOLDER"
    BAD_VERSION = "BAD_VERSION"
    NAME_MISMATCH = "NAME_MISMATCH"
    UNREADABLE_YAML = "UNREADABLE_YAML"
    FORMAT_VERSION = "FORMAT_VERSION"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    MISSING_KEY = "MISSING_KEY"
    BAD_VALUE = "BAD_VALUE"
    WRONG_SHAPE = "WRONG_SHAPE"
    MISSING_FILE = "MISSING_FILE"
    UNLISTED_FILE = "UNLISTED_FILE"
    PATH_ESCAPES = "PATH_ESCAPES"
    WRONG_HASH = "WRONG_HASH"
    MISSING_COMPONENT = "MISSING_COMPONENT"
    UNKNOWN_COMPONENT = "UNKNOWN_COMPONENT"
    UNREADABLE_GRAPH = "UNREADABLE_GRAPH"
    GRAPH_MISMATCH = "GRAPH_MISMATCH"
    TORCHSCRIPT_NOT_ALLOWED = "TORCHSCRIPT_NOT_ALLOWED"
    PARITY = "PARITY"
    BAD_SPECIFICATION = "BAD_SPECIFICATION"
    BAD_SOURCE = "BAD_SOURCE"
    BAD_WEIGHTS = "BAD_WEIGHTS"
    TRAINING_MODE = "TRAINING_MODE"
    UNSUPPORTED_NETWORK = "UNSUPPORTED_NETWORK"
    WRONG_OUTPUT = "WRONG_OUTPUT"
    VERSION_EXISTS = "VERSION_EXISTS"
    WRITE_FAILED = "WRITE_FAILED"


class PackageError(Exception):
    """A refusal: ``reason``, ``where`` (the file), ``problem`` (with the key), and what to do (``fix``)."""

    def __init__(self, reason: Reason, where: Path | str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}. {fix} [{reason}]")
        self.reason = reason
        self.where = str(where)
        self.problem = problem
        self.fix = fix

"""The file of tokens: TOML with one ``[[token]]`` per name, which holds hashes, never secrets."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.access.principal import LEAST_PRIORITY, MOST_PRIORITY, Principal, Scope
from serving.access.secrets import HASH, WELL_FORMED, hash_of, same
from serving.engine.messages import Quota
from serving.errors import Unauthenticated

_SCHEME = "bearer"
_NAME_CHARACTERS = 64


class TokensError(Exception):
    """The file cannot be used; the message says where and why, without a secret or a hash."""


@dataclass(frozen=True)
class Token:
    """``hashes``: more than one while a secret is being replaced."""

    principal: Principal
    hashes: tuple[str, ...]
    expires: datetime | None = None


@dataclass(frozen=True)
class Tokens:
    """All tokens of a server."""

    tokens: tuple[Token, ...]

    def principal(self, authorization: Sequence[str | bytes], now: datetime | None = None) -> Principal:
        """Whom the values of the metadata entry ``authorization`` stand for; raises Unauthenticated.

        Every hash is compared, whichever matches, so that time tells nothing about the others.
        """
        presented = hash_of(_secret(authorization))
        found = [token for token in self.tokens for known in token.hashes if same(known, presented)]
        if not found:
            raise Unauthenticated("the bearer token is not known to this server; it may have been revoked")
        token = found[0]
        if token.expires is not None and (now or datetime.now(UTC)) >= token.expires:
            raise Unauthenticated(f"the bearer token {token.principal.name!r} has expired")
        return token.principal


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file; raises TokensError for whatever is unknown, missing or wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokensError(f"{path}: is not UTF-8") from error
    return parse_tokens(text, str(path))


def parse_tokens(text: str, where: str) -> Tokens:
    """The tokens in TOML; raises TokensError, which begins with ``where``."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TokensError(f"{where}: is no TOML: {error}") from error
    entries = content.pop("token", [])
    if content or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TokensError(f"{where}: holds [[token]] entries and nothing else")
    tokens = tuple(_token(f"{where}: token {number}", entry) for number, entry in enumerate(entries, 1))
    _check_unique(where, tokens)
    return Tokens(tokens)


def _secret(authorization: Sequence[str | bytes]) -> str:
    if not authorization:
        raise Unauthenticated("this call needs a bearer token: metadata 'authorization: Bearer TOKEN'")
    text = authorization[0]
    scheme, _, secret = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if len(authorization) > 1 or scheme.lower() != _SCHEME or not WELL_FORMED.fullmatch(secret):
        raise Unauthenticated("the metadata entry 'authorization' must be one 'Bearer TOKEN'")
    return secret


def _token(where: str, entry: Mapping[str, Any]) -> Token:
    read = _Reader(where, dict(entry))
    name = read.text("name")
    if not (name.isprintable() and name.isascii() and len(name) <= _NAME_CHARACTERS):
        raise TokensError(f"{where}: name: 1 to {_NAME_CHARACTERS} printable ASCII characters")
    read.where = f"{where} ({name})"
    token = Token(
        Principal(
            name,
            read.scopes(),
            share_weight=read.positive("share-weight", 1.0),
            max_priority=read.priority(),
            quota=read.quota(),
        ),
        read.hashes(),
        read.expires(),
    )
    read.end()
    return token


class _Reader:
    """Takes the keys of one entry, each once; what is left over is an error."""

    def __init__(self, where: str, entry: dict[str, Any]) -> None:
        self.where = where
        self._entry = entry

    def text(self, key: str) -> str:
        value = self._entry.pop(key, None)
        if not isinstance(value, str) or not value:
            raise TokensError(f"{self.where}: {key}: a text is required")
        return value

    def positive(self, key: str, default: float) -> float:
        value = self._entry.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise TokensError(f"{self.where}: {key}: must be a number above 0")
        return float(value)

    def priority(self) -> int:
        value = self._entry.pop("max-priority", 0)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TokensError(f"{self.where}: max-priority: must be an integer")
        if not LEAST_PRIORITY <= value <= MOST_PRIORITY:
            raise TokensError(f"{self.where}: max-priority: must lie in {LEAST_PRIORITY}..{MOST_PRIORITY}")
        return value

    def quota(self) -> Quota | None:
        given = {"quota-device-s", "quota-window-s"} & self._entry.keys()
        if not given:
            return None
        if len(given) == 1:
            raise TokensError(f"{self.where}: quota-device-s and quota-window-s: one needs the other")
        return Quota(self.positive("quota-device-s", 0.0), self.positive("quota-window-s", 0.0))

    def scopes(self) -> frozenset[Scope]:
        value = self._entry.pop("scopes", None)
        known = ", ".join(Scope)
        if not isinstance(value, list) or not value or not set(map(str, value)) <= set(Scope):
            raise TokensError(f"{self.where}: scopes: a list of {known} is required")
        return frozenset(Scope(scope) for scope in value)

    def hashes(self) -> tuple[str, ...]:
        value = self._entry.pop("sha256", None)
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(one, str) and HASH.fullmatch(one) for one in listed):
            raise TokensError(
                f"{self.where}: sha256: 64 hexadecimal digits in lower case (or a list of such) are "
                "required; pxserve-server token makes them"
            )
        return tuple(listed)

    def expires(self) -> datetime | None:
        value = self._entry.pop("expires", None)
        if value is not None and not (isinstance(value, datetime) and value.tzinfo):
            raise TokensError(f"{self.where}: expires: a date and time with its offset, 2027-01-31T00:00:00Z")
        return value

    def end(self) -> None:
        if self._entry:
            raise TokensError(f"{self.where}: unknown key {min(self._entry)!r}")


def _check_unique(where: str, tokens: Sequence[Token]) -> None:
    names = [token.principal.name for token in tokens]
    hashes = [known for token in tokens for known in token.hashes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TokensError(f"{where}: two tokens have the name {twice[0]!r}")
    if len(set(hashes)) < len(hashes):
        raise TokensError(f"{where}: two tokens have the same secret")

"""Secrets of tokens: made here, shown once, and kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

PREFIX = "pxs_"  # so that people, and scanners of repositories, see what it is
_BYTES = 32
WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")  # b64token of RFC 6750
HASH = re.compile(r"[0-9a-f]{64}")


def new_secret() -> str:
    """256 random bits as text."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(secret: str) -> str:
    """SHA-256 of the UTF-8 bytes, in hexadecimal.

    Enough for secrets of 256 random bits, which nobody can guess; a password that a person made up would
    need a slow hash, and has no place here.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two hashes are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())

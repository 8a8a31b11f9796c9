"""``pxserve-server token``: a new secret, and the entry of the tokens file that stands for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from serving.access.secrets import hash_of, new_secret


@dataclass(frozen=True)
class Wanted:
    """What the new token is to open; None and 0 are left out of the entry."""

    name: str
    scopes: Sequence[str]
    quota_device_s: float | None = None
    quota_window_s: float | None = None
    share_weight: float | None = None
    max_priority: int = 0
    expires: str | None = None  # date and time with its offset, as TOML writes it


def new_token(wanted: Wanted) -> tuple[str, str]:
    """(secret, entry). The entry holds the secret's hash alone; what is wrong in it ``read_tokens`` says."""
    secret = new_secret()
    lines = {
        "name": json.dumps(wanted.name),
        "sha256": json.dumps(hash_of(secret)),
        "scopes": json.dumps(list(wanted.scopes)),
        "quota-device-s": wanted.quota_device_s,
        "quota-window-s": wanted.quota_window_s,
        "share-weight": wanted.share_weight,
        "max-priority": wanted.max_priority or None,
        "expires": wanted.expires,
    }
    entry = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    return secret, f"[[token]]\n{entry}"

"""Flags of the connection: target, transport security, token."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import grpc

from pxserve.channel import ConnectionSettingError, Tls

DEFAULT_TARGET = "127.0.0.1:8500"


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Of every subcommand that asks a server."""
    group = sub.add_argument_group("connection and output")
    target = os.environ.get("PXSERVE_TARGET", DEFAULT_TARGET)
    group.add_argument("--target", default=target, metavar="HOST:PORT", help="server (default: %(default)s)")
    group.add_argument(
        "--tls", nargs="?", const=True, metavar="ROOTS.pem", help="use TLS, with the system's roots or these"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE.pem", help="own certificate, for mutual TLS")
    group.add_argument("--tls-key", type=Path, metavar="FILE.key", help="its private key")
    group.add_argument("--token", default=os.environ.get("PXSERVE_TOKEN"), help="default: $PXSERVE_TOKEN")
    group.add_argument(
        "--allow-plaintext-token", action="store_true", help="send the token without TLS beyond this machine"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object, and no progress")


def connection(given: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the clients; raises what is wrong with the flags."""
    return {
        "tls": _tls(given),
        "token": given.token,
        "allow_plaintext_token": given.allow_plaintext_token,
    }


def _tls(given: argparse.Namespace) -> Tls:
    if not (given.tls_cert or given.tls_key):
        tls: Tls = given.tls
        return tls
    if not (given.tls and given.tls_cert and given.tls_key):
        raise ConnectionSettingError("--tls-cert and --tls-key go together, with --tls")
    roots = None if given.tls is True else Path(given.tls).read_bytes()
    return grpc.ssl_channel_credentials(roots, given.tls_key.read_bytes(), given.tls_cert.read_bytes())

"""The server's certificate, its key and the authorities of clients: read again when the files change."""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc

from serving.access.watched import Watched
from serving.config import Config, ConfigError

log = logging.getLogger("pxserve.access")

Configuration = grpc.ServerCertificateConfiguration
EDWARDS = {"Ed25519": "300506032b6570032100", "Ed448": "300506032b6571033a00"}  # public keys in DER, RFC 8410
NOTHING_NEW = cast("Configuration", None)  # gRPC documents it; its stubs do not know it


class Certificates:
    """Credentials whose new connections see the files as they are; open ones keep what they began with."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError where the files cannot be used."""
        self._certificate, self._key = Path(config.tls_cert), Path(config.tls_key)
        self._authorities = Path(config.tls_client_ca) if config.tls_client_ca else None
        paths = [self._certificate, self._key, *([self._authorities] if self._authorities else [])]
        try:
            self._watched = Watched("certificates", paths, self._read)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tls-cert, tls-key: {error}") from error

    def credentials(self) -> grpc.ServerCredentials:
        """For one listening port."""
        return grpc.dynamic_ssl_server_credentials(
            self._watched.value, self._fetcher(), require_client_authentication=self._authorities is not None
        )

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        self._watched.refresh()

    def _fetcher(self) -> Callable[[], Configuration]:
        """What gRPC asks at every handshake."""
        told = self._watched.value

        def fetch() -> Configuration:
            nonlocal told
            self._watched.refresh()
            if self._watched.value is told:
                return NOTHING_NEW
            told = self._watched.value
            return told

        return fetch

    def _read(self) -> Configuration:
        """OpenSSL checks the pair before gRPC sees it: a wrong one would fail handshakes, not be refused."""
        read = self._contents()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
            if self._authorities:
                context.load_verify_locations(cafile=self._authorities)
        except ssl.SSLError as error:
            raise ValueError(f"{self._certificate} and {self._key} cannot be used: {error}") from error
        if self._contents() != read:
            raise ValueError("the files changed while they were read")
        certificate, key, authorities = read
        _check_kind(self._certificate, certificate)
        log.info("certificate", extra={"sha256": _fingerprint(certificate)})
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        authorities = self._authorities.read_bytes() if self._authorities else None
        return self._certificate.read_bytes(), self._key.read_bytes(), authorities


def _check_kind(path: Path, certificate: bytes) -> None:
    """ValueError for keys that OpenSSL takes and gRPC does not: every handshake would fail."""
    for kind, mark in EDWARDS.items():
        if bytes.fromhex(mark) in _first(certificate):
            raise ValueError(f"{path}: its key is {kind}, which gRPC's TLS does not take; use ECDSA or RSA")


def _fingerprint(certificate: bytes) -> str:
    """SHA-256 of the first certificate, as ``openssl x509 -fingerprint -sha256`` prints it."""
    return hashlib.sha256(_first(certificate)).hexdigest()


def _first(certificate: bytes) -> bytes:
    """The first certificate of a chain in PEM, as DER."""
    pem = certificate.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(f"{begin}{pem.partition(begin)[2].partition(end)[0]}{end}\n")

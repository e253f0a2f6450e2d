"""Who a server talks to: certificates for servers and clients, and which addresses need them.

Both sides of every connection show a certificate of one authority, the cluster's own. A server's names the
server, so that no client, and no other server, can pass for it: who answers at n2's address, and
who says in its hello that it is n2, must hold the certificate of n2.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tls:
    """The files of one server or client, in PEM format."""

    certificate: Path
    key: Path
    authority: Path  # whose certificates are accepted

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, authority: Path | None) -> Tls | None:
        """All three files, or none for connections without TLS. Raises `ValueError` for some of them."""
        if certificate and key and authority:
            return cls(certificate, key, authority)
        if certificate or key or authority:
            raise ValueError("TLS needs all three of --tls-certificate, --tls-key and --tls-authority")
        return None

    def accepting(self) -> ssl.SSLContext:
        """For connections that others open: a caller without a certificate is refused."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def opening(self) -> ssl.SSLContext:
        """For connections that we open: whoever answers must be the server that is wanted."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.authority)
        except ssl.SSLError as error:
            reason = error.reason or "no certificates in PEM format"
            files = f"{self.certificate}, {self.key}, {self.authority}"
            raise ValueError(f"one of {files} can't be used: {reason}") from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The DNS names that a certificate was issued for, as `getpeercert` gives it."""
    alternatives: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    return frozenset(name for kind, name in alternatives if kind == "DNS")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach who listens on `host`. Raises `OSError` if the name is unknown."""
    if not host:
        return False
    found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in found)

"""Where the servers of a cluster listen: `n1=127.0.0.1:7001,n2=127.0.0.1:7002`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

LOCALHOST: Final = "127.0.0.1"


class Address(NamedTuple):
    """One port for peers and clients alike: the first frame of a connection says who calls."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Addresses = Mapping[str, Address]


def parse_addresses(text: str) -> dict[str, Address]:
    """The servers and their addresses, from `name=host:port` or `name=port` with commas between.

    >>> parse_addresses("n1=127.0.0.1:7001,n2=[::1]:7002")["n2"]
    Address(host='::1', port=7002)
    """
    addresses: dict[str, Address] = {}
    for part in text.split(","):
        server, equals, address = part.strip().partition("=")
        host, colon, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if colon else LOCALHOST
        if not (server and equals and host and port.isascii() and port.isdigit()):
            raise ValueError(
                f"{part.strip()!r} is no address: write NAME=HOST:PORT, for instance n1=127.0.0.1:7001"
            )
        if not re.fullmatch(r"\w[\w.-]*", server):
            # It becomes part of the names of files.
            raise ValueError(f"{server!r} is no server's name: use letters, digits, and . - _ between them")
        if not 0 < int(port) < 65536:
            raise ValueError(f"{part.strip()!r} has a port outside 1 to 65535")
        if server in addresses:
            raise ValueError(f"{server!r} has two addresses: {addresses[server]} and {address}")
        addresses[server] = Address(host, int(port))
    if len(set(addresses.values())) != len(addresses):
        raise ValueError(f"two servers have the same address: {text}")
    return addresses


def format_addresses(addresses: Addresses) -> str:
    """The inverse of `parse_addresses`."""
    return ",".join(f"{server}={address}" for server, address in addresses.items())

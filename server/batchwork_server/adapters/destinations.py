"""Where messages may go: names are looked up once, and private addresses are refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from batchwork_server.errors import NotSent

Address = IPv4Address | IPv6Address

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host; raises OSError when it has none."""

NO_ADDRESS = "The host of the target has no address now."
NOT_PUBLIC = (
    "The target has an address that is not public; the operator can allow such addresses in the "
    "file of targets."
)

_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_SPECIAL = (
    # What some versions of Python take for public: theirs is the registry of the day of release.
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv6Network("2001::/23"),  # protocol assignments; Teredo is one, and looked into before
    IPv6Network("3fff::/20"),  # documentation
)
"""Sources: IANA's registries of special-purpose addresses, RFC 4291 (2000::/3), RFC 6890."""

_LOOPBACK_NAMES = {"localhost"}


def is_loopback_host(host: str) -> bool:
    """Tells whether a host is this machine, without asking anybody."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def is_public(address: Address) -> bool:
    """Tells whether an address is one of the internet, and not of a network behind it.

    An address that leads to others is as public as those.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not _is_in(address, _SPECIAL)
    inner = _inner(address)
    if inner:
        return all(map(is_public, inner))
    return address in _GLOBAL_UNICAST and address.is_global and not _is_in(address, _SPECIAL)


def _inner(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Returns the addresses of IPv4 to which a gateway, or the system itself, takes one of IPv6."""
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def _is_in(address: Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Asks the system for the addresses of a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An address of one link only has a zone; it is refused with the link's name or without.
    addresses = (ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
    return list(dict.fromkeys(addresses))


class Destinations:
    """Finds the addresses of hosts, and refuses what may not be reached.

    Args:
        allow_private: Whether addresses that are not of the internet may be reached, too.
    """

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Returns the addresses of a host, of which every one may be reached.

        Raises:
            NotSent: it has none now, or one that may not be reached.
        """
        host = host.strip("[]")
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NotSent(NO_ADDRESS, again=True, detail=f"host {host}") from error
        if not found:
            raise NotSent(NO_ADDRESS, again=True, detail=f"host {host}")
        for address in found:
            if not self._allow_private and not is_public(address):
                detail = f"host {host}, address {address}"
                raise NotSent(NOT_PUBLIC, again=False, detail=detail)
        return found

"""Which addresses are of the internet, also of those that carry another one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from batchwork_server.adapters.destinations import is_public

PUBLIC = IPv4Address("8.8.8.8")
PRIVATE = [IPv4Address(text) for text in ("10.1.2.3", "127.0.0.1", "169.254.169.254", "100.64.0.1")]


def teredo(*, server: IPv4Address, client: IPv4Address) -> IPv6Address:
    """The address of a client, with all its bits turned, as it got it from a server."""
    hidden = int(client) ^ 0xFFFFFFFF
    return IPv6Address((0x20010000 << 96) | (int(server) << 64) | hidden)


def six_to_four(inner: IPv4Address) -> IPv6Address:
    return IPv6Address((0x2002 << 112) | (int(inner) << 80) | 1)


def carried(prefix: str, inner: IPv4Address) -> IPv6Address:
    """An address whose last 32 bits are one of IPv4."""
    return IPv6Address(int(IPv6Address(prefix)) | int(inner))


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("10.1.2.3", id="private, class A"),
        pytest.param("172.16.0.1", id="private, class B"),
        pytest.param("192.168.1.1", id="private, class C"),
        pytest.param("169.254.169.254", id="link-local, metadata"),
        pytest.param("100.64.0.1", id="shared by a carrier"),
        pytest.param("0.0.0.0", id="this host"),
        pytest.param("0.1.2.3", id="this network"),
        pytest.param("192.0.0.8", id="dummy"),
        pytest.param("192.0.0.192", id="protocol assignment"),
        pytest.param("192.0.2.1", id="documentation"),
        pytest.param("192.88.99.1", id="relay of 6to4"),
        pytest.param("198.18.0.1", id="benchmarks"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("239.1.1.1", id="multicast of an organisation"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("::", id="unspecified"),
        pytest.param("::1", id="loopback, IPv6"),
        pytest.param("fe80::1", id="link-local, IPv6"),
        pytest.param("fec0::1", id="site-local"),
        pytest.param("fc00::1", id="unique local"),
        pytest.param("fd12:3456::1", id="unique local, random"),
        pytest.param("ff02::1", id="multicast, IPv6"),
        pytest.param("ff0e::1", id="multicast, IPv6, global"),
        pytest.param("64:ff9b:1::a01:203", id="NAT64 of a network"),
        pytest.param("64:ff9b:1::808:808", id="NAT64 of a network, to a public one"),
        pytest.param("100::1", id="discarded"),
        pytest.param("2001:2::1", id="benchmarks, IPv6"),
        pytest.param("2001:10::1", id="ORCHID"),
        pytest.param("2001:20::1", id="ORCHIDv2"),
        pytest.param("2001:db8::1", id="documentation, IPv6"),
        pytest.param("3fff::1", id="documentation, IPv6, new"),
        pytest.param("5f00::1", id="segment routing"),
        pytest.param("4000::1", id="not given out"),
        pytest.param("::ffff:0:808:808", id="translated"),
        pytest.param("::808:808", id="compatible"),
    ],
)
def test_what_is_not_of_the_internet_is_not_public(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("inner", PRIVATE, ids=str)
@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param("::ffff:0:0", id="mapped"),
        pytest.param("::ffff:0:0:0", id="translated"),
        pytest.param("::", id="compatible"),
        pytest.param("64:ff9b::", id="NAT64"),
        pytest.param("64:ff9b:1::", id="NAT64 of a network"),
    ],
)
def test_what_carries_a_private_address_is_as_private(prefix, inner):
    assert not is_public(carried(prefix, inner))


@pytest.mark.parametrize("inner", PRIVATE, ids=str)
def test_a_tunnel_to_a_private_address_is_as_private(inner):
    assert not is_public(six_to_four(inner))
    assert not is_public(teredo(server=PUBLIC, client=inner))
    assert not is_public(teredo(server=inner, client=PUBLIC))


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        IPv4Address("192.0.1.1"),
        IPv6Address("2606:4700::1"),
        IPv6Address("2a00:1450:4001::1"),
        pytest.param(carried("::ffff:0:0", PUBLIC), id="mapped"),
        pytest.param(carried("64:ff9b::", PUBLIC), id="NAT64"),
        pytest.param(six_to_four(PUBLIC), id="6to4"),
        pytest.param(teredo(server=PUBLIC, client=PUBLIC), id="Teredo"),
    ],
    ids=str,
)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)

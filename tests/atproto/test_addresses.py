from __future__ import annotations

from ipaddress import ip_network

import pytest

from chalicelib.atproto.addresses import MALFORMED, why_not_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",  # carrier-grade NAT
        "100.100.100.200",  # Alibaba's metadata
        "127.0.0.1",
        "127.1.2.3",
        "168.63.129.16",  # Azure's
        "169.254.0.1",
        "169.254.100.1",  # inside Lambda
        "169.254.169.254",  # metadata of EC2 and most others
        "169.254.170.2",  # credentials of ECS tasks
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",  # Oracle's metadata
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",  # IPv4-compatible
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",  # IPv4-translated
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "100::1",  # discard
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",  # EC2's metadata over IPv6
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_off_the_public_internet_is_recognised(address: str) -> None:
    assert why_not_public(address) is not None


IPV4_SPECIAL = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 192.0.0.8/32
192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24
192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
"""
IPV6_SPECIAL = """
::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128
2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16
2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10
"""
# Beside the registries of special purposes: multicast, and what of IPv6 is no global unicast space (RFC 4291, RFC 3879).
OTHERS = "224.0.0.0/4 ::/8 100::/8 200::/7 400::/6 800::/5 1000::/4 4000::/2 8000::/1 fec0::/10 ff00::/8"


@pytest.mark.parametrize("network", [*IPV4_SPECIAL.split(), *IPV6_SPECIAL.split(), *OTHERS.split()])
def test_all_that_iana_has_set_apart_is_not_public(network: str) -> None:
    """Each block of the registries of special-purpose addresses (RFC 6890), at both of its ends."""
    block = ip_network(network)
    for number in (0, 1, block.num_addresses // 2, block.num_addresses - 1):
        assert why_not_public(str(block[min(number, block.num_addresses - 1)])) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "2130706433",
        "0x7f000001",
        "8.8.8",
        "8.8.8.8:443",
        "[::1]",
        "8.8.8.8 ",
        "８.8.8.8",
        "1e1.1.1.1",
        "::ffff:8.8.8.8.8",
        "8.8.8.008",
    ],
)
def test_what_is_no_plain_address_is_not_public(text: str) -> None:
    assert why_not_public(text) == MALFORMED


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "99.255.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a01:4f8::1",
        "2003::1",
        "2600:1f18::1",
    ],
)
def test_a_public_address_is_let_through(address: str) -> None:
    assert why_not_public(address) is None

from __future__ import annotations

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

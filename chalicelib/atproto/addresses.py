"""Which IP addresses are out on the public internet, and which only look as if they were.

Sources: the IANA special-purpose address registries (RFC 6890), and what clouds serve to their own machines.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

MALFORMED: Final = "malformed"
"""Why something that is no IP address is not public."""
METADATA: Final = "cloud metadata"
"""Why an address is not public at which a cloud serves its own machines: their credentials among other things."""

_REFUSED: Final[tuple[tuple[IPv4Network | IPv6Network, str], ...]] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.100.100.200/32", METADATA),  # Alibaba's
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", METADATA),  # Azure's, in the middle of the public space
        ("169.254.0.0/16", METADATA),  # link-local: that of most clouds, and of Lambda and ECS
        ("172.16.0.0/12", "private"),
        ("192.0.0.192/32", METADATA),  # Oracle's
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),  # benchmarking and ORCHID among them
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("fd00:ec2::/32", METADATA),  # Amazon's
        ("fd20:ce::254/128", METADATA),  # Google's
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
# All of IPv6 that was ever handed out for hosts. The rest is reserved, with whatever transition schemes live in it.
_UNICAST_6: Final = IPv6Network("2000::/3")


def why_not_public(address: str) -> str | None:
    """What is special about ``address`` (``"loopback"``), or None where it is a public unicast address.

    An address in any other form than the canonical text of a resolver's answer, or with a zone, is not public.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return MALFORMED
    if ip.version == 6 and ip.ipv4_mapped and why_not_public(str(ip.ipv4_mapped)) == METADATA:
        return METADATA
    for network, what in _REFUSED:
        if ip in network:
            return what
    if ip.version == 6 and (ip not in _UNICAST_6 or ip.scope_id is not None):
        return "reserved"
    # The lists of later Python versions know of what was registered after this one was written.
    return None if ip.is_global else "reserved"

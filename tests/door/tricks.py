"""Tricks by which a stranger could try to have this service connect to where it must not. Each is data: what is written, and what
the resolver answers. ``{name}`` is a public name of the stranger's, new in each play; ``{inside}`` another one, whose address
is inside."""

from __future__ import annotations

from dataclasses import dataclass

PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:4700::1111"
INSIDE = "127.0.0.1"


@dataclass(frozen=True)
class Trick:
    """One attempt. ``looks``: the resolver's answers for ``{name}``, one for each time that it is asked; the last stays."""

    title: str
    host: str = "{name}"
    looks: tuple[tuple[str, ...], ...] = ((PUBLIC,),)
    location: str | None = None
    """Where ``{name}`` redirects every request to."""

    def __str__(self) -> str:
        return self.title


ADDRESSES = [
    Trick(title, looks=(tuple(addresses.split()),))
    for title, addresses in {
        "loopback": "127.0.0.1",
        "this host": "0.0.0.0",
        "private": "192.168.1.1",
        "carrier-grade NAT": "100.64.0.1",
        "metadata of EC2": "169.254.169.254",
        "metadata of EC2 over IPv6": "fd00:ec2::254",
        "metadata of Alibaba": "100.100.100.200",
        "metadata of Azure": "168.63.129.16",
        "credentials of ECS": "169.254.170.2",
        "runtime of Lambda": "169.254.100.1",
        "documentation": "192.0.2.1",
        "benchmarking": "198.18.0.1",
        "multicast": "224.0.0.1",
        "reserved": "240.0.0.1",
        "IPv6 loopback": "::1",
        "IPv6 unspecified": "::",
        "IPv4-mapped": "::ffff:127.0.0.1",
        "IPv4-compatible": "::127.0.0.1",
        "NAT64": "64:ff9b::7f00:1",
        "NAT64 of local use": "64:ff9b:1::7f00:1",
        "6to4": "2002:7f00:1::",
        "Teredo": "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "unique local": "fd12:3456:789a::1",
        "IPv6 link-local": "fe80::1",
        "IPv6 link-local with a zone": "fe80::1%eth0",
        "site-local": "fec0::1",
        "IPv6 documentation": "2001:db8::1",
        "IPv6 benchmarking": "2001:2::1",
        "never assigned": "4000::1",
        "octal": "0177.0.0.1",
        "decimal": "2130706433",
        "public before private": f"{PUBLIC} 10.0.0.7",
        "public IPv4 and private IPv6": f"{PUBLIC} fd12::1",
        "private behind more than are tried": f"{PUBLIC} " * 8 + "127.0.0.1",
    }.items()
]
"""A name that looks public, with such addresses."""

HOSTS = [
    Trick(text, host=text)
    for text in (
        "127.0.0.1",
        "127.0.0.1:9001",  # Lambda's runtime API
        "169.254.170.2",
        "93.184.215.14",
        "0",
        "0x7f000001",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "[fe80::1%25eth0]",
        "localhost",
        "localhost.",
        "hold.local",
        "hold.internal",
        "hold.onion",
        "1.0.0.127.in-addr.arpa",
        "{name}:8443",
        "{name}:65979",  # 443 in sixteen bits
        "http://{name}",
        "file:///etc/passwd",
        "{name}@127.0.0.1",
        "{name}#@127.0.0.1",
        "{name}\\@127.0.0.1",
        "{name}/../127.0.0.1",
        "{name}%00.atcr.io",
        "{name}\x00.atcr.io",
        "{name}\r\nHost: 127.0.0.1",
        "①②⑦.⓪.⓪.①",
        "ⓛocalhost",
        "%31%32%37.0.0.1",
        "",
    )
]
"""What stands where a host's name should: in a request, in a message, in a DID or in a document."""

REDIRECTS = [
    Trick(title, location=location)
    for title, location in {
        "to a loopback": "https://127.0.0.1/",
        "to Lambda's runtime": "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
        "to metadata": "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "to an IPv4-mapped address": "https://[::ffff:127.0.0.1]/",
        "to a decimal address": "https://2130706433/",
        "to a public address": f"https://{PUBLIC}/",
        "to a reserved name": "https://hold.internal/",
        "to a name with a private address": "https://{inside}/",
        "to the same without a scheme": "//{inside}/",
        "to http": "http://{name}/",
        "to another port": "https://{name}:8443/",
        "to another scheme": "ftp://{name}/",
        "to a file": "file:///etc/passwd",
        "with user information": "https://{name}@127.0.0.1/",
        "with a backslash": "https://{name}\\@127.0.0.1/",
        "around in circles": "https://{name}/",
    }.items()
]
"""A public host that sends its callers on."""

REBINDINGS = [
    Trick(title, looks=((PUBLIC,), tuple(addresses.split())))
    for title, addresses in {
        "to loopback": "127.0.0.1",
        "to metadata": "169.254.169.254",
        "to IPv6 loopback": "::1",
        "to both": f"{PUBLIC} 127.0.0.1",
    }.items()
]
"""A name whose answer changes after the first look."""

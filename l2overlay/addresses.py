"""MAC addresses, node keys and socket addresses: the types that every room shares.

At run time all are plain `bytes` or tuples, because the frame's path handles millions of them. `NewType` distinguishes them
for the type checker.
"""

import base64
import binascii
import hashlib
from ipaddress import ip_address
from typing import NamedTuple, NewType

MacAddress = NewType("MacAddress", bytes)
"""Six bytes in transmission order (IEEE 802-2014, clause 8)."""

PeerKey = NewType("PeerKey", bytes)
"""A node's static X25519 public key, 32 bytes. It identifies a peer, wherever its datagrams come from."""

KEY_LEN = 32
MAC_LEN = 6


class Address(NamedTuple):
    """A numeric underlay socket address. `host` is "192.0.2.1", "2001:db8::1" or "fe80::1%eth0"."""

    host: str
    port: int
    local: str = ""
    """Our own address, which the peer called and from which we answer. "" leaves the choice to the kernel."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_bytes(host: str) -> bytes:
    """An `Address.host` as 16 bytes, IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2) and without its zone."""
    packed = ip_address(host.partition("%")[0]).packed
    return packed if len(packed) > 4 else bytes(10) + b"\xff\xff" + packed


class NodeMacs(NamedTuple):
    """The MAC addresses of a node's own links."""

    tap: MacAddress
    bridge: MacAddress


def derive_macs(public_key: bytes) -> NodeMacs:
    """The MACs of a node's TAP and bridge, derived from its key: they survive a restart, and no two nodes share them.

    Both are locally administered. That of the TAP begins with fe, as libvirt's do: a bridge without a MAC of its own takes
    the lowest MAC of its ports, and that must not be the TAP's, because the TAP comes and goes.
    """
    digest = hashlib.blake2s(public_key, digest_size=11, person=b"l2o mac").digest()
    bridge = bytes([digest[0] & 0xFC | 0x02]) + digest[1:6]
    return NodeMacs(MacAddress(b"\xfe" + digest[6:]), MacAddress(bridge))


def format_mac(mac: bytes) -> str:
    """Six bytes as `52:54:00:12:34:56`."""
    return mac.hex(":")


def parse_mac(text: str) -> MacAddress:
    """The reverse of `format_mac`. Also accepts `-` between the bytes. Raises ValueError."""
    digits = text.strip().replace("-", ":").split(":")
    if len(digits) != MAC_LEN or any(len(d) != 2 for d in digits):
        raise ValueError(f"{text!r} is not a MAC address; write it as 52:54:00:12:34:56")
    try:
        return MacAddress(bytes.fromhex("".join(digits)))
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address; write it as 52:54:00:12:34:56") from None


def format_key(key: bytes) -> str:
    """The key in base64, 44 characters, as `wg` writes it."""
    return base64.b64encode(key).decode()


def parse_key(text: str) -> PeerKey:
    """The reverse of `format_key`. Accepts only 32 bytes in canonical base64. Raises ValueError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LEN or format_key(key) != text.strip():
        raise ValueError("not a key: 32 bytes in base64 are 44 characters that end in '='")
    return PeerKey(key)

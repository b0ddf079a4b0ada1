"""MAC addresses, node keys and socket addresses: the types that every room shares.

All are plain `bytes` or tuples at run time, because the frame's path handles millions of them; `NewType` keeps them
apart for the type checker.
"""

import base64
import binascii
import hashlib
from ipaddress import ip_address
from typing import NamedTuple, NewType

MacAddress = NewType("MacAddress", bytes)
"""Six bytes in transmission order (IEEE 802-2014, clause 8)."""

PeerKey = NewType("PeerKey", bytes)
"""A node's static X25519 public key, 32 bytes: who a peer is, wherever its datagrams come from."""

KEY_LEN = 32
MAC_LEN = 6


class Address(NamedTuple):
    """A numeric underlay socket address. `host` is "192.0.2.1", "2001:db8::1" or "fe80::1%eth0"."""

    host: str
    port: int
    local: str = ""
    """Our own address towards it: where it called us, and where we answer from. "" is the kernel's choice."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_bytes(host: str) -> bytes:
    """An `Address.host` as 16 bytes, IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2) and without its zone."""
    packed = ip_address(host.partition("%")[0]).packed
    return packed if len(packed) > 4 else bytes(10) + b"\xff\xff" + packed


class NodeMacs(NamedTuple):
    """The addresses of a node's own links."""

    tap: MacAddress
    bridge: MacAddress


def derive_macs(public_key: bytes) -> NodeMacs:
    """The MACs of a node's TAP and bridge: of its key, so that they outlive a restart and no two nodes share them.

    Both are locally administered. The TAP's begins with fe, as libvirt does: a bridge that has no MAC of its own takes
    the lowest of its ports, and a TAP that comes and goes must not be that one.
    """
    digest = hashlib.blake2s(public_key, digest_size=11, person=b"l2o mac").digest()
    bridge = bytes([digest[0] & 0xFC | 0x02]) + digest[1:6]
    return NodeMacs(MacAddress(b"\xfe" + digest[6:]), MacAddress(bridge))


def format_mac(mac: bytes) -> str:
    """Six bytes as `52:54:00:12:34:56`."""
    return mac.hex(":")


def parse_mac(text: str) -> MacAddress:
    """The reverse of `format_mac`; also takes `-` between the bytes. Raises ValueError."""
    digits = text.strip().replace("-", ":").split(":")
    if len(digits) != MAC_LEN or any(len(d) != 2 for d in digits):
        raise ValueError(f"{text!r} is not a MAC address; write it as 52:54:00:12:34:56")
    try:
        return MacAddress(bytes.fromhex("".join(digits)))
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address; write it as 52:54:00:12:34:56") from None


def format_key(key: bytes) -> str:
    """Base64, as `wg` writes keys: 44 characters."""
    return base64.b64encode(key).decode()


def parse_key(text: str) -> PeerKey:
    """The reverse of `format_key`, strict: exactly 32 bytes in canonical base64. Raises ValueError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LEN or format_key(key) != text.strip():
        raise ValueError("not a key: 32 bytes in base64 are 44 characters that end in '='")
    return PeerKey(key)

"""How a single value of peers.toml is written: names, keys, MAC addresses, endpoints and interface addresses.

Each function takes the text and returns what it means, or the text itself. It raises ValueError with a message that
says what is wrong and how to write it.
"""

import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface

from l2overlay.addresses import parse_key, parse_mac
from l2overlay.config.limits import (
    DEFAULT_PORT,
    MAX_INTERFACE_NAME,
    MAX_PEER_NAME,
    MAX_SEGMENT_NAME,
)
from l2overlay.keys import public_key_weakness

SEGMENT_NAME = rf"[a-z][a-z0-9-]{{0,{MAX_SEGMENT_NAME - 1}}}"
PEER_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_PEER_NAME - 1}}}"
INTERFACE_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_INTERFACE_NAME - 1}}}"
# RFC 1123, section 2.1; the last label is not all digits, or a mistyped IPv4 address would be a name
HOST_NAME = (
    r"(?!.*\.[0-9]+\.?$)(?![0-9]+\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?"
)
_TAKEN_INTERFACES = ("all", "default", "lo")  # the first two are directories of net.ipv4.conf
_BROADCAST = IPv4Address("255.255.255.255")


def segment_name(text: str) -> str:
    """The name of a segment, which also names its files, its interfaces and its systemd instance."""
    if not re.fullmatch(SEGMENT_NAME, text):
        raise ValueError(
            f"{text!r} cannot name a segment: use a lower-case letter, then lower-case letters, digits and '-', "
            f"at most {MAX_SEGMENT_NAME} characters"
        )
    return text


def peer_name(text: str) -> str:
    """The name of a peer, usually that of the host."""
    if not re.fullmatch(PEER_NAME, text):
        raise ValueError(
            f"{quote(text)} cannot name a peer: use a letter or digit, then letters, digits, '.', '_' and '-', "
            f"at most {MAX_PEER_NAME} characters"
        )
    return text


def interface_name(text: str) -> str:
    """What `ip link add` accepts, without characters that are special to a shell or to TUNSETIFF (`%`)."""
    if len(text.encode()) > MAX_INTERFACE_NAME:
        raise ValueError(
            f"{quote(text)} is {len(text.encode())} bytes long; an interface's name has at most {MAX_INTERFACE_NAME}"
        )
    if not re.fullmatch(INTERFACE_NAME, text) or text in _TAKEN_INTERFACES:
        raise ValueError(f"{text!r} cannot name an interface: use letters, digits, '.', '_' and '-'")
    return text


def public_key_text(text: str) -> str:
    """A public key that is not weak: one that `keygen` can produce."""
    weakness = public_key_weakness(parse_key(text))
    if weakness:
        raise ValueError(weakness)
    return text


def station_mac(text: str) -> str:
    """The MAC address of a single station, not a group address."""
    mac = parse_mac(text)
    if mac[0] & 1:
        raise ValueError(f"{text!r} is a group address; a station has an individual address")
    if not any(mac):
        raise ValueError(f"{text!r} is not the address of a station")
    return text


def split_endpoint(text: str) -> tuple[str, int]:
    """`host:port`, `192.0.2.1:7470` or `[2001:db8::1]:7470` as a host, in its canonical spelling, and a port."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not bracketed and (":" in host or "[" in host or _is_ipv6(text)):
        raise ValueError(f"{quote(text)}: write an IPv6 endpoint as [2001:db8::1]:{DEFAULT_PORT}")
    if not host:
        raise ValueError(
            f"{quote(text)} has no port; write host:port, for example {quote(text)[1:-1]}:{DEFAULT_PORT}"
        )
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{quote(text)}: the port after the last ':' must be 1 to 65535")
    return (_ipv6_host(host[1:-1], port) if bracketed else _host(host)), int(port)


def split_listen(value: object) -> tuple[str, int]:
    """A port, `192.0.2.1:7470` or `[2001:db8::1]:7470` as an address ("" means any) and a port."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise ValueError(f"listen must be {'at least 1' if value < 1 else 'at most 65535'}")
        return "", value
    text = value if isinstance(value, str) else ""
    if not text:
        raise ValueError("listen must be a port, or an address of this host with a port")
    host, port = split_endpoint(text)
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f"{quote(text)}: listen takes a numeric address, not a name") from None
    return host, port


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _ipv6_host(text: str, port: str) -> str:
    """RFC 4007, section 6: a link-local address needs a zone, and no other address may have one."""
    try:
        address = IPv6Address(text)
        host = _unicast(address)
    except ValueError as error:
        raise ValueError(f"{quote(text)} cannot be reached: {error}") from None
    if address.is_link_local and not address.scope_id:
        raise ValueError(
            f"{quote(text)} is link-local: name the interface, as [{address}%eth0]:{port}, or use another address"
        )
    if address.scope_id and not address.is_link_local:
        raise ValueError(
            f"{quote(text)}: only a link-local address takes an interface; leave out %{address.scope_id}"
        )
    return host


def _host(text: str) -> str:
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return _unicast(IPv4Address(text))
        except ValueError as error:
            raise ValueError(f"{quote(text)} cannot be reached: {error}") from None
    if len(text) > 253 or not re.fullmatch(HOST_NAME, text):
        raise ValueError(f"{quote(text)} is neither an IP address nor a host name")
    return text.lower().removesuffix(".")


def _unicast(address: IPv4Address | IPv6Address) -> str:
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise ValueError("it is not the address of a single host")
    return str(address)


def interface_address(text: str) -> IPv4Interface | IPv6Interface:
    """`10.9.0.1/24` or `fd00::1/64`."""
    if "/" not in text or "%" in text:
        raise ValueError(
            f"{quote(text)}: write an address with its prefix length, as 10.9.0.1/24 or fd00::1/64"
        )
    try:
        address = ip_interface(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address with a prefix length") from None
    network, host = address.network, address.ip
    if host.is_unspecified or host.is_multicast or host.is_loopback:
        raise ValueError(f"{text!r} cannot be the address of an interface")
    if network.prefixlen < network.max_prefixlen - 1:
        if host == network.network_address:
            raise ValueError(f"{text!r} is the network itself, not a host in it")
        if host.version == 4 and host == network.broadcast_address:
            raise ValueError(f"{text!r} is the broadcast address of its network")
    return address


def quote(text: str) -> str:
    """A text as it is shown in a message: quoted, and truncated if it is long."""
    return repr(text if len(text) <= 64 else f"{text[:61]}...")

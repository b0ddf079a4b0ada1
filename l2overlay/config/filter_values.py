"""How a single value of `[filter]` is written: ports, rates, protocols, states, and who a rule means.

As in `config.values`, each function returns what the value means, or the value itself, and raises ValueError with a
message that says what is wrong and how to write it.
"""

import re
from ipaddress import ip_network

from l2overlay import inet
from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.config.values import PEER_NAME, quote, station_mac
from l2overlay.filter.model import (
    ACCEPTED_STATES,
    ICMP_NUMBER,
    ICMP_TYPES,
    NUMBERS,
    PROTOCOLS,
    STATES,
    Network,
    PortRange,
)
from l2overlay.suggestion import suggestion

Subject = Network | MacAddress | str
"""What a word in `source` means: a network, a station, or a peer's name."""

GROUP_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}"
RATE_UNITS = ("s", "min", "h")
MAX_RATE = 100_000
"""Per second. The kernel counts in units of 1/10 000 s and refuses higher rates."""


def text_or_list(value: object) -> object:
    """A text or a list of texts, as in `source`."""
    if not isinstance(value, str) and not _all_of(value, (str,)):
        raise ValueError("text in quotes, or a list of such, belongs here")
    return value


def port_or_list(value: object) -> object:
    """22, "8000-8010", or a list of such."""
    if not _is(value, (str, int)) and not _all_of(value, (str, int)):
        raise ValueError('a port (22), a range ("8000-8010"), or a list of such belongs here')
    return value


def protocol_value(value: object) -> str | int:
    """A name from `PROTOCOLS` or a number. A number that has a name becomes that name."""
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    if not _is(value, (int,)):
        known = ", ".join(PROTOCOLS)
        hint = suggestion(value, PROTOCOLS) if isinstance(value, str) else ""
        raise ValueError(f"protocol must be one of {known}, or a number, not {_shown(value)}{hint}")
    assert isinstance(value, int)
    if value in ICMP_NUMBER.values():
        raise ValueError(f'protocol {value}: write "icmp", which means both ICMP and ICMPv6')
    if value in inet.KERNEL_EXTENSION_HEADERS:
        raise ValueError(f"protocol {value} is an IPv6 extension header, not a protocol that a frame carries")
    if not 1 <= value <= 254:
        raise ValueError(f"protocol must be 1 to 254, not {_shown(value)}")
    return next((name for name, number in NUMBERS.items() if number == value), value)


def parse_port(value: object) -> PortRange:
    """22, "22" or "8000-8010"."""
    found = re.fullmatch(r"\s*([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?\s*", str(value))
    if not found:
        raise ValueError(f'{_shown(value)} is not a port; write 22, or a range as "8000-8010"')
    first, last = int(found[1]), int(found[2] or found[1])
    if first > last:
        raise ValueError(f'the range {first}-{last} runs backwards; write "{last}-{first}"')
    if last > 65535:
        raise ValueError(f"{_shown(value)}: a port is at most 65535")
    return first, last


def parse_rate(text: str) -> tuple[int, str]:
    """`10/s`, `100/min` or `5/h`."""
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([a-z]+)\s*", text)
    if not found or found[2] not in RATE_UNITS:
        raise ValueError(f"{quote(text)} is not a rate; write 10/s, 100/min or 5/h")
    count = int(found[1])
    if not 1 <= count <= MAX_RATE:
        raise ValueError(f"a rate must be 1 to {MAX_RATE}, not {count}")
    return count, found[2]


def icmp_type(value: object) -> str:
    """A name from `ICMP_TYPES`."""
    if not isinstance(value, str) or value not in ICMP_TYPES:
        hint = suggestion(value, ICMP_TYPES) if isinstance(value, str) else ""
        raise ValueError(
            f"{_shown(value)} is not a known ICMP type{hint}; the known ones are {', '.join(ICMP_TYPES)}"
        )
    return value


def connection_state(value: object) -> str:
    """A name from `STATES`."""
    if isinstance(value, str) and value in STATES:
        return value
    if value in ACCEPTED_STATES:
        raise ValueError(
            f"state {value!r} can never match: established and related connections are accepted before all rules"
        )
    hint = suggestion(value, STATES) if isinstance(value, str) else ""
    raise ValueError(f"state must be 'new' or 'invalid', not {_shown(value)}{hint}")


def parse_subject(text: str) -> Subject:
    """A network or address, a station's MAC address, or a peer's name."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return parse_mac(station_mac(text))
    if "/" in text or ":" in text or re.fullmatch(r"[0-9.]+", text):
        return _network(text)
    if not re.fullmatch(PEER_NAME, text):
        raise ValueError(
            f"{quote(text)} is no address (10.9.0.0/24, fd00::1), no station (52:54:00:12:34:56), "
            "no peer and no @group"
        )
    return text


def _network(text: str) -> Network:
    if "%" in text:  # ip_network takes a zone, iptables takes none
        raise ValueError(f"{quote(text)}: a zone (%) means nothing in a rule; leave it out")
    try:
        network = ip_network(text)
    except ValueError:
        try:
            loose = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"{quote(text)} is neither an address nor a network; write 10.9.0.0/24 or fd00::/64"
            ) from None
        raise ValueError(f"{text!r} has bits set after its prefix; write {loose}") from None
    return network


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _all_of(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(_is(entry, kinds) for entry in value)


def _shown(value: object) -> str:
    return quote(value) if isinstance(value, str) else quote(str(value))[1:-1]

"""The rules of `[filter]` as typed, frozen data, with their defaults, and the names that a rule may use.

`config` makes a `FilterConfig` from the file; `filter.rules` and `linux/iptables.py` give it its meaning.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from l2overlay.addresses import MacAddress

Network = IPv4Network | IPv6Network

NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "gre": 47, "esp": 50}
"""Protocols with one number in both address families (https://www.iana.org/assignments/protocol-numbers)."""
ICMP_NUMBER = {4: 1, 6: 58}
"""The protocol "icmp", by IP version."""
ANY_PROTOCOL = "any"
PROTOCOLS = (ANY_PROTOCOL, "tcp", "udp", "sctp", "icmp", "gre", "esp")
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
"""Protocols that have ports."""

ICMP_TYPES: dict[str, tuple[int | None, int | None]] = {
    # RFC 792 and RFC 4443, RFC 4861: the type in ICMP and in ICMPv6
    "echo-request": (8, 128),
    "echo-reply": (0, 129),
    "destination-unreachable": (3, 1),
    "packet-too-big": (None, 2),
    "time-exceeded": (11, 3),
    "parameter-problem": (12, 4),
    "redirect": (5, 137),
    "router-solicitation": (10, 133),
    "router-advertisement": (9, 134),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
}

STATES = ("new", "invalid")
"""Connection states that a rule can match."""
ACCEPTED_STATES = ("established", "related")
"""Connection states that are accepted before any rule."""


class Direction(StrEnum):
    """Seen from this host's guests."""

    IN = "in"  # from the overlay to the guests of this host
    OUT = "out"  # from the guests of this host to the overlay


class Action(StrEnum):
    """What a rule does with a frame; every action but `log` ends the search."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who a rule means: a frame matches if it matches any one of these. Groups are already expanded."""

    networks: tuple[Network, ...] = ()
    macs: tuple[MacAddress, ...] = ()
    peers: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """As written in the file."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many frames per unit of time, and how many may come at once."""

    count: int
    unit: str
    """"s", "min" or "h"."""
    burst: int = 5

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}, {self.burst} at once"


DEFAULT_LOG_RATE = Rate(5, "s", 10)
"""Of a `log` rule without a rate: a rule that logs every frame of a flood is a second flood."""

PortRange = tuple[int, int]
"""First and last port."""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One rule for both address families. A field that is None or empty matches everything."""

    label: str
    """"rule 3", or "security group web, rule 1"."""
    direction: Direction
    action: Action
    protocol: str | int | None = None
    """"tcp", "udp", "sctp", "icmp" (of both families), "gre", "esp", or a number."""
    source: Subjects | None = None
    destination: Subjects | None = None
    ports: tuple[PortRange, ...] = ()
    """Destination ports."""
    source_ports: tuple[PortRange, ...] = ()
    icmp_types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    """From `STATES`."""
    rate: Rate | None = None
    """The rule matches up to this rate; frames above it go on to the next rule."""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Rules that accept frames for a set of stations, and what happens to the rest of their frames."""

    name: str
    stations: tuple[MacAddress, ...]
    default_in: Action = Action.DROP
    default_out: Action = Action.ACCEPT
    rules: tuple[FilterRule, ...] = ()

    def default(self, direction: Direction) -> Action:
        """What happens to a frame of this direction that no rule of the group accepts."""
        return self.default_in if direction is Direction.IN else self.default_out


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """The `[filter]` table."""

    backend: str = "iptables"
    default_in: Action = Action.ACCEPT
    default_out: Action = Action.ACCEPT
    tagged: Action = Action.DROP
    """For frames with a VLAN tag or PPPoE, which bridge netfilter does not look into."""
    rules: tuple[FilterRule, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()

    def default(self, direction: Direction) -> Action:
        """What happens to a frame of this direction that no rule decides."""
        return self.default_in if direction is Direction.IN else self.default_out

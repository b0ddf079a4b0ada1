"""The vocabulary of host changes: each is plain data, says itself in words, and knows what takes it back.

`host.py` plans lists of them, applies them, and applies their inverses. An `Undo` is such a list of inverses; as JSON
in the run directory it outlives the process that needs it.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any, Self

from l2overlay.addresses import parse_mac
from l2overlay.errors import HostSetupError

UNDO_SCHEMA = "l2overlay.undo/1"
NF_CALL_FLAGS = ("nf_call_iptables", "nf_call_ip6tables")
"""Of a bridge; arptables has no rules of ours."""
ALIAS_PREFIX = "l2overlay "
"""Of the alias that marks a bridge of ours; the segment's name follows."""
SYSCTLS = ("disable_ipv6", "accept_ra", "addr_gen_mode")
SYSCTL_VALUES = ("0", "1", "2", "3")
MAX_MTU = 65_535
MAX_INDEX = 1 << 31
MAX_QUEUE = 1 << 20
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ABSENT = re.compile(r"[A-Za-z0-9:, ]{0,200}")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one link. Addresses are text, so that all fields are what JSON has too."""

    link: str
    index: int = field(default=0, kw_only=True)
    """Of the link when it existed as the plan was made: one of the same name and another index is not what was meant."""

    @property
    def line(self) -> str:
        """What happens, for a person."""
        raise NotImplementedError

    @property
    def inverse(self) -> "Change | None":
        """What takes it back; None where nothing needs to, because the link itself goes."""
        raise NotImplementedError

    @property
    def target(self) -> tuple[object, ...]:
        """Two changes with one target replace each other."""
        return (type(self), self.link, self.index)


@dataclass(frozen=True, slots=True)
class CreateBridge(Change):
    """A bridge of ours: STP off, forwarding at once, no snooping. Its alias and MAC tell later that it is ours."""

    mac: str
    mtu: int
    alias: str

    @property
    def line(self) -> str:
        return f"make the bridge {self.link}, MAC {self.mac}, MTU {self.mtu}"

    @property
    def inverse(self) -> Change:
        return RemoveBridge(self.link, self.mac, self.alias)


@dataclass(frozen=True, slots=True)
class RemoveBridge(Change):
    """Remove a bridge if it still is the one that we made."""

    mac: str
    alias: str

    @property
    def line(self) -> str:
        return f"remove the bridge {self.link}"

    @property
    def inverse(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SetAlias(Change):
    """Mark a bridge as ours (`ip link` shows it)."""

    alias: str

    @property
    def line(self) -> str:
        return f"mark {self.link} as `{self.alias}`"

    @property
    def inverse(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SetMac(Change):
    """Give a link its MAC."""

    mac: str
    was: str | None

    @property
    def line(self) -> str:
        return f"set the MAC of {self.link} to {self.mac}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetMac(self.link, self.was, None, index=self.index)


@dataclass(frozen=True, slots=True)
class KeepMac(Change):
    """Set the MAC that an adopted bridge has: one without ports would take our TAP's, and be all zero after it left."""

    mac: str

    @property
    def line(self) -> str:
        return f"keep the MAC {self.mac} of {self.link}, which would take that of our TAP"

    @property
    def inverse(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SetMtu(Change):
    """Give a link its MTU."""

    mtu: int
    was: int | None

    @property
    def line(self) -> str:
        return f"set the MTU of {self.link} to {self.mtu}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetMtu(self.link, self.was, None, index=self.index)


@dataclass(frozen=True, slots=True)
class SetQueue(Change):
    """Let so many frames wait in a link."""

    frames: int
    was: int | None

    @property
    def line(self) -> str:
        return f"let {self.frames} frames wait in {self.link}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetQueue(self.link, self.was, None, index=self.index)


@dataclass(frozen=True, slots=True)
class SetUp(Change):
    """Set a link up or down."""

    up: bool
    was: bool | None

    @property
    def line(self) -> str:
        return f"set {self.link} {'up' if self.up else 'down'}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetUp(self.link, self.was, None, index=self.index)


@dataclass(frozen=True, slots=True)
class SetMaster(Change):
    """Put a link into a bridge; out of any with an empty name."""

    master: str
    was: str | None

    @property
    def line(self) -> str:
        return f"put {self.link} into {self.master}" if self.master else f"take {self.link} out of its bridge"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetMaster(self.link, self.was, None, index=self.index)


@dataclass(frozen=True, slots=True)
class HearAllMulticast(Change):
    """Make a bridge port one that gets every multicast frame, whatever its bridge snooped."""

    @property
    def line(self) -> str:
        return f"let {self.link} hear all multicast of its bridge"

    @property
    def inverse(self) -> None:
        return None  # it belongs to the membership in the bridge


@dataclass(frozen=True, slots=True)
class SetSysctl(Change):
    """Write a sysctl of a link; `path` is below /proc/sys/net."""

    path: str
    value: str
    was: str | None

    @property
    def line(self) -> str:
        return f"set net.{self.path.replace('/', '.')} = {self.value}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetSysctl(self.link, self.path, self.was, None, index=self.index)

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.link, self.index, self.path)


@dataclass(frozen=True, slots=True)
class AddAddress(Change):
    """Put an address, 192.0.2.1/24, on a link."""

    address: str

    @property
    def line(self) -> str:
        return f"add {self.address} to {self.link}"

    @property
    def inverse(self) -> Change:
        return RemoveAddress(self.link, self.address, index=self.index)

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.link, self.index, self.address)


@dataclass(frozen=True, slots=True)
class RemoveAddress(Change):
    """Take an address off a link."""

    address: str

    @property
    def line(self) -> str:
        return f"remove {self.address} from {self.link}"

    @property
    def inverse(self) -> Change:
        return AddAddress(self.link, self.address, index=self.index)

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.link, self.index, self.address)


@dataclass(frozen=True, slots=True)
class SetBridgeFlag(Change):
    """Let the frames of this one bridge meet iptables, or not: `nf_call_iptables` or `nf_call_ip6tables`."""

    flag: str
    on: bool
    was: bool | None

    @property
    def line(self) -> str:
        return f"set {self.flag} of {self.link} {'on' if self.on else 'off'}"

    @property
    def inverse(self) -> Change | None:
        return (
            None
            if self.was is None
            else SetBridgeFlag(self.link, self.flag, self.was, None, index=self.index)
        )

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.link, self.index, self.flag)


@dataclass(frozen=True, slots=True)
class RemoveFilter(Change):
    """Take away the iptables chains of a segment (`linux/firewall.py`); the undo of what `Firewall.install` does."""

    segment: str
    absent: str
    """What of iptables' tables was not there at first, as `firewall.absent_parts` has it."""

    @property
    def line(self) -> str:
        return f"remove the filter of {self.segment} from iptables"

    @property
    def inverse(self) -> None:
        return None

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.segment)


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes our changes back, in the order to be done."""

    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, changes: Sequence[Change]) -> Self:
        """The inverses of `changes`, last first; known before the first is applied, so it can be on disk by then."""
        return cls(tuple(i for i in (c.inverse for c in reversed(changes)) if i is not None))

    def after(self, earlier: "Undo") -> "Undo":
        """This one and then an earlier one; where both restore one thing, the earlier knows how it was at first."""
        known = {change.target for change in earlier.changes}
        return Undo((*(c for c in self.changes if c.target not in known), *earlier.changes))

    def to_json(self) -> str:
        """For a file in the run directory."""
        changes = [{"change": type(c).__name__, **dataclasses.asdict(c)} for c in self.changes]
        return json.dumps({UNDO_SCHEMA: changes}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """The reverse. Raises HostSetupError for anything that `to_json` did not write."""
        try:
            document = json.loads(text)
            return cls(tuple(_change(entry) for entry in document[UNDO_SCHEMA]))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise HostSetupError(f"not a list of host changes to undo ({error!r:.200})") from None


_UNDO_KINDS: dict[str, type[Change]] = {
    kind.__name__: kind
    for kind in (
        RemoveBridge,
        SetMac,
        SetMtu,
        SetQueue,
        SetUp,
        SetMaster,
        SetSysctl,
        AddAddress,
        RemoveAddress,
        SetBridgeFlag,
        RemoveFilter,
    )
}
_FIELD_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    str | None: (str, type(None)),
    int | None: (int, type(None)),
    bool | None: (bool, type(None)),
}


def _change(entry: dict[str, Any]) -> Change:
    kind = _UNDO_KINDS[entry["change"]]
    values = {name: value for name, value in entry.items() if name != "change"}
    for known in dataclasses.fields(kind):
        if type(values[known.name]) not in _FIELD_TYPES[known.type]:
            raise TypeError(f"{known.name} of {kind.__name__} is {values[known.name]!r:.60}")
    change = kind(**values)
    if not _is_of_ours(change):
        raise ValueError(f"{change!r:.120} is no change of ours")
    return change


def _is_of_ours(change: Change) -> bool:
    """Whether a node could have written it. The file is carried out as root, and may be damaged or forged."""
    if not _is_link_name(change.link) or not 0 <= change.index < MAX_INDEX:
        return False
    match change:
        case RemoveBridge(mac=mac, alias=alias):
            return _is_mac(mac) and alias.startswith(ALIAS_PREFIX)
        case SetMac(mac=mac):
            return _is_mac(mac)
        case SetMtu(mtu=mtu):
            return 68 <= mtu <= MAX_MTU
        case SetQueue(frames=frames):
            return 0 <= frames <= MAX_QUEUE
        case SetMaster(master=master):
            return not master or _is_link_name(master)
        case SetSysctl(path=path, value=value):
            folder, _, name = path.rpartition("/")
            return folder == f"ipv6/conf/{change.link}" and name in SYSCTLS and value in SYSCTL_VALUES
        case AddAddress(address=address) | RemoveAddress(address=address):
            return _is_interface(address)
        case SetBridgeFlag(flag=flag):
            return flag in NF_CALL_FLAGS
        case RemoveFilter(segment=segment, absent=absent):
            return bool(_SEGMENT.fullmatch(segment)) and bool(_ABSENT.fullmatch(absent))
    return True


def _is_link_name(name: str) -> bool:
    """What the kernel takes (`dev_valid_name`), and printable."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= 15
        and not set(name) & set("/: ")
        and name not in {".", ".."}
    )


def _is_mac(text: str) -> bool:
    try:
        parse_mac(text)
    except ValueError:
        return False
    return True


def _is_interface(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return True

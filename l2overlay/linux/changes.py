"""The vocabulary of host changes. Each is plain data, says itself in words, applies itself, and knows its inverse.

This file has the base class and the changes that suit any link. Those of one feature stand in its module in `features/`.
An `Undo` (`undo.py`) is a list of inverses; as JSON in the run directory it outlives the process that needs it.
"""

import errno
import socket
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from l2overlay.addresses import parse_mac
from l2overlay.linux.observe import SYSCTL_ROOT

if TYPE_CHECKING:
    from pyroute2 import IPRoute

SYSCTLS = ("disable_ipv6", "accept_ra", "addr_gen_mode")
SYSCTL_VALUES = ("0", "1", "2", "3")
MAX_MTU = 65_535
MAX_INDEX = 1 << 31
MAX_QUEUE = 1 << 20


@dataclass(frozen=True, slots=True)
class UsedBridge:
    """A bridge of ours that stays because others have ports in it."""

    name: str
    ports: tuple[str, ...]

    @property
    def line(self) -> str:
        """For a person."""
        return f"the bridge {self.name}, because {', '.join(self.ports)} {'is' if len(self.ports) == 1 else 'are'} in it"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one link. Addresses are text, so that every field has a type that JSON has too."""

    link: str
    index: int = field(default=0, kw_only=True)
    """Of the link, if it existed when the plan was made. A link with the same name and another index is not meant."""

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
        """Two changes with the same target replace each other."""
        return (type(self), self.link, self.index)

    @property
    def is_plausible(self) -> bool:
        """Whether a node could have written the fields of this class to an undo file. Undo checks link and index."""
        return True

    def apply(self, ipr: "IPRoute") -> None:
        """Make the change. Raises OSError or NetlinkError; with ENODEV when the link is not there (any more)."""
        raise NotImplementedError

    def kept_for(self, ipr: "IPRoute") -> UsedBridge | None:
        """What others still use and this change would remove; None for nothing."""
        return None

    def find_link(self) -> int:
        """The index of the link that the change means. Raises OSError (ENODEV) when it is gone."""
        index = index_of(self.link)
        if self.index not in (0, index):
            raise OSError(errno.ENODEV, f"{self.link} is another link now")
        return index


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

    @property
    def is_plausible(self) -> bool:
        return is_mac(self.mac)

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), address=self.mac)


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

    @property
    def is_plausible(self) -> bool:
        return 68 <= self.mtu <= MAX_MTU

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), mtu=self.mtu)


@dataclass(frozen=True, slots=True)
class SetQueue(Change):
    """Set how many frames may wait in a link."""

    frames: int
    was: int | None

    @property
    def line(self) -> str:
        return f"let {self.frames} frames wait in {self.link}"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetQueue(self.link, self.was, None, index=self.index)

    @property
    def is_plausible(self) -> bool:
        return 0 <= self.frames <= MAX_QUEUE

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), txqlen=self.frames)


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

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), state="up" if self.up else "down")


@dataclass(frozen=True, slots=True)
class SetMaster(Change):
    """Put a link into a bridge; an empty name takes it out of its bridge."""

    master: str
    was: str | None

    @property
    def line(self) -> str:
        return f"put {self.link} into {self.master}" if self.master else f"take {self.link} out of its bridge"

    @property
    def inverse(self) -> Change | None:
        return None if self.was is None else SetMaster(self.link, self.was, None, index=self.index)

    @property
    def is_plausible(self) -> bool:
        return not self.master or is_link_name(self.master)

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), master=index_of(self.master) if self.master else 0)


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

    @property
    def is_plausible(self) -> bool:
        return self._is_known and self.value in SYSCTL_VALUES

    @property
    def _is_known(self) -> bool:
        folder, _, name = self.path.rpartition("/")
        return folder == f"ipv6/conf/{self.link}" and name in SYSCTLS

    def apply(self, ipr: "IPRoute") -> None:
        self.find_link()
        (SYSCTL_ROOT / self.path).write_text(self.value)


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

    @property
    def is_plausible(self) -> bool:
        return _is_interface(self.address)

    def apply(self, ipr: "IPRoute") -> None:
        _change_address(ipr, "add", self.find_link(), self.address)


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

    @property
    def is_plausible(self) -> bool:
        return _is_interface(self.address)

    def apply(self, ipr: "IPRoute") -> None:
        _change_address(ipr, "del", self.find_link(), self.address)


UNDO_KINDS: tuple[type[Change], ...] = (
    SetMac,
    SetMtu,
    SetQueue,
    SetUp,
    SetMaster,
    SetSysctl,
    AddAddress,
    RemoveAddress,
)
"""Those of this file that an undo file may contain."""


def index_of(link: str) -> int:
    """The index of a link. Raises OSError (ENODEV) when there is none."""
    try:
        return socket.if_nametoindex(link)
    except OSError:  # it carries no errno
        raise OSError(errno.ENODEV, f"no link {link}") from None


def is_link_name(name: str) -> bool:
    """Whether the kernel takes the name (`dev_valid_name`), and it is printable."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= 15
        and not set(name) & set("/: ")
        and name not in {".", ".."}
    )


def is_mac(text: str) -> bool:
    """Whether it is a MAC address in text."""
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


def _change_address(ipr: "IPRoute", verb: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    ipr.addr(verb, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)

"""What a node wants of its host, and the base class of the features that bring it about.

A feature is one thing that a node has on its host: its bridge, its TAP, its addresses. It stands in one module of
`features/`, with the changes that only it makes, and in the list `features.FEATURES`. Features hold no state. Every feature
is asked every time, even if the spec does not ask for it (any more): then its plan takes away what it has made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from l2overlay.addresses import MacAddress, format_mac
from l2overlay.linux.changes import Change
from l2overlay.linux.iptables import FilterSpec
from l2overlay.linux.state import HostState, Interface, LinkState

ALIAS_PREFIX = "l2overlay "
"""Of the alias that marks a bridge of ours; the segment's name follows."""

Wanted = TypeVar("Wanted")


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What the host must look like while a node runs."""

    segment: str
    tap: str
    bridge: str
    mtu: int
    tap_mac: MacAddress
    bridge_mac: MacAddress
    """Of a bridge that we make; see `derive_macs`."""
    addresses: tuple[Interface, ...] = ()
    filter: FilterSpec | None = None
    """What iptables is to do with the frames of the TAP; None leaves iptables and the bridge's flags alone."""
    extras: tuple[object, ...] = ()
    """What concerns a single feature: for each that is wanted, one frozen dataclass of the feature's module."""

    @property
    def alias(self) -> str:
        """The mark on a bridge of ours."""
        return ALIAS_PREFIX + self.segment

    def is_ours(self, bridge: LinkState) -> bool:
        """Whether we made the bridge, now or before a SIGKILL: by alias, or by MAC when we died before the alias was set."""
        return bridge.alias == self.alias or (not bridge.alias and bridge.mac == format_mac(self.bridge_mac))

    def wanted(self, kind: type[Wanted]) -> Wanted | None:
        """The one of `extras` that is of this kind; None when it is not wanted."""
        return next((extra for extra in self.extras if isinstance(extra, kind)), None)


class Feature:
    """One thing that a node has on its host. A subclass overrides what concerns it."""

    undo_kinds: ClassVar[tuple[type[Change], ...]] = ()
    """The changes of the feature's own module that an undo file may contain."""

    def links(self, spec: HostSpec) -> tuple[str, ...]:
        """The links that it looks at: `HostState.links` has those that exist."""
        return ()

    def sysctls(self, spec: HostSpec) -> tuple[str, ...]:
        """The paths below /proc/sys/net that it looks at: `HostState.sysctls` has those that exist."""
        return ()

    def observe(self, spec: HostSpec) -> object | None:
        """What else it needs to know: a frozen dataclass of its module, which `HostState.facts` then has. Raises
        HostSetupError."""
        return None

    def refuse(self, spec: HostSpec, state: HostState, *, tap_open: bool) -> None:
        """Raise HostSetupError when the host must not be changed so. `tap_open`: this process holds the TAP already."""

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        """The changes that lead from `state` to `spec`, in order. `made`: what undoes our changes so far."""
        return []

    def notes(self, spec: HostSpec, state: HostState) -> list[str]:
        """What a person should know before the first change."""
        return []

    def troubles(self, spec: HostSpec, state: HostState) -> list[str]:
        """What of `spec` this host does not let us have."""
        return []

    def leftovers(self, spec: HostSpec, state: HostState) -> list[Change]:
        """What removes what an earlier node left that is ours beyond doubt, for when its note is lost."""
        return []

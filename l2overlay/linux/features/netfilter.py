"""What [filter] asks of the bridge: that its frames meet iptables. `firewall.py` installs and removes the rules themselves.

Filtering is active if the sysctl or the bridge's own flag is set. The sysctl is every bridge's, and not ours to change.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l2overlay.linux import firewall
from l2overlay.linux.changes import Change
from l2overlay.linux.feature import Feature, HostSpec
from l2overlay.linux.state import NF_CALL_FLAGS, HostState

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ABSENT = re.compile(r"[A-Za-z0-9:, ]{0,200}")


@dataclass(frozen=True, slots=True)
class SetBridgeFlag(Change):
    """Let the frames of this one bridge meet iptables or ip6tables, or not."""

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

    @property
    def is_plausible(self) -> bool:
        return self.flag in NF_CALL_FLAGS

    def apply(self, ipr: "IPRoute") -> None:
        ipr.link("set", index=self.find_link(), kind="bridge", **{f"br_{self.flag}": int(self.on)})


@dataclass(frozen=True, slots=True)
class RemoveFilter(Change):
    """Remove the iptables chains of a segment; the undo of what `Firewall.install` does."""

    segment: str
    absent: str
    """What `firewall.absent_parts` said before the first rule."""

    @property
    def line(self) -> str:
        return f"remove the filter of {self.segment} from iptables"

    @property
    def inverse(self) -> None:
        return None

    @property
    def target(self) -> tuple[object, ...]:
        return (type(self), self.segment)

    @property
    def is_plausible(self) -> bool:
        return bool(_SEGMENT.fullmatch(self.segment)) and bool(_ABSENT.fullmatch(self.absent))

    def apply(self, ipr: "IPRoute") -> None:
        firewall.remove(self.segment, self.absent)


class Netfilter(Feature):
    """The flags of the bridge. They come before the TAP joins, so that no frame passes the rules unseen.

    The plan does not take them away: whoever removes the rules of [filter] undoes the flags as well.
    """

    undo_kinds = (SetBridgeFlag, RemoveFilter)

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        if spec.filter is None:
            return []
        on = state.bridge.nf_call if state.bridge is not None else frozenset[str]()
        index = state.bridge.index if state.bridge is not None else 0
        off = [flag for flag in NF_CALL_FLAGS if flag not in on]
        return [SetBridgeFlag(spec.bridge, flag, True, False, index=index) for flag in off]

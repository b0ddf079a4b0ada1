"""Frames that the kernel lost before the node saw them, or after it wrote them: read when somebody asks, off the path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from l2overlay.linux.link_counters import LinkCounters
from l2overlay.node.journal import Journal
from l2overlay.overlay import Overlay

Read = Callable[[str], LinkCounters | None]


@dataclass(slots=True)
class KernelLosses:
    """Of one TAP and one bridge, since `start`. A link that was made anew counts from zero again, and so do we."""

    tap: str
    bridge: str
    read: Read
    _last: dict[str, LinkCounters] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """What was lost before the node came is not its loss: a persistent TAP and an adopted bridge have a past."""
        for link in (self.tap, self.bridge):
            found = self.read(link)
            if found is not None:
                self._last[link] = found

    def look(self) -> int:
        """Read the counters; returns how many frames the queue of the TAP lost since the last look."""
        received, queue = self._look(self.tap)
        for name, lost in zip(("bridge_in", "bridge_out"), self._look(self.bridge), strict=True):
            self._counts[name] = self._counts.get(name, 0) + lost
        self._counts["tap_in"] = self._counts.get("tap_in", 0) + received
        return queue

    @property
    def counts(self) -> Mapping[str, int]:
        """By name, without the queue of the TAP; see `observe.status.KERNEL_LOSSES`."""
        return self._counts

    def _look(self, link: str) -> tuple[int, int]:
        found = self.read(link)
        if found is None:
            return 0, 0
        last = self._last.get(link)
        self._last[link] = found
        if last is None or last.index != found.index:
            return found.rx_dropped, found.tx_dropped
        return max(0, found.rx_dropped - last.rx_dropped), max(0, found.tx_dropped - last.tx_dropped)


def tell_losses(losses: KernelLosses, tap: str, overlay: Overlay, journal: Journal) -> None:
    """Count what the queue of `tap` lost since the last look. The kernel tells nobody by itself."""
    lost = losses.look()
    if lost:
        overlay.tap_overflowed(lost)
        journal.tell(
            "tap_overflow",
            f"the queue of {tap} was full: {lost} frames of this host's side were lost "
            "(the node gets too little processor time, or a burst was too long)",
            lost=lost,
        )

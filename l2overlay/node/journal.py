"""What happened, told three ways: a line on stdout (journald's habit), a ring of recent events, and live followers.

Nothing here waits. A line that stdout does not take at once is lost and counted, a kind of event that comes faster
than a person can read is summed up, a client that does not keep up is disconnected with an error.
"""

import os
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import trio

from l2overlay.addresses import Address, PeerKey, format_key, format_mac
from l2overlay.controlplane.events import (
    Cause,
    DatagramReturned,
    Event,
    FrameRefused,
    HandshakeRefused,
    LoopFound,
    LoopHealed,
    MtuDiffers,
    PathSizeChanged,
    PathTooSmall,
    PeerDown,
    PeerMoved,
    PeerOnTwoHosts,
    PeerUnanswered,
    PeerUp,
    ProbeRepeated,
    StationFrozen,
    StationMoved,
    StormEnded,
    StormStarted,
)
from l2overlay.counters import DropReason
from l2overlay.dataplane.wire import BASE_SIZE
from l2overlay.observe.refusals import refusal_text, stanza

EVENT_SCHEMA = "l2overlay.event/1"
RECENT_EVENTS = 500
FOLLOWER_BACKLOG = 256
BURST = 20
"""Events of one kind that are told one by one before they are summed up ..."""
REFILL_TIME = 1.0
"""... and the seconds until one more may be told."""
MAX_LINE_LEN = 4000
"""Below PIPE_BUF (4096): what poll(2) calls writable takes this much without waiting."""

EventData = dict[str, Any]


class LineWriter:
    """Lines to a file descriptor that may be blocked, full or closed."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.lost_count = 0
        self._lost_told = 0

    def write(self, line: str) -> None:
        """Write the line now, or count it as lost; later lines tell how many are missing."""
        missing = self.lost_count - self._lost_told
        if missing and self._write(f"({missing} log lines were lost: the log did not take them)"):
            self._lost_told += missing
        if not self._write(line):
            self.lost_count += 1

    def _write(self, line: str) -> bool:
        data = line.encode(errors="replace")[:MAX_LINE_LEN] + b"\n"
        try:
            ready = self._poll.poll(0)
            return bool(ready) and ready[0][1] == select.POLLOUT and os.write(self._fd, data) == len(data)
        except OSError:
            return False


class _Allowance:
    """A token bucket: `BURST` events at once, then one each `REFILL_TIME`; counts what it held back."""

    __slots__ = ("held_back", "last_time", "tokens")

    def __init__(self, now: float) -> None:
        self.tokens = float(BURST)
        self.last_time = now
        self.held_back = 0

    def take(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now - self.last_time) / REFILL_TIME)
        self.last_time = now
        if self.tokens < 1:
            self.held_back += 1
            return False
        self.tokens -= 1
        return True


class Journal:
    """The node's voice. `peer_name` gives a key its name in peers.toml."""

    def __init__(
        self,
        writer: LineWriter,
        peer_name: Callable[[PeerKey], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._peer_name = peer_name
        self._clock = clock
        self._recent: deque[EventData] = deque(maxlen=RECENT_EVENTS)
        self._followers: set[trio.MemorySendChannel[EventData]] = set()
        self._allowances: dict[str, _Allowance] = {}
        self._told_attempts: dict[PeerKey, int] = {}

    @property
    def lines_lost(self) -> int:
        """Lines that stdout did not take."""
        return self._writer.lost_count

    def say(self, line: str) -> None:
        """A line for whoever reads the log; not an event."""
        self._writer.write(line)

    def tell(self, kind: str, text: str, **fields: Any) -> None:
        """An event of the shell: `text` is the line, `fields` are for programs."""
        allowance = self._allowance(kind)
        if allowance is not None:
            self._publish(kind, text, fields, allowance)

    def tell_event(self, event: Event) -> None:
        """An event of the overlay. Nothing is formatted for one that is held back."""
        if isinstance(event, PeerUnanswered) and not self._is_worth_telling(event):
            return
        kind = _KINDS[type(event)]
        allowance = self._allowance(kind)
        if allowance is not None:
            fields = {name: self._plain(value) for name, value in asdict(event).items()}
            if isinstance(event, HandshakeRefused):
                fields["stanza"] = stanza(event.cause, event.peer)
            self._publish(kind, _TEXTS[type(event)](event, self._where), fields, allowance)

    def recent(self) -> list[EventData]:
        """The last events, oldest first."""
        return list(self._recent)

    def follow(self) -> trio.MemoryReceiveChannel[EventData]:
        """Events from now on; the channel ends when its reader falls behind. Close it when done."""
        send, receive = trio.open_memory_channel[EventData](FOLLOWER_BACKLOG)
        self._followers.add(send)
        return receive

    def _is_worth_telling(self, event: PeerUnanswered) -> bool:
        """Each time the attempts have doubled: a peer that is off for a night leaves a dozen lines, not thousands."""
        last = self._told_attempts.get(event.peer, 0)
        if last <= event.attempts < 2 * last:
            return False
        self._told_attempts[event.peer] = event.attempts
        return True

    def _allowance(self, kind: str) -> _Allowance | None:
        now = self._clock()
        allowance = self._allowances.setdefault(kind, _Allowance(now))
        return allowance if allowance.take(now) else None

    def _publish(self, kind: str, text: str, fields: Mapping[str, Any], allowance: _Allowance) -> None:
        held_back, allowance.held_back = allowance.held_back, 0
        data = {
            "schema": EVENT_SCHEMA,
            "time": round(time.time(), 3),
            "event": kind,
            "text": text,
            **fields,
            "held_back": held_back,
        }
        self._recent.append(data)
        self._writer.write(f"{text} (and {held_back} like it before)" if held_back else text)
        for follower in list(self._followers):
            self._pass_on(follower, data)

    def _pass_on(self, follower: trio.MemorySendChannel[EventData], data: EventData) -> None:
        try:
            follower.send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._followers.discard(follower)
            follower.close()

    def _where(self, peer: PeerKey | None) -> str:
        return "this host" if peer is None else self._peer_name(peer)

    def _plain(self, value: Any) -> Any:
        match value:
            case Address():
                return str(value)
            case bytes() if len(value) == 6:
                return format_mac(value)
            case bytes():
                return {"name": self._peer_name(PeerKey(value)), "public_key": format_key(value)}
            case _:
                return value


_KINDS: dict[type, str] = {
    PeerUp: "peer_up",
    PeerDown: "peer_down",
    PeerMoved: "peer_moved",
    PeerOnTwoHosts: "peer_on_two_hosts",
    PeerUnanswered: "peer_unanswered",
    HandshakeRefused: "handshake_refused",
    MtuDiffers: "mtu_differs",
    PathSizeChanged: "path_size_changed",
    PathTooSmall: "path_too_small",
    StationMoved: "station_moved",
    StationFrozen: "station_frozen",
    FrameRefused: "frame_refused",
    StormStarted: "storm_started",
    StormEnded: "storm_ended",
    LoopFound: "loop_found",
    LoopHealed: "loop_healed",
    ProbeRepeated: "probe_repeated",
    DatagramReturned: "datagram_returned",
}

_REFUSALS: dict[DropReason, str] = {
    DropReason.UNKNOWN_STATION: "is not one of the stations that may be there",
    DropReason.STATION_LIMIT: "is one station more than may be there",
    DropReason.SPOOFED_STATION: "uses the address of a station that belongs elsewhere",
    DropReason.ROGUE_DHCP: "answers as a DHCP server and is none of dhcp_servers",
    DropReason.ROGUE_ROUTER: "announces itself as a router and is none of router_advertisements",
    DropReason.SPOOFED_ADDRESS: "claims an address that is not its own",
    DropReason.UNREADABLE: "hides from the guards what it sends",
    DropReason.ETHERTYPE_REFUSED: "sends an EtherType that may not pass",
    DropReason.BPDU_REFUSED: "sends spanning tree, which may not pass",
}


def _refused(event: FrameRefused, where: Callable[[PeerKey | None], str]) -> str:
    what = _REFUSALS.get(event.reason, event.reason.value)
    about = f" ({event.detail})" * bool(event.detail)
    more = f", {event.more} more before" * bool(event.more)
    return f"refused: station {format_mac(event.mac)} at {where(event.peer)} {what}{about}{more}"


def _loop(event: LoopFound, where: Callable[[PeerKey | None], str]) -> str:
    if event.peer is None:
        return "loop: the LAN of this host is a ring; nothing is flooded between it and the overlay"
    return (
        f"loop: the LANs of this host and of {where(event.peer)} are joined by a second path; "
        f"nothing passes between them here, and {where(event.carrier)} carries for both"
    )


def _storm(event: StormStarted | StormEnded, where: Callable[[PeerKey | None], str]) -> str:
    begin = f"storm: {event.kind} from {where(event.peer)}"
    if isinstance(event, StormStarted):
        return f"{begin} is more than may be flooded; the rest is dropped"
    return f"{begin} is over after {event.seconds:.1f} s; {event.dropped} frames were dropped"


_RETURNED = "loop: a datagram of this node came back by its own TAP and was dropped: a route to a peer leads into the bridge"

_TEXTS: dict[type, Callable[[Any, Callable[[PeerKey | None], str]], str]] = {
    PeerUp: lambda e, where: f"peer {where(e.peer)} is up at {e.address}",
    PeerDown: lambda e, where: f"peer {where(e.peer)} is down: {e.reason}",
    PeerMoved: lambda e, where: f"peer {where(e.peer)} moved from {e.old or 'nowhere'} to {e.new}",
    PeerOnTwoHosts: lambda e, where: (
        f"peer {where(e.peer)} answers at {e.address} and at {e.other} in turn: two hosts have its key"
    ),
    PeerUnanswered: lambda e, where: f"peer {where(e.peer)} has not answered {e.attempts} handshakes",
    HandshakeRefused: lambda e, where: (
        "refused: " * (e.cause is not Cause.OTHER_PSK)
        + refusal_text(e.cause, e.address, "" if e.peer is None else where(e.peer), e.peer)
    ),
    MtuDiffers: lambda e, where: (
        f"peer {where(e.peer)} has mtu {e.theirs}, this host {e.ours}: larger frames than "
        f"{min(e.theirs, e.ours)} do not pass; make mtu equal in both peers.toml"
    ),
    PathSizeChanged: lambda e, where: (
        f"path to peer {where(e.peer)} takes datagrams of {e.datagram_size} bytes"
    ),
    PathTooSmall: lambda e, where: (
        f"degraded: the path to peer {where(e.peer)} does not carry datagrams of {BASE_SIZE} bytes, so larger frames are "
        "lost: raise the MTU of the underlay"
    ),
    StationMoved: lambda e, where: (
        f"station {format_mac(e.mac)}{f' (VLAN {e.vlan})' * bool(e.vlan)} moved from {where(e.old)} to {where(e.new)}"
    ),
    StationFrozen: lambda e, where: (
        f"station {format_mac(e.mac)}{f' (VLAN {e.vlan})' * bool(e.vlan)} moves to and fro between {where(e.port)} "
        f"and {where(e.other)}: for 60 s it stays at {where(e.port)}"
    ),
    FrameRefused: _refused,
    StormStarted: _storm,
    StormEnded: _storm,
    LoopFound: _loop,
    ProbeRepeated: lambda _e, _where: (
        "loop: a station of this host's LAN repeats the loop guard's probes; it is no second path, and nothing is blocked"
    ),
    LoopHealed: lambda e, where: (
        "loop healed: the LAN of this host is a ring no more"
        if e.peer is None
        else f"loop healed: the second path to the LAN of {where(e.peer)} is gone after {e.seconds:.1f} s"
    ),
    DatagramReturned: lambda _e, _where: _RETURNED,
}

"""The ports of one node: one for each peer, and LOCAL. Which of them are open, and what is told of what happens there.

This module programs the forwarder and the switch with what the peers, the loop guard and the configuration say.
"""

from collections.abc import Callable, Iterator, Sequence

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import PeerConfig
from l2overlay.controlplane.events import Event, StationFrozen, StationMoved
from l2overlay.controlplane.handshake import FEATURE_LAN
from l2overlay.controlplane.membership import Membership
from l2overlay.controlplane.peer import Peer
from l2overlay.controlplane.protection import Protection, peer_of
from l2overlay.controlplane.witness import CHANCE_LEN
from l2overlay.counters import DropReason
from l2overlay.dataplane.demultiplexer import Controls
from l2overlay.dataplane.ethernet import SOURCE, VIRTIO_LEN, split_station_key, station_key
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.forwarder import Forwarder, Refused
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import Record, control_record
from l2overlay.seams import TapFrame


class Ports:
    """The ports of the node `own`. `random(n)` gives n unpredictable bytes."""

    def __init__(
        self,
        own: PeerKey,
        members: Membership,
        protection: Protection,
        forwarder: Forwarder,
        random: Callable[[int], bytes],
    ) -> None:
        self._own = own
        self._members = members
        self._protection = protection
        self._forwarder = forwarder
        self._switch = forwarder.switch
        self._random = random

    def program(self) -> None:
        """Program what protects, and the ports: frames go to every peer that is up and not closed."""
        forwarder, protection = self._forwarder, self._protection
        forwarder.guards, forwarder.storm, forwarder.closed = (
            protection.guards,
            protection.storm,
            protection.closed,
        )
        forwarder.ring = protection.loop.ring is not None
        forwarder.ports = {
            Port(peer.key): peer.link
            for peer in self._members
            if peer.up and Port(peer.key) not in protection.closed
        }
        forwarder.reconsider()

    def came_up(self, key: PeerKey, now: float) -> None:
        """The peer has a session: open its port, and send the frames that waited."""
        peer = self._members.peers[key]
        if Port(key) not in self._protection.closed:
            self._forwarder.ports[Port(key)] = peer.link
        self._forwarder.send_waiting(peer.link)
        self._protection.loop.hurry(now)
        self._protection.loop.tell(key)
        peer.link.flush(now, frames=True)

    def went_down(self, key: PeerKey, now: float) -> None:
        """The peer has no session: nothing is sent to it, and its stations are forgotten."""
        self._forwarder.ports.pop(Port(key), None)
        self._switch.fdb.flush(Port(key))
        self._protection.loop.hurry(now)

    def set_static_stations(self, old: Sequence[PeerConfig], new: Sequence[PeerConfig], now: float) -> None:
        """Bind the stations of `macs` to their ports, and release those that only `old` binds."""
        before = {(mac, peer.public_key) for peer in old for mac in peer.macs}
        after = {(mac, peer.public_key) for peer in new for mac in peer.macs}
        for mac, _ in before - after:
            self._switch.fdb.remove(station_key(mac, 0))
        self._switch.fdb.forget({mac for mac, _ in after - before})  # where it was learned, in a VLAN too
        for mac, key in after - before:
            port = LOCAL if key == self._own else Port(key)
            self._switch.fdb.add_static(station_key(mac, 0), port, now)

    # -- control records ---------------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, address: Address, now: float) -> None:
        """Take a datagram that is neither DATA nor TRAIN."""
        self._members.receive_untrusted(datagram, address, now)

    def receive_records(
        self, link: Link, session: Session, controls: Controls, address: Address, size: int, now: float
    ) -> None:
        """Take the control records that a peer sent in `size` bytes of plaintext from `address`."""
        peer = self._members.peers[link.key]
        if len(controls) > 1:
            controls = _with_one_challenge(controls)
        is_used = not controls or link.uses(session)
        for kind, body in controls:
            if not is_used:
                peer.receive_former_control(kind, body, address, now)
            elif kind is Record.LAN:
                self._receive_lan(peer, body)
            else:
                peer.receive_control(kind, body, address, now)
        if address != link.endpoint and not any(kind is Record.PATH_CHALLENGE for kind, _ in controls):
            peer.paths.heard_at(address, size, now)

    def _receive_lan(self, peer: Peer, body: bytes) -> None:
        if self._protection.loop.receive_lan(peer.key, body):
            self._switch.fdb.flush(Port(peer.key))

    # -- loops -------------------------------------------------------------------------------------------------

    def follow_loops(self, now: float) -> None:
        """Close and open ports as the loop guard says now."""
        up = [peer.key for peer in self._members if peer.up]
        if self._protection.follow_loops(self._switch, up, now):
            self.program()
            self._protection.loop.hurry(now)

    def guard_against_loops(self, now: float) -> None:
        """Send a probe into the own LAN, and tell the peers what was heard there, when it is time for that."""
        self.follow_loops(now)
        loop = self._protection.loop
        if not loop.enabled or loop.next_probe > now:
            return
        self._forwarder.frames.append(
            [loop.probe([link.key for link in self._forwarder.ports.values()], now)]
        )
        keys, body = loop.lan_records()
        for peer in (self._members.peers[key] for key in keys if key in self._members.peers):
            if peer.up and peer.features & FEATURE_LAN:
                peer.link.outbox.add_record(control_record(Record.LAN, body))
                peer.link.flush(now)

    def without_witnesses(self, frames: Sequence[TapFrame], now: float) -> Sequence[TapFrame]:
        """Frames from the TAP without the witnesses that came back, which are dropped."""
        loop = self._protection.loop
        kept = [frame for frame in frames if not loop.witnesses.heard(frame[VIRTIO_LEN:], now)]
        if len(kept) < len(frames):
            self._forwarder.drop_missing(frames, kept, DropReason.LOOP_PROBE)
            loop.heard_witness(now)
            self.follow_loops(now)
        return kept

    # -- what is told ------------------------------------------------------------------------------------------

    def tell_refused(self, now: float) -> None:
        """Tell what the switch refused. A probe that came back closes ports instead."""
        refused, self._forwarder.refused = self._forwarder.refused, []
        for each in refused:
            if each.port == LOCAL and self._concerns_loops(each, now):
                continue
            mac = MacAddress(each.head[SOURCE])
            self._protection.tell_refused(each.reason, each.port, mac, now, count=each.counted)

    def _concerns_loops(self, refused: Refused, now: float) -> bool:
        """Whether the loop guard acts on a refused frame from the TAP: it is a probe that came back, or a reason to look."""
        loop = self._protection.loop
        if refused.reason is DropReason.LOOP_PROBE and loop.hear_untrusted(refused.head, now):
            self.follow_loops(now)
            return True
        if loop.suspects:
            loop.suspects = False
            self._forwarder.frames.append([loop.witnesses.make(self._random(CHANCE_LEN), now)])
            return True
        return False

    def moves(self, now: float) -> Iterator[Event]:
        """Yield the stations that moved or were frozen since the last call."""
        if self._switch.freezes:
            # Frames that go in circles look like this: probe now, not in a second.
            self._protection.loop.hurry(now)
        for key, old, new in self._switch.moves:
            mac, vlan = split_station_key(key)
            yield StationMoved(mac, vlan, peer_of(old), peer_of(new))
        for freeze in self._switch.freezes:
            mac, vlan = split_station_key(freeze.station)
            yield StationFrozen(mac, vlan, peer_of(freeze.port), peer_of(freeze.other))
        self._switch.moves.clear()
        self._switch.freezes.clear()


def _with_one_challenge(controls: Controls) -> Controls:
    """Keep only the last PATH_CHALLENGE of what was read together: the address that each came from is not proven."""
    challenges = [control for control in controls if control[0] is Record.PATH_CHALLENGE]
    return [control for control in controls if control[0] is not Record.PATH_CHALLENGE] + challenges[-1:]

"""Datagrams of the UDP socket: each goes to the session that its index names, or to the control plane.

    DATA, TRAIN    `Link.open_untrusted` -> `Inbox` -> `Forwarder.accept`; control records go up to the control plane
    all others     to the control plane, as they are

Bursts of one session that were read together are opened one by one and unpacked together: a super-frame takes more datagrams
than a burst holds, and unpacked burst by burst it would reach the TAP in two halves.
"""

from collections.abc import Sequence
from typing import Protocol

from l2overlay.addresses import Address
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.forwarder import Forwarder
from l2overlay.dataplane.link import Link, Links
from l2overlay.dataplane.session import REJECT_TIME, Session
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE, Record
from l2overlay.seams import Burst

Controls = list[tuple[Record, bytes]]
"""Control records, in the order of their datagrams."""


class ControlPlane(Protocol):
    """Who takes what is not a frame."""

    def receive_untrusted(self, datagram: bytes, address: Address, now: float) -> None:
        """Take a datagram that is neither DATA nor TRAIN. Count it if it comes to nothing."""

    def receive_records(
        self, link: Link, session: Session, controls: Controls, address: Address, size: int, now: float
    ) -> None:
        """Take the control records that came in `size` bytes of plaintext. There may be none if `address` is a new one."""


class Demultiplexer:
    """The demultiplexer of one node."""

    def __init__(self, links: Links, forwarder: Forwarder, counters: Counters, control: ControlPlane) -> None:
        """`counters` are those of the node, for datagrams that belong to no peer."""
        self.opened: tuple[Session, Address, list[bytes]] | None = None
        """Plaintexts that wait to be unpacked."""
        self._links = links
        self._forwarder = forwarder
        self._microflows = forwarder.microflows
        self._counters = counters
        self._control = control

    def receive_alone(self, burst: Burst, now: float) -> bool:
        """Open one datagram of DATA, and deliver the lone frame of a known flow. Other contents wait in `opened`.

        Returns False, and changes nothing, for anything but one valid DATA datagram.
        """
        data = burst.buffers[0]
        if len(data) > burst.datagram_size or len(burst.buffers) > 1:
            return False
        session = self._links.sessions.get(int.from_bytes(data[4:8], "little"))
        if session is None or session.created_time + REJECT_TIME <= now:
            return False
        plaintext = session.open_alone_untrusted(data)
        if plaintext is None:
            return False
        link = self._links.by_key[session.peer]
        link.counters.rx_datagrams += 1
        frame = self._microflows.unpack_untrusted(plaintext, link, session, burst.address, now)
        if frame is not None:
            self._forwarder.frames.append((frame,))
        else:
            self.opened = (session, burst.address, [plaintext])
        return True

    def receive(self, bursts: Sequence[Burst], now: float) -> None:
        """Take what was read together. Plaintexts of the last session wait in `opened` for `unpack`."""
        for burst in bursts:
            data, size = b"".join(burst.buffers), burst.datagram_size
            if not data:
                self._refuse(DropReason.BAD_LENGTH)
            at = 0
            while at < len(data):
                at = self._receive_run(data, at, size, burst.address, now)

    def _receive_run(self, data: bytes, at: int, size: int, address: Address, now: float) -> int:
        """Take the datagram at byte `at` of a burst, and those of its kind and session behind it. Returns where they end."""
        if data[at] not in (DATA_TYPE, TRAIN_TYPE):
            self.unpack(now)
            self._counters.rx_datagrams += 1
            self._control.receive_untrusted(data[at : at + size], address, now)
            return at + size
        session = self._links.sessions.get(int.from_bytes(data[at + 4 : at + 8], "little"))
        if session is None:
            self._refuse(DropReason.UNKNOWN_SESSION)
            return at + size
        link = self._links.by_key[session.peer]
        plaintexts, end = link.open_untrusted(session, data, at, size, address, now)
        if plaintexts:
            self._collect(session, address, plaintexts, now)
        return end

    def _refuse(self, reason: DropReason) -> None:
        """Drop one datagram that belongs to no peer."""
        self._counters.rx_datagrams += 1
        self._counters.drop(reason)

    def _collect(self, session: Session, address: Address, plaintexts: list[bytes], now: float) -> None:
        if self.opened is not None and self.opened[:2] == (session, address):
            self.opened[2].extend(plaintexts)
            return
        self.unpack(now)
        self.opened = (session, address, plaintexts)

    def unpack(self, now: float) -> None:
        """Unpack what waits in `opened`: frames go to the forwarder, control records to the control plane."""
        if self.opened is None:
            return
        (session, address, plaintexts), self.opened = self.opened, None
        link = self._links.by_key[session.peer]
        has_answer = link.owner.received_datagram(session, now)
        received = link.inbox.receive_untrusted(plaintexts, now)
        if received.frames:
            link.owner.received_frames(now)
            self._forwarder.accept(link, received.frames, now)
        controls = received.controls
        if controls or address != link.endpoint:
            size = sum(map(len, plaintexts))
            self._control.receive_records(link, session, controls, address, size, now)
        if has_answer or controls:
            link.flush(now)

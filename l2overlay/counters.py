"""Counters, and the one list of reasons why a frame or datagram was not delivered.

Every frame that is not delivered has exactly one `DropReason` and is counted once, at the place that decided.
Frames in = frames out + the sum of named drops: the tests hold us to it.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class DropReason(StrEnum):
    """Why something was not delivered; the value is the name in `status`, metrics and docs."""

    # a frame read from the TAP
    RUNT_FRAME = "runt_frame"  # shorter than an Ethernet header
    GIANT_FRAME = "giant_frame"  # longer than the segment's MTU allows
    BAD_OFFLOAD_HEADER = "bad_offload_header"  # virtio header and frame contradict each other
    TINY_SEGMENTS = "tiny_segments"  # a super-frame of more than 128 segments, each with under 48 bytes
    RESERVED_ADDRESS = "reserved_address"  # 01:80:c2:00:00:01..0f, never forwarded (802.1Q, table 8-1)
    GROUP_SOURCE = "group_source"  # source address is a group or zero
    LOCAL_DESTINATION = (
        "local_destination"  # the destination lives on this side of the TAP (802.1Q filtering)
    )
    OWN_DATAGRAM = "own_datagram"  # one of our own came back from the TAP: the route to a peer leads there
    NO_PEER = "no_peer"  # a flood, and no peer has a session
    PEER_DOWN = "peer_down"  # the destination's peer has no session, and its queue ended without one
    QUEUE_FULL = "queue_full"  # more than 64 frames or 128 KiB waited for a session
    QUEUE_TIMEOUT = "queue_timeout"  # waited 1 s for a session

    # a datagram from the underlay, before its tag verified
    BAD_LENGTH = "bad_length"
    BAD_TYPE = "bad_type"
    BAD_RESERVED = "bad_reserved"  # reserved bytes that are not zero, or an unknown suite
    BAD_MAC1 = "bad_mac1"  # the sender does not know our public key
    NO_COOKIE = "no_cookie"  # under load, and mac2 does not prove the address
    BAD_COOKIE_REPLY = "bad_cookie_reply"
    BAD_HANDSHAKE = "bad_handshake"  # Noise said no: other key, psk, suite, segment or version
    UNKNOWN_PEER = "unknown_peer"  # a genuine handshake of a key that is not in peers.toml
    STALE_HANDSHAKE = "stale_handshake"  # its stamp is not newer than the last one: a replay
    HANDSHAKE_LIMIT = "handshake_limit"  # more handshakes a second than we answer
    FLOOD_FILTERED = (
        "flood_filtered"  # while more strangers' datagrams fail than a node can look at; mostly by the kernel
    )
    UNKNOWN_SESSION = "unknown_session"
    EXPIRED_SESSION = "expired_session"
    REPLAYED = "replayed"
    BAD_TAG = "bad_tag"
    BAD_TRAIN = "bad_train"  # a car that contradicts itself, or the train that it says it is of
    TRAIN_INCOMPLETE = "train_incomplete"  # a car of a train that lost another one on its way

    # a record inside an authentic datagram
    BAD_RECORD = "bad_record"
    BAD_FRAGMENT = "bad_fragment"
    FRAGMENT_TIMEOUT = "fragment_timeout"
    FRAGMENT_LIMIT = "fragment_limit"
    BAD_SLICE = "bad_slice"
    SPOOFED_STATION = "spoofed_station"  # source bound to another port by configuration, or one of our own

    # protection: port security, guards, storm control, loop guard (docs/protection.md)
    FROZEN_STATION = "frozen_station"  # moved too often; it stays where it was for a minute
    UNKNOWN_STATION = "unknown_station"  # behind a peer with learn = "off", and not in its macs
    STATION_LIMIT = "station_limit"  # one more than the peer's max_macs
    ISOLATED = "isolated"  # between two that isolation keeps apart
    BPDU_REFUSED = "bpdu_refused"  # spanning tree, and bpdu = "drop"
    ETHERTYPE_REFUSED = "ethertype_refused"  # not in ethertypes_allow, or in ethertypes_deny
    ROGUE_DHCP = "rogue_dhcp"  # a DHCP server's answer from who is none
    ROGUE_ROUTER = "rogue_router"  # a router advertisement or redirect from who is no router
    SPOOFED_ADDRESS = "spoofed_address"  # ARP or ND that claims an address of somebody else
    UNREADABLE = "unreadable"  # headers made so that a guard cannot see what is behind them
    STORM_BROADCAST = "storm_broadcast"  # more than may be flooded from one port
    STORM_MULTICAST = "storm_multicast"
    STORM_UNKNOWN_UNICAST = "storm_unknown_unicast"
    LOOP_PROBE = "loop_probe"  # a probe of the loop guard, or a witness, which are never forwarded
    LOOP_BLOCKED = "loop_blocked"  # the LAN gets there by another path

    # the filter's part of the switch
    FILTER_PENDING = "filter_pending"  # the kernel's rules do not know yet where the station is
    FILTER_TAGGED = "filter_tagged"  # a VLAN tag or PPPoE, which iptables does not look into
    FILTER_CLOSED = "filter_closed"  # the kernel's rules are lost and could not be put back

    # at the system's door
    RECEIVE_OVERFLOW = "receive_overflow"  # the UDP socket had no room for a datagram: we read too slowly
    TAP_OVERFLOW = "tap_overflow"  # the queue of the TAP was full, says the kernel: we read too slowly
    TAP_REFUSED = "tap_refused"  # the kernel refused a write (TAP down, or a frame it cannot take)
    TAP_FULL = "tap_full"
    SEND_REFUSED = "send_refused"  # EPERM: a local firewall
    SEND_UNREACHABLE = "send_unreachable"  # ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, ENETDOWN
    SEND_LOOP = "send_loop"  # the route to the peer leads into the bridge, and back by our own TAP
    SEND_TOO_LONG = "send_too_long"  # EMSGSIZE
    SEND_NO_BUFFER = "send_no_buffer"  # ENOBUFS, ENOMEM
    SEND_FAILED = "send_failed"  # anything else the kernel says of one send


@dataclass(slots=True)
class Counters:
    """What one node, or one peer of it, has carried: inner frames and their bytes, outer datagrams.

    A frame is what the TAP gives or takes at once, so a super-frame is one; a copy to each peer counts at that peer.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    rx_datagrams: int = 0
    tx_frames: int = 0
    tx_bytes: int = 0
    tx_datagrams: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count `count` frames or datagrams that end here for `reason`."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def add(self, other: "Counters") -> None:
        """Count all that `other` has counted."""
        self.rx_frames += other.rx_frames
        self.rx_bytes += other.rx_bytes
        self.rx_datagrams += other.rx_datagrams
        self.tx_frames += other.tx_frames
        self.tx_bytes += other.tx_bytes
        self.tx_datagrams += other.tx_datagrams
        for reason, count in other.drops.items():
            self.drop(reason, count)

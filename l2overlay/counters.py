"""Counters, and the one list of reasons why a frame or datagram was not delivered.

Every frame that is not delivered has exactly one `DropReason` and is counted once, where the program decides to drop it.
The tests check that frames in = frames out + the sum of all drops.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class DropReason(StrEnum):
    """Why something was not delivered. The value is the name in `status`, metrics and docs.

    Each comment is the beginning of the meaning in docs/architecture.md, which also says what to do.
    """

    # a frame from the TAP
    RUNT_FRAME = "runt_frame"  # shorter than an Ethernet header
    GIANT_FRAME = "giant_frame"  # longer than the segment's MTU allows
    BAD_OFFLOAD_HEADER = "bad_offload_header"  # the virtio header and the frame contradict each other
    TINY_SEGMENTS = "tiny_segments"  # a super-frame of more than 128 segments
    RESERVED_ADDRESS = "reserved_address"  # sent to 01:80:c2:00:00:01 .. 0f (802.1Q, table 8-1)
    GROUP_SOURCE = "group_source"  # the source address is a group address or zero
    LOCAL_DESTINATION = "local_destination"  # the destination is on this side of the TAP
    OWN_DATAGRAM = "own_datagram"  # a datagram of this node came back from the TAP
    NO_PEER = "no_peer"  # the frame has to be flooded, but no peer has a session
    PEER_DOWN = "peer_down"  # the destination's peer has no session, and no endpoint to open one to
    QUEUE_FULL = "queue_full"  # more than 64 frames or 128 KiB already wait for the session
    QUEUE_TIMEOUT = "queue_timeout"  # the frame waited 1 s for the session

    # a datagram before its tag was verified
    BAD_LENGTH = "bad_length"  # the length does not fit the type of the datagram
    BAD_TYPE = "bad_type"  # no type of this protocol
    BAD_RESERVED = "bad_reserved"  # reserved bytes are not zero
    BAD_MAC1 = "bad_mac1"  # the sender does not know this node's public key
    NO_COOKIE = "no_cookie"  # the node is under load, and the sender has not proved its address yet
    BAD_COOKIE_REPLY = "bad_cookie_reply"  # a COOKIE that answers no message of this node
    BAD_HANDSHAKE = "bad_handshake"  # the handshake failed: another key, psk, suite, segment name or version
    UNKNOWN_PEER = "unknown_peer"  # a genuine INIT from a key that is not in peers.toml
    STALE_HANDSHAKE = "stale_handshake"  # the stamp is not newer than that of the last handshake
    HANDSHAKE_LIMIT = "handshake_limit"  # more INITs a second than the node reads
    FLOOD_FILTERED = "flood_filtered"  # dropped during a flood
    UNKNOWN_SESSION = "unknown_session"  # an index that the node did not give out, or took back
    EXPIRED_SESSION = "expired_session"  # the session is older than 180 s
    REPLAYED = "replayed"  # a datagram with this counter has already arrived
    BAD_TAG = "bad_tag"  # not sealed with the key of the session
    BAD_TRAIN = "bad_train"  # a car contradicts itself or its train
    TRAIN_INCOMPLETE = "train_incomplete"  # a car of a train that lost another car

    # a record of a genuine datagram
    BAD_RECORD = "bad_record"  # malformed; the rest of its datagram is dropped too
    BAD_FRAGMENT = "bad_fragment"  # fragments that do not fit together
    FRAGMENT_TIMEOUT = "fragment_timeout"  # not all fragments of a frame, or slices of a segment, arrived
    FRAGMENT_LIMIT = "fragment_limit"  # more than 32 frames of one peer wait for fragments
    BAD_SLICE = "bad_slice"  # a slice that contradicts itself; the rest of its datagram is dropped too
    SPOOFED_STATION = "spoofed_station"  # the configuration binds the source to another port

    # protection, as docs/protection.md describes it
    FROZEN_STATION = "frozen_station"  # the station moved too often and stays elsewhere for a minute
    UNKNOWN_STATION = "unknown_station"  # behind a peer with `learn = "off"`, and not in its `macs`
    STATION_LIMIT = "station_limit"  # one station more than the `max_macs` of the peer
    ISOLATED = "isolated"  # between two that `isolation` keeps apart
    BPDU_REFUSED = "bpdu_refused"  # a spanning tree frame, and `bpdu = "drop"` is set
    ETHERTYPE_REFUSED = "ethertype_refused"  # not in `ethertypes_allow`, or in `ethertypes_deny`
    ROGUE_DHCP = "rogue_dhcp"  # a DHCP server's answer from a station that is not in `dhcp_servers`
    ROGUE_ROUTER = "rogue_router"  # a router advertisement or redirect
    SPOOFED_ADDRESS = "spoofed_address"  # ARP or ND that claims an address of another station
    UNREADABLE = "unreadable"  # headers that hide from a guard what it must judge
    STORM_BROADCAST = "storm_broadcast"  # more broadcast than one port may flood
    STORM_MULTICAST = "storm_multicast"  # the same for multicast
    STORM_UNKNOWN_UNICAST = "storm_unknown_unicast"  # the same for unicast to a station that nobody knows
    LOOP_PROBE = "loop_probe"  # a probe of the loop guard, or a witness of this node that came back
    LOOP_BLOCKED = "loop_blocked"  # the frame reaches the LAN by another path

    # the switch's part of the filter: see docs/filter.md
    FILTER_PENDING = "filter_pending"  # the kernel's rules do not know yet where the station is
    FILTER_TAGGED = "filter_tagged"  # a VLAN tag or PPPoE, which iptables does not look into
    FILTER_CLOSED = "filter_closed"  # the kernel's rules are lost and could not be put back

    # the socket and the TAP
    RECEIVE_OVERFLOW = "receive_overflow"  # the UDP socket had no room for a datagram
    TAP_OVERFLOW = "tap_overflow"  # the queue of the TAP (2000 frames) had no room for a frame
    ECN_CONGESTED = (
        "ecn_congested"  # a router said "congested" of a packet whose guest knows no ECN (RFC 6040)
    )
    TAP_REFUSED = "tap_refused"  # the kernel refused a frame, or there is no TAP at the moment
    TAP_FULL = "tap_full"  # the TAP had no room: the guests' side takes frames too slowly
    SEND_REFUSED = "send_refused"  # EPERM: a local firewall
    SEND_UNREACHABLE = "send_unreachable"  # there is no route to the peer, or no address
    SEND_LOOP = "send_loop"  # the route to the peer leads into the bridge and back by the node's own TAP
    SEND_TOO_LONG = "send_too_long"  # larger than the interface takes (EMSGSIZE)
    SEND_NO_BUFFER = "send_no_buffer"  # the system had no memory (ENOBUFS, ENOMEM)
    SEND_FAILED = "send_failed"  # any other error of a send


FAILED = (
    DropReason.UNKNOWN_SESSION,
    DropReason.EXPIRED_SESSION,
    DropReason.REPLAYED,
    DropReason.BAD_TAG,
    DropReason.BAD_TRAIN,
    DropReason.TRAIN_INCOMPLETE,
    DropReason.BAD_TYPE,
    DropReason.BAD_LENGTH,
    DropReason.BAD_MAC1,
    DropReason.BAD_HANDSHAKE,
    DropReason.NO_COOKIE,
    DropReason.HANDSHAKE_LIMIT,
    DropReason.UNKNOWN_PEER,
    DropReason.STALE_HANDSHAKE,
)
"""The reasons for which datagrams of a flood from strangers are dropped."""


@dataclass(slots=True)
class Counters:
    """What one node, or one of its peers, has carried: inner frames and their bytes, and outer datagrams.

    A frame is what the TAP gives or takes at once, so a super-frame counts as one. A copy of a frame counts at its peer.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    rx_datagrams: int = 0
    tx_frames: int = 0
    tx_bytes: int = 0
    tx_datagrams: int = 0
    drops: dict[DropReason, int] = field(default_factory=dict)

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count `count` frames or datagrams that are dropped for `reason`."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def add(self, other: "Counters") -> None:
        """Add the counts of `other`."""
        self.rx_frames += other.rx_frames
        self.rx_bytes += other.rx_bytes
        self.rx_datagrams += other.rx_datagrams
        self.tx_frames += other.tx_frames
        self.tx_bytes += other.tx_bytes
        self.tx_datagrams += other.tx_datagrams
        for reason, count in other.drops.items():
            self.drop(reason, count)

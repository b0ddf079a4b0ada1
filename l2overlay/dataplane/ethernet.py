"""Views on a `TapFrame` (IEEE 802.3 clause 3, IEEE 802.1Q clause 9).

    0            10            16            22        24
    virtio[10] | destination | source      | TPID/type | TCI when tagged ...

The offsets below count from the start of the `TapFrame`, so that the path slices once and never copies a frame to look
at it.
"""

from typing import NewType

from l2overlay import inet
from l2overlay.addresses import MacAddress
from l2overlay.seams import TapFrame

VIRTIO_LEN = 10
ETHERNET_HEADER_LEN = 14
MIN_TAP_FRAME_LEN = VIRTIO_LEN + ETHERNET_HEADER_LEN

DESTINATION = slice(10, 16)
SOURCE = slice(16, 22)
ETHERTYPE = slice(22, 24)
SWITCHED = slice(10, 26)
"""All that decides where a frame goes: both addresses and, when tagged, the tag."""

BROADCAST = MacAddress(b"\xff" * 6)
NULL_MAC = MacAddress(bytes(6))
VLAN_TPIDS = tuple(kind.to_bytes(2) for kind in inet.VLAN_TPIDS)
MAX_TAGS = 2

BPDU_ADDRESSES = (b"\x01\x80\xc2\x00\x00\x00", b"\x01\x00\x0c\xcc\xcc\xcd")  # 802.1Q, and Cisco's PVST+
PROBE_GROUP = MacAddress(b"\x03l2olp")
PROBE_TYPE = b"\x88\xb5"
"""Where the loop guard's probes go: a group that no standard has, which bridges flood; EtherType for local experiments."""
LINK_LOCAL = (b"\x01\x80\xc2", b"\x01\x00\x0c", PROBE_GROUP[:3])
"""First bytes of all these."""

PLAIN_VIRTIO = bytes(VIRTIO_LEN)
"""The virtio header of a frame with nothing left to do."""

PARTIAL_VIRTIO = b"\x01\x00\x00\x00\x00\x00"
"""How the virtio header of a frame begins whose checksum is still to do; csum_start and csum_offset follow."""

StationKey = NewType("StationKey", bytes)
"""The FDB key: a MAC address (6 bytes), and for a VLAN id other than 0 that id in two more bytes."""


def vlan_id(frame: bytes) -> int:
    """The VLAN id of a `TapFrame`; untagged and priority-tagged (VID 0) frames are 0."""
    return int.from_bytes(frame[24:26], "big") & 0xFFF if frame[22:24] in VLAN_TPIDS else 0


def station_key(mac: bytes, vlan: int) -> StationKey:
    """The FDB key of a station in a VLAN."""
    return StationKey(mac + vlan.to_bytes(2, "big") if vlan else mac)


def split_station_key(key: StationKey) -> tuple[MacAddress, int]:
    """The reverse of `station_key`."""
    return MacAddress(key[:6]), int.from_bytes(key[6:], "big")


def is_group(mac: bytes) -> bool:
    """Multicast or broadcast: the first bit on the wire is set."""
    return bool(mac[0] & 1)


def plain(frame: bytes) -> TapFrame:
    """An Ethernet frame as a `TapFrame` with nothing offloaded."""
    return TapFrame(PLAIN_VIRTIO + frame)

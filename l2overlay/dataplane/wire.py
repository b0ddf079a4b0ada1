"""Every byte layout of the transport: datagram headers and the records inside them. All little-endian.

    DATA      type 4 | 0 | 0 0 | receiver u32 | counter u64 | AEAD(records) | tag[16]
    TRAIN     type 5 | index u8 | count u8 | 0 | receiver u32 | counter u64 | a piece of AEAD(records) | tag[16]

    record    kind u8 | flags u8 | length u16 | body[length]
      PADDING         0  ends the datagram; what follows is ignored
      FRAME           1  [csum_start u16 | csum_offset u16, when flags has PARTIAL_CHECKSUM] frame
      SLICE           2  offset u16 | template | data      (see `TEMPLATE`)
      FRAGMENT        3  offset u16 | id u32 | total u16 | a part of a FRAME body (flags as that FRAME's)
      PING            4  token u64                  answered by PONG with the same token
      PONG            5  token u64
      PATH_PROBE      6  token u32 | zeros          answered by PATH_ACK; its datagram has the size that is tried
      PATH_ACK        7  token u32
      PATH_CHALLENGE  8  token[8]                   answered by PATH_RESPONSE, to the address it came from
      PATH_RESPONSE   9  token[8]
      BYE            10                             the sender leaves
      LAN            11  key[32] | change u32       of the sender's LAN: its probes' key; another change, and its stations
                                                    are to be forgotten. Only to peers with that feature
      RECEPTION      12  used u32 | opened u32      since the last report: counters that the session's sender used, and
                                                    how many of them were opened. Only to peers with the TRAIN feature

    template  id u32 | gso_type u8 | 0 | gso_size u16 | header_len u16 | csum_start u16 | total u16 | header[header_len]

A datagram without records is valid, and says nothing. Handshake datagrams (types 1 to 3) are in `controlplane.handshake` and
`controlplane.cookie`. docs/protocol.md draws all of them.
"""

from enum import IntEnum, IntFlag
from struct import Struct

DATA_TYPE = 4
TAG_LEN = 16

DATA_HEADER = Struct("<BBHIQ")
DATA_HEADER_LEN = DATA_HEADER.size
DATA_OVERHEAD = DATA_HEADER_LEN + TAG_LEN

BASE_SIZE = 1200
"""Bytes of a datagram that every path must carry (RFC 9000 section 14, RFC 8899 section 5.1.2)."""

TRAIN_TYPE = 5
MAX_CARS = 64
"""Datagrams of one train."""
MAX_TRAIN_LEN = 36_864
"""Bytes of ciphertext and tag of one train: bounds what a receiver keeps of it."""

RECORD = Struct("<BBH")
RECORD_LEN = RECORD.size

# A SLICE or FRAGMENT record up to and with its offset: both begin alike, so that one unpack serves both.
PART = Struct("<BBHH")
PART_LEN = PART.size

TEMPLATE = Struct("<IBBHHHH")
TEMPLATE_LEN = TEMPLATE.size

FRAGMENT = Struct("<IH")
FRAGMENT_LEN = FRAGMENT.size

MIN_FRAGMENT = 64
"""Bytes of frame in a FRAGMENT that is not the last of its frame: bounds in how many pieces a receiver keeps one."""

CHECKSUM = Struct("<HH")
CHECKSUM_LEN = CHECKSUM.size

PING_TOKEN = Struct("<Q")
PROBE_TOKEN = Struct("<I")
CHALLENGE_LEN = 8
LAN = Struct("<32sI")
RECEPTION = Struct("<II")

COUNTER_LIMIT = 1 << 60
"""No session counts further (WireGuard, section 6.2: 2**64 - 2**13 - 1); the rekey after 120 s comes long before."""


class Record(IntEnum):
    """What a record is; the layouts are at the head of this file."""

    PADDING = 0
    FRAME = 1
    SLICE = 2
    FRAGMENT = 3
    PING = 4
    PONG = 5
    PATH_PROBE = 6
    PATH_ACK = 7
    PATH_CHALLENGE = 8
    PATH_RESPONSE = 9
    BYE = 10
    LAN = 11
    RECEPTION = 12


class RecordFlag(IntFlag):
    """Bits of a record's `flags`; a set bit that is not here makes the record malformed."""

    NONE = 0
    PARTIAL_CHECKSUM = 1


CONTROL_BODY_LEN = {
    Record.PING: PING_TOKEN.size,
    Record.PONG: PING_TOKEN.size,
    Record.PATH_ACK: PROBE_TOKEN.size,
    Record.PATH_CHALLENGE: CHALLENGE_LEN,
    Record.PATH_RESPONSE: CHALLENGE_LEN,
    Record.BYE: 0,
    Record.LAN: LAN.size,
    Record.RECEPTION: RECEPTION.size,
}
"""Exact body lengths; a PATH_PROBE has its token and any number of zeros."""


def control_record(kind: Record, body: bytes = b"") -> bytes:
    """A whole control record."""
    return RECORD.pack(kind, 0, len(body)) + body


def path_probe(token: int, datagram_size: int) -> bytes:
    """A PATH_PROBE record that fills a datagram of `datagram_size` bytes."""
    body_len = datagram_size - DATA_OVERHEAD - RECORD_LEN
    return RECORD.pack(Record.PATH_PROBE, 0, body_len) + PROBE_TOKEN.pack(token).ljust(body_len, b"\0")

"""Witnesses: what tells a ring in our own LAN from a station that repeats the loop guard's probes.

A ring returns all that is flooded. A station can return what it chooses, and a probe is easy to know. So a probe of ours
that comes back is only a suspicion. The node then sends a *witness* into its LAN: a broadcast that looks like an ordinary
station's, an ARP probe (RFC 5227, section 2.1.1) for a random link-local address, which no host answers or learns from.

    ff x 6 | source | 08 06 | 0001 0800 06 04 0001 | source | 0.0.0.0 | 0 x 6 | 169.254.x.y

Only a witness that comes back within `WITNESS_TIME`, byte for byte, shows a ring. Its source stays the same while the node
runs, because switches may limit the addresses of a port; it cannot be told from the public key.

A station that repeats whatever is flooded is a ring for everybody in its LAN, and is taken for one.
"""

import hashlib

from l2overlay.addresses import MacAddress
from l2overlay.dataplane.ethernet import BROADCAST, plain
from l2overlay.seams import TapFrame

WITNESS_TIME = 0.5
"""Seconds. A ring returns a frame within milliseconds, unless a storm has filled every queue. And less than a probe's
interval: while no other probe has left, the bridge still knows by which port the last one came back."""
REPEATED_INTERVAL = 60.0
"""Seconds between two reports of a station that repeats probes."""
WITNESS_LEN = 42
CHANCE_LEN = 2

_ARP_PROBE = bytes.fromhex("0001080006040001")


class Witnesses:
    """Those of one node."""

    def __init__(self, key: bytes) -> None:
        """`key` is unpredictable."""
        digest = hashlib.blake2s(key, digest_size=6, person=b"l2owitn").digest()
        self.source = MacAddress(bytes([digest[0] & 0xFC | 0x02]) + digest[1:])
        self.waiting: dict[bytes, float] = {}
        """Each one that is on its way, and until when it counts; empty while nothing is amiss."""
        self.repeated = False
        """A probe came back and its witness did not: somebody repeats probes. The caller clears it."""

    def make(self, chance: bytes, now: float) -> TapFrame:
        """One more, with `CHANCE_LEN` unpredictable bytes."""
        target = bytes((169, 254, 1 + chance[0] % 254, chance[1]))
        frame = BROADCAST + self.source + b"\x08\x06" + _ARP_PROBE + self.source + bytes(10) + target
        self.waiting[frame] = now + WITNESS_TIME
        return plain(frame)

    def heard(self, frame: bytes, now: float) -> bool:
        """A frame, from its first byte on, is a witness that came back; the link may have padded it. It counts once."""
        return self.waiting.pop(frame[:WITNESS_LEN], now) > now

    def expire(self, now: float) -> None:
        """Notice those that did not come back."""
        for frame in [frame for frame, until in self.waiting.items() if until <= now]:
            del self.waiting[frame]
            self.repeated = True

    def forget(self) -> None:
        """Nobody asks any more."""
        self.waiting.clear()
        self.repeated = False

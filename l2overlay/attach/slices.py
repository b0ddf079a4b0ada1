"""Which part of a segment's IPv4 subnet a host may hand out to its guests. No two hosts get the same part.

Docker, podman and the CNI plugin `host-local` hand out addresses without asking other hosts. So the subnet is cut into
equal slices. Those that contain a configured address of any host are left to the hosts; the others go to the hosts in the
order of peers.toml. The same peers.toml gives the same slices on every host. A host that is added at the end of the file
gets a slice of its own, and the others keep theirs while there are free slices left.

A guest that is told its address (LXC, systemd-nspawn, a namespace) gets it from the upper half of the slice, because a
program that hands out addresses does not know of it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from l2overlay.errors import UsageError

MIN_SLICES = 8
"""So that a segment can grow to 7 hosts before the slices move: in a /24 each has 32 addresses then."""
MAX_PREFIX = 30
"""A slice has at least 4 addresses."""


@dataclass(frozen=True, slots=True)
class AddressSlice:
    """The addresses of one host in the subnet of the segment: one half for programs that hand out, one for static ones."""

    subnet: IPv4Network
    part: IPv4Network

    @property
    def pool(self) -> IPv4Network:
        """The lower half, for programs that hand out addresses."""
        return next(self.part.subnets())

    @property
    def gateway(self) -> IPv4Address:
        """An address of the pool that no guest gets. Docker wants to be told a gateway; nothing has this address."""
        return self.pool[0]

    @property
    def first(self) -> IPv4Address:
        """The first address of the pool for a guest."""
        return self.pool[1]

    @property
    def last(self) -> IPv4Address:
        """The last address of the pool."""
        return self.pool[-1]

    def static(self, guest: str) -> IPv4Address:
        """An address of the upper half for a guest that is told its own. Two names can share one, by chance."""
        _, half = self.part.subnets()
        count = half.num_addresses - (half[-1] == self.subnet[-1])  # the broadcast address is none
        digest = hashlib.blake2s(guest.encode(), person=b"l2o addr").digest()
        return half[int.from_bytes(digest, "big") % count]


def own_slice(
    subnet: IPv4Network, members: Sequence[str], host: str, configured: Iterable[IPv4Address]
) -> AddressSlice:
    """The slice of `host`, one of `members`. Raises UsageError if the subnet has too few addresses for all of them."""
    taken = [address for address in configured if address in subnet]
    bits = (max(MIN_SLICES, len(members) + 1) - 1).bit_length()
    for prefix in range(subnet.prefixlen + bits, MAX_PREFIX + 1):
        parts = _free_parts(subnet, prefix, taken, len(members))
        if len(parts) == len(members):
            return AddressSlice(subnet, parts[members.index(host)])
    raise UsageError(
        f"{subnet} has no room for {len(members)} slices of 4 addresses, one a host; use a larger subnet"
    )


def _free_parts(
    subnet: IPv4Network, prefix: int, taken: Sequence[IPv4Address], wanted: int
) -> list[IPv4Network]:
    """The first `wanted` slices without a configured address; the very first slice is left to static addresses."""
    found: list[IPv4Network] = []
    for position, part in enumerate(subnet.subnets(new_prefix=prefix)):
        if position and not any(address in part for address in taken):
            found.append(part)
        if len(found) == wanted:
            break
    return found

"""Who may claim which IP address: bindings from the configuration, from DHCP, and first come first served.

A binding from the configuration holds for ever and binds both ways: the address is that station's alone, and the station
has no others (but link-local ones). One from a DHCP server that we trust holds for its lease. Any other address belongs
to the station that claims it first, until it has not claimed it for `BINDING_TIME`.

Addresses are 4 or 16 bytes. What a port may fill is bounded: when the table is full, the port that holds most loses
its oldest binding.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from l2overlay.addresses import MacAddress
from l2overlay.dataplane.fdb import Port

BINDING_TIME = 600.0
"""Seconds. Hosts ask for each other's addresses every few minutes; a longer silence is a host that is off."""
MAX_BINDINGS = 16_384
"""As many as stations in the FDB, about 6 MiB."""
MAX_LEASE = 86_400.0 * 7


@dataclass(slots=True)
class Binding:
    """One address that was learned."""

    mac: MacAddress
    port: Port
    expiry: float
    leased: bool


class Bindings:
    """All addresses of a segment that one node knows the owner of."""

    def __init__(self, static: Mapping[MacAddress, Iterable[bytes]], max_entries: int = MAX_BINDINGS) -> None:
        self.max_entries = max_entries
        self._owners: dict[bytes, set[MacAddress]] = {}
        self._bound = frozenset(static)
        for mac, addresses in static.items():
            for address in addresses:
                self._owners.setdefault(address, set()).add(mac)
        self._learned: dict[bytes, Binding] = {}
        self._by_port: dict[Port, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._learned)

    def allows(self, address: bytes, mac: MacAddress, port: Port, now: float) -> bool:
        """Whether the station may claim the address; it is bound to it if it is free."""
        owners = self._owners.get(address)
        if owners is not None:
            return mac in owners
        if mac in self._bound and not _is_link_local(address):
            return False
        binding = self._learned.get(address)
        if binding is not None and binding.expiry > now:
            if binding.mac != mac:
                return False
            if binding.leased:
                return True
        self._bind(address, Binding(mac, port, now + BINDING_TIME, leased=False))
        return True

    def lease(self, address: bytes, mac: MacAddress, port: Port, lease_time: float, now: float) -> None:
        """A DHCP server that we trust gave the address to the station; whoever had it before has it no more."""
        if address not in self._owners:
            self._bind(address, Binding(mac, port, now + min(lease_time, MAX_LEASE), leased=True))

    def inherit(self, old: "Bindings") -> None:
        """Take over what was learned under an earlier configuration."""
        for address, binding in old._learned.items():
            if address not in self._owners and binding.mac not in self._bound:
                self._bind(address, binding)

    def forget(self, port: Port) -> None:
        """The port is no more: what was claimed or leased there is free."""
        for address in self._by_port.pop(port, {}):
            del self._learned[address]

    def end_leases(self, now: float) -> None:
        """Other servers are trusted now: a lease of those before them holds no longer than a claim."""
        for binding in self._learned.values():
            if binding.leased:
                binding.leased, binding.expiry = False, min(binding.expiry, now + BINDING_TIME)

    def _bind(self, address: bytes, binding: Binding) -> None:
        old = self._learned.pop(address, None)
        if old is not None:
            self._unlist(address, old.port)
        elif len(self._learned) >= self.max_entries:
            self._evict(binding.port)
        self._learned[address] = binding
        self._by_port.setdefault(binding.port, {})[address] = None

    def _evict(self, port: Port) -> None:
        # Whose own share is full gives way itself, without a look at all the others.
        own = self._by_port.get(port, {})
        if len(own) <= self.max_entries // (len(self._by_port) + 1):
            port = max(self._by_port, key=lambda each: len(self._by_port[each]))
        oldest = next(iter(self._by_port[port]))
        del self._learned[oldest]
        self._unlist(oldest, port)

    def _unlist(self, address: bytes, port: Port) -> None:
        listed = self._by_port[port]
        del listed[address]
        if not listed:
            del self._by_port[port]


def _is_link_local(address: bytes) -> bool:
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80

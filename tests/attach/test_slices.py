"""What a host may hand out: disjoint from what any other host hands out, and from what peers.toml gives to the hosts."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.attach.macs import free_mac
from l2overlay.attach.slices import MIN_SLICES, own_slice
from l2overlay.errors import UsageError

SUBNET = IPv4Network("10.9.0.0/24")


def names(count: int) -> list[str]:
    return [f"h{number}" for number in range(count)]


def test_two_hosts_in_a_24_have_an_eighth_each_and_leave_the_first_to_static_addresses() -> None:
    first = own_slice(SUBNET, ["alpha", "beta"], "alpha", [IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")])
    second = own_slice(SUBNET, ["alpha", "beta"], "beta", [IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")])
    assert [str(part.part) for part in (first, second)] == ["10.9.0.32/27", "10.9.0.64/27"]
    assert (str(first.gateway), str(first.first), str(first.last)) == ("10.9.0.32", "10.9.0.33", "10.9.0.47")


@given(
    count=st.integers(1, 40),
    prefix=st.integers(16, 24),
    configured=st.lists(st.integers(1, 254), max_size=5),
)
def test_slices_of_hosts_are_disjoint_and_hold_no_configured_address(
    count: int, prefix: int, configured: list[int]
) -> None:
    subnet = IPv4Network(f"10.0.0.0/{prefix}")
    taken = [subnet[number] for number in configured]
    try:
        slices = [own_slice(subnet, names(count), name, taken) for name in names(count)]
    except UsageError:
        assert prefix > 22  # only a small subnet with many hosts has no room
        return
    for position, own in enumerate(slices):
        assert own.part.subnet_of(subnet)
        assert not any(address in own.part for address in taken)
        assert not any(own.part.overlaps(other.part) for other in slices[:position])
        static = own.static("web")
        assert (
            subnet.network_address < own.gateway < own.first <= own.last < static < subnet.broadcast_address
        )
        assert all(address in own.pool for address in (own.gateway, own.first, own.last))
        assert static in own.part


def test_a_host_that_is_added_at_the_end_moves_no_slice_of_the_others() -> None:
    before = [own_slice(SUBNET, names(3), name, []) for name in names(3)]
    for count in range(4, MIN_SLICES):
        assert [own_slice(SUBNET, names(count), name, []) for name in names(3)] == before


def test_a_subnet_that_is_too_small_for_all_hosts_is_refused() -> None:
    with pytest.raises(UsageError, match=r"10\.9\.0\.0/28 has no room for 9 slices of 4 addresses"):
        own_slice(IPv4Network("10.9.0.0/28"), names(9), "h0", [])


def test_guests_that_are_told_their_addresses_get_different_ones_that_no_program_hands_out() -> None:
    own = own_slice(IPv4Network("10.0.0.0/16"), names(2), "h0", [])
    told = [own.static(f"guest{number}") for number in range(20)]
    assert len(set(told)) == 20
    assert not any(address in own.pool for address in told)
    assert own.static("guest0") == told[0]


def test_a_mac_is_the_same_each_time_and_another_for_another_guest_segment_or_host() -> None:
    key = bytes(range(32))
    mac = free_mac(key, "lan", "vm1", ())
    assert mac == free_mac(key, "lan", "vm1", ())
    others = [
        free_mac(key, "lan", "vm2", ()),
        free_mac(key, "dmz", "vm1", ()),
        free_mac(key[::-1], "lan", "vm1", ()),
    ]
    assert len({mac, *others}) == 4
    assert mac[0] & 3 == 2  # unicast, locally administered


def test_a_mac_that_the_segment_knows_is_not_given_out() -> None:
    key = bytes(range(32))
    known: set[bytes] = set()
    for _ in range(5):
        mac = free_mac(key, "lan", "vm1", known)
        assert mac not in known
        known.add(mac)

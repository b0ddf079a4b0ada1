"""What one LAN over three hosts does with frames, on an IPv4 and on an IPv6 underlay.

    h1 [br-lab]--tap--(node)===+===(node)--tap--[br-lab] h2
      |   |                    |                    |
     g1   g2      h3 (node)====+                   g3
                  [br-lab]--g4

One lab serves all tests of this file: none of them leaves anything behind but learned stations.
"""

import os
import socket
from collections.abc import Iterator

import pytest

from l2overlay.control.client import ask
from l2overlay.testing.lab import Guest, Lab
from tests.host.stations import (
    BROADCAST,
    EXPERIMENTAL,
    Ear,
    carry_tcp,
    carry_udp,
    carry_udp_super_frame,
    checksum_errors,
    frame,
    heard_by,
    mac_bytes,
    random_file,
    speak,
    status,
    tell_nodes,
)
from tests.linux.conftest import inside

MAX_PAYLOAD = 1500
ETHERTYPES = (
    0x0000,
    0x002E,
    0x05DC,
    0x0600,
    0x0806,
    0x22F0,
    0x8847,
    0x8863,
    0x8899,
    0x88B5,
    0x88CC,
    0x88F7,
    0xFFFF,
)
"""Length fields of 802.3, the gap between lengths and types, what other protocols use, what none does."""


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4 underlay", "IPv6 underlay"])
def net(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        h1, h2, h3 = lab.add_underlay(hosts=3)
        for host in (h1, h1, h2, h3):
            lab.add_guest(host)
        lab.write_peers_toml(family=request.param)
        lab.start_nodes()
        yield lab


@pytest.fixture(autouse=True)
def _what_the_nodes_say(net: Lab) -> Iterator[None]:
    yield
    tell_nodes(net)


@pytest.fixture
def marker() -> bytes:
    """Bytes that only this test's frames hold."""
    return os.urandom(16)


def meet(net: Lab, *pairs: tuple[Guest, Guest]) -> None:
    """Let the stations be learned on the whole way."""
    for a, b in pairs:
        assert net.ping(a, b.ipv4, count=2, interval=0.02).received > 0


# Everyone reaches everyone


def test_every_guest_pings_every_other_one_in_both_families(net: Lab) -> None:
    results = net.ping_matrix(count=5)
    assert len(results) == 24
    assert {pair: (r.lost, r.duplicates) for pair, r in results.items() if r.lost or r.duplicates} == {}


@pytest.mark.parametrize("family", [4, 6], ids=["ARP", "neighbour discovery"])
def test_addresses_are_resolved_across_hosts_with_one_question_and_one_answer(net: Lab, family: int) -> None:
    g1, g2, g3, g4 = net.guests
    meet(net, (g1, g3))
    for guest in (g1, g3):
        guest.ip("neigh flush dev eth0")
    asked, address = (b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", g3.ipv4) if family == 4 else (b"", g3.ipv6)
    if family == 6:
        asked = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:3")
    with Ear(g2) as near, Ear(g3) as far, Ear(g4) as third:
        assert net.ping(g1, address, count=1).received == 1
        assert [len(heard) for heard in heard_by(near, far, third, marker=asked, expected=1)] == [1, 1, 1]
    found = g1.run(["ip", "neigh", "show", address, "dev", "eth0"]).stdout
    assert f"lladdr {g3.mac}" in found


# Floods


@pytest.mark.parametrize(
    "destination",
    [BROADCAST, "01:00:5e:00:00:fb", "33:33:00:00:00:01", "03:00:00:00:00:01", "01:80:c2:00:00:00"],
    ids=["broadcast", "IPv4 multicast", "IPv6 multicast", "other multicast", "BPDU"],
)
def test_a_group_frame_arrives_exactly_once_at_every_other_guest(
    net: Lab, marker: bytes, destination: str
) -> None:
    g1, g2, g3, g4 = net.guests
    sent = [frame(destination, g1.mac, marker.ljust(size - 14, b"\0")) for size in (60, 1514)]
    with Ear(g1) as own, Ear(g2) as near, Ear(g3) as far, Ear(g4) as third:
        speak(g1, *sent)
        assert heard_by(near, far, third, marker=marker, expected=2) == [sent] * 3
        assert own.wait(marker, 0) == []


@pytest.mark.parametrize("last", [0x01, 0x02, 0x03, 0x0E, 0x0F])
def test_a_reserved_group_address_does_not_cross(net: Lab, marker: bytes, last: int) -> None:
    """Injected behind the bridge, which would stop it itself: as if it came from the TAP's own host."""
    h1, (_, _, g3, g4) = net.hosts[0], net.guests
    before = status(net.nodes[0])["drops"]["reserved_address"]
    with Ear(g3) as far, Ear(g4) as third:
        speak(h1, frame(f"01:80:c2:00:00:{last:02x}", "52:54:09:00:00:77", marker), link="tap-lab")
        assert heard_by(far, third, marker=marker) == [[], []]
    assert status(net.nodes[0])["drops"]["reserved_address"] == before + 1


def test_a_thousand_broadcasts_in_a_row_arrive_once_each_and_in_order(net: Lab, marker: bytes) -> None:
    g1, _, g3, g4 = net.guests
    sent = [frame(BROADCAST, g1.mac, marker + n.to_bytes(4)) for n in range(1000)]
    with Ear(g3) as far, Ear(g4) as third:
        for at in range(0, 1000, 50):
            speak(g1, *sent[at : at + 50])
        assert heard_by(far, third, marker=marker, expected=1000) == [sent, sent]


def test_an_unknown_unicast_is_flooded_and_a_known_one_is_not(net: Lab, marker: bytes) -> None:
    g1, g2, g3, g4 = net.guests
    stranger = f"52:54:09:{marker[0]:02x}:{marker[1]:02x}:01"
    there = frame(stranger, g1.mac, marker)
    back = frame(g1.mac, stranger, marker)
    with Ear(g1) as asker, Ear(g2) as near, Ear(g3) as far, Ear(g4) as third:
        speak(g1, there)
        assert heard_by(near, far, third, marker=marker, expected=1) == [[there]] * 3
        speak(g3, back)
        assert asker.heard(marker, expected=1) == [back]
        speak(g1, there, there)
        assert far.heard(marker, expected=2) == [there, there]
        assert near.wait(marker, 0) == third.wait(marker, 0) == []
    stations = {s["mac"]: s["peer"] for s in ask(net.nodes[0].run_dir / "control.sock", "fdb")["stations"]}
    assert stations[stranger] == "h2"


def test_a_guest_of_an_uninvolved_host_sees_nothing_of_a_learned_flow(net: Lab) -> None:
    g1, g2, g3, g4 = net.guests
    meet(net, (g1, g3))
    addresses = (mac_bytes(g1.mac), mac_bytes(g3.mac))
    with Ear(g2) as near, Ear(g4) as third:
        carry_tcp(g1, g3, random_file(4 << 20))
        assert net.ping(g1, g3.ipv4, count=50, interval=0.005).lost == 0
        overheard = [one for heard in heard_by(near, third) for one in heard]
    assert [one for one in overheard if one[:6] in addresses] == []


def test_a_station_that_moves_is_found_at_its_new_place_with_its_first_frame(net: Lab, marker: bytes) -> None:
    g1, _, g3, g4 = net.guests
    mover = f"52:54:09:{marker[0]:02x}:{marker[1]:02x}:02"
    to_it, hello = frame(mover, g1.mac, marker), frame(BROADCAST, mover, marker)
    with Ear(g1) as asker, Ear(g3) as old, Ear(g4) as new:
        speak(g3, hello)
        assert asker.heard(marker, expected=1) == [hello]
        speak(g4, hello)
        assert asker.heard(marker, expected=1) == [hello]
        speak(g1, to_it)
        assert [one for one in new.heard(marker, expected=2) if one != hello] == [to_it]
        assert to_it not in old.wait(marker, 0)


# Frames arrive as they were sent

VLAN_TAGS = {
    "VID 0": [bytes.fromhex("8100 0000")],
    "VID 0 with priority": [bytes.fromhex("8100 e000")],
    "VID 5": [bytes.fromhex("8100 0005")],
    "VID 4094, priority and drop eligible": [bytes.fromhex("8100 bffe")],
    "QinQ": [bytes.fromhex("88a8 0064"), bytes.fromhex("8100 00c8")],
    "two 802.1Q tags": [bytes.fromhex("8100 0064"), bytes.fromhex("8100 00c8")],
    "old QinQ type": [bytes.fromhex("9100 0007"), bytes.fromhex("8100 0008")],
}


@pytest.mark.parametrize("tags", VLAN_TAGS.values(), ids=VLAN_TAGS.keys())
@pytest.mark.parametrize("destination", ["broadcast", "unicast"])
def test_a_tagged_frame_arrives_byte_for_byte(
    net: Lab, marker: bytes, tags: list[bytes], destination: str
) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    target = BROADCAST if destination == "broadcast" else g3.mac
    # The sender's own kernel allows one tag on top of the MTU, if it is 802.1Q's.
    room = MAX_PAYLOAD - 4 * len(tags) + 4 * tags[0].startswith(b"\x81\x00")
    sent = [
        frame(target, g1.mac, marker + b"\xa5" * (size - len(marker)), tags=tags) for size in (30, 500, room)
    ]
    with Ear(g3) as far:
        speak(g1, *sent)
        assert far.heard(marker, expected=len(sent)) == sent


def test_stations_are_learned_per_vlan(net: Lab, marker: bytes) -> None:
    """One MAC on two hosts in two VLANs: two stations."""
    g1, _, g3, g4 = net.guests
    twin = f"52:54:09:{marker[0]:02x}:{marker[1]:02x}:03"
    red, blue = [bytes.fromhex("8100 000a")], [bytes.fromhex("8100 000b")]
    speak(g3, frame(BROADCAST, twin, b"red" + marker, tags=red))
    speak(g4, frame(BROADCAST, twin, b"blue" + marker, tags=blue))
    found = {(s["mac"], s["vlan"]): s["peer"] for s in _stations_with(net, twin, count=2)}
    assert found == {(twin, 10): "h2", (twin, 11): "h3"}
    # The Linux bridges know no VLANs, and the twin only once: speak and listen between them and the nodes.
    with Ear(net.hosts[1], "tap-lab") as far, Ear(net.hosts[2], "tap-lab") as third:
        speak(net.hosts[0], frame(twin, g1.mac, b"to red" + marker, tags=red), link="tap-lab")
        speak(net.hosts[0], frame(twin, g1.mac, b"to blue" + marker, tags=blue), link="tap-lab")
        heard = heard_by(far, third, marker=marker, expected=1)
    assert [[one[18:-16] for one in ear] for ear in heard] == [[b"to red"], [b"to blue"]]


def _stations_with(net: Lab, mac: str, count: int) -> list[dict[str, object]]:
    for _ in range(20):
        found = [s for s in ask(net.nodes[0].run_dir / "control.sock", "fdb")["stations"] if s["mac"] == mac]
        if len(found) == count:
            break
    return found


def test_every_ethertype_and_length_field_arrives_byte_for_byte(net: Lab, marker: bytes) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    body = b"\xaa\xaa\x03" + marker + b"\x5a" * 27
    sent = [frame(g3.mac, g1.mac, body, ethertype=ethertype) for ethertype in ETHERTYPES]
    with Ear(g3) as far:
        speak(g1, *sent)
        assert far.heard(marker, expected=len(sent)) == sent


def test_frames_of_every_length_arrive_byte_for_byte_with_their_padding(net: Lab, marker: bytes) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    sent = [
        frame(g3.mac, g1.mac, marker + os.urandom(size))
        for size in (*range(64), *range(1100, 1140), *range(1340, 1485))
    ]
    with Ear(g3) as far:
        for at in range(0, len(sent), 16):
            speak(g1, *sent[at : at + 16])
        assert far.heard(marker, expected=len(sent)) == sent


def test_a_frame_without_payload_arrives(net: Lab) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    bare = frame(g3.mac, g1.mac, b"", ethertype=0x88B6)
    with Ear(g3) as far:
        speak(g1, bare)
        assert bare in far.heard(bare, expected=1)


# Full size


@pytest.mark.parametrize(("family", "size"), [(4, 1472), (6, 1452)], ids=["IPv4", "IPv6"])
def test_pings_that_fill_the_guests_mtu_pass_unfragmented(net: Lab, family: int, size: int) -> None:
    g1, _, g3, _ = net.guests
    address = g3.ipv4 if family == 4 else g3.ipv6
    argv = ["ping", "-n", "-q", "-M", "do", "-s", str(size), "-c", "20", "-i", "0.01", "-W", "1", address]
    assert " 20 received" in g1.run(argv).stdout
    argv = ["ping", "-n", "-q", "-M", "do", "-s", str(size + 1), "-c", "1", "-W", "0.1", address]
    refused = g1.run(argv, check=False)
    assert refused.returncode != 0  # the probe is worth something: one byte more is too much for the guest


@pytest.mark.parametrize(("family", "size"), [(4, 1472), (6, 1452)], ids=["IPv4", "IPv6"])
def test_udp_that_fills_the_guests_mtu_passes(net: Lab, family: int, size: int) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    sent = [n.to_bytes(4) + os.urandom(size - 4) for n in range(200)]
    assert carry_udp(g1, g3, sent, family=family, pause=0.0005) == sent


def test_udp_super_frames_arrive_as_the_datagrams_that_they_are(net: Lab) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    payload = os.urandom(1400 * 40 + 300)
    received = carry_udp_super_frame(g1, g3, payload, 1400)
    assert [len(part) for part in received] == [1400] * 40 + [300]
    assert b"".join(received) == payload


# What the underlay shows


def test_the_underlay_carries_no_byte_of_a_file_that_the_guests_exchange(net: Lab, marker: bytes) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    canary = b"canary" + marker
    with (
        net.capture(g3, "eth0") as plain,
        net.capture(net.hosts[0], "under0") as one_end,
        net.capture(net.hosts[1], "under0") as other_end,
    ):
        carry_tcp(g1, g3, canary * (2 << 16))
        carry_udp(g3, g1, [canary * 60] * 100, pause=0.0005)
        speak(g1, frame(BROADCAST, g1.mac, canary))
    assert plain.contains(canary)
    for seen in (one_end, other_end):
        assert seen.dropped == 0
        assert seen.path.stat().st_size > 2 << 20
        assert not seen.contains(canary)
        assert not seen.contains(mac_bytes(g1.mac) + EXPERIMENTAL.to_bytes(2))


def test_no_guest_has_refused_anything_for_a_wrong_checksum(net: Lab) -> None:
    """Last on purpose: of all that the tests above have carried."""
    g1, _, g3, _ = net.guests
    carry_tcp(g1, g3, random_file(1 << 20))
    assert [checksum_errors(guest) for guest in net.guests] == [0, 0, 0, 0]


def test_a_wrong_checksum_would_have_been_counted(net: Lab) -> None:
    g1, _, g3, _ = net.guests
    meet(net, (g1, g3))
    before = checksum_errors(g3)
    with inside(g1):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with raw:
        raw.sendto(bytes.fromhex("1b581b58000c") + b"\xde\xad" + b"data", (g3.ipv4, 0))
    assert net.ping(g1, g3.ipv4, count=1).received == 1
    assert checksum_errors(g3) > before

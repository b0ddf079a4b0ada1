"""What a node says about itself, as data: names, units, and which peers count as trouble."""

import json
from dataclasses import replace

from l2overlay.addresses import Address, MacAddress, PeerKey
from l2overlay.config.types import Config, Endpoint, PeerConfig, SegmentConfig
from l2overlay.controlplane.overview import FdbEntry, PeerStatus
from l2overlay.controlplane.protection import LoopStatus, StormStatus
from l2overlay.counters import Counters, DropReason
from l2overlay.observe.status import NAMED_TROUBLES, NodeFacts, peer_troubles, stations_data, status_data

OWN, A, B = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
CONFIG = Config(
    SegmentConfig("lab", "br-lab", "tap-lab"),
    (
        PeerConfig("own", OWN),
        PeerConfig("a", A, Endpoint("a.example", 7470)),
        PeerConfig("b", B),
    ),
)
UP = PeerStatus(
    key=A,
    name="a",
    endpoint=Address("192.0.2.1", 7470),
    up=True,
    reason="",
    next_try=None,
    rtt=0.00031,
    last_heard=1.5,
    session_age=20.0,
    datagram_size=1472,
    path_too_small=False,
    cars=22,
    stations=2,
    queued_frames=0,
    counters=Counters(rx_frames=5, rx_bytes=5_000_000_000),
)
DOWN = replace(UP, up=False, reason="no answer", next_try=3.0, rtt=None, session_age=None, stations=0)
FACTS = NodeFacts(
    name="own",
    key=OWN,
    pid=1,
    uptime=5.0,
    port=7470,
    gso=True,
    gro=False,
    tap="tap-lab",
    tap_mac=MacAddress(b"\xfe\x00\x00\x00\x00\x01"),
    tap_present=True,
    offload=True,
    bridge="br-lab",
    bridge_ports=("tap-lab", "vm1"),
    bridge_adopted=True,
    lag_p50=0.0001,
    lag_p99=0.003,
    blocked_count=7,
    log_lines_lost=0,
)


def test_status_is_json_with_integers_for_bytes_and_seconds_for_times() -> None:
    data = json.loads(json.dumps(status_data(CONFIG, FACTS, Counters(), [UP]), allow_nan=False))
    assert data["state"] == "ok"
    assert data["peers"][0]["counters"]["rx_bytes"] == 5_000_000_000
    assert data["peers"][0]["last_heard"] == 1.5
    assert data["peers"][0]["rtt"] == 0.00031
    assert data["bridge"] == {"name": "br-lab", "ports": ["tap-lab", "vm1"], "adopted": True}
    assert data["underlay"] == {"port": 7470, "gso": True, "gro": False, "blocked": 7}


def test_every_drop_reason_is_there_even_when_it_has_not_occurred() -> None:
    counters = Counters()
    counters.drop(DropReason.NO_PEER, 3)
    drops = status_data(CONFIG, FACTS, counters, [])["drops"]
    assert drops.keys() == {reason.value for reason in DropReason}
    assert drops["no_peer"] == 3


def test_peer_that_is_down_shows_why_and_when_it_is_tried_again() -> None:
    peer = status_data(CONFIG, FACTS, Counters(), [DOWN])["peers"][0]
    assert (peer["state"], peer["reason"], peer["next_try"]) == ("down", "no answer", 3.0)


def test_name_that_does_not_resolve_is_the_reason_of_a_peer_that_is_down() -> None:
    facts = replace(FACTS, unresolved={A: ("a.example does not resolve", 9.0)})
    data = status_data(CONFIG, facts, Counters(), [replace(DOWN, endpoint=None)])
    assert (data["peers"][0]["reason"], data["peers"][0]["next_try"]) == ("a.example does not resolve", 9.0)
    assert data["peers"][0]["endpoint"] == "a.example:7470"
    assert data["degraded"] == ["peer a (a.example:7470) is down: a.example does not resolve"]


def test_peer_that_can_only_call_us_is_no_trouble_until_it_was_here() -> None:
    stranger = replace(DOWN, key=B, name="b", endpoint=None)
    assert peer_troubles(CONFIG, [stranger], {}) == []
    known = replace(stranger, endpoint=Address("198.51.100.7", 4500))
    assert peer_troubles(CONFIG, [known], {}) == ["peer b (198.51.100.7:4500) is down: no answer"]


def test_many_troubles_are_summed_up() -> None:
    troubles = peer_troubles(CONFIG, [DOWN] * 100, {})
    assert len(troubles) == NAMED_TROUBLES + 1
    assert troubles[-1] == f"{100 - NAMED_TROUBLES} more peers are down"


def test_host_trouble_makes_the_state_degraded() -> None:
    data = status_data(CONFIG, replace(FACTS, troubles=("br-lab is gone",)), Counters(), [UP])
    assert (data["state"], data["degraded"]) == ("degraded", ["br-lab is gone"])


def test_station_names_its_peer_and_the_local_side_is_null() -> None:
    mac = MacAddress(b"RT\x00\x00\x00\x01")
    found = stations_data(CONFIG, [FdbEntry(mac, 0, A, False, 1.0), FdbEntry(mac, 7, None, True, 0.0)])
    assert found == [
        {"mac": "52:54:00:00:00:01", "vlan": 0, "peer": "a", "static": False, "age": 1.0},
        {"mac": "52:54:00:00:00:01", "vlan": 7, "peer": None, "static": True, "age": 0.0},
    ]


# -- loops and storms ------------------------------------------------------------------------------------------


def test_a_node_in_peace_tells_of_no_loop_and_no_storm() -> None:
    data = status_data(CONFIG, FACTS, Counters(), [UP])
    assert (data["loops"], data["storms"], data["state"]) == ([], [], "ok")


def test_a_second_path_degrades_and_names_both_ends_and_who_carries() -> None:
    facts = replace(FACTS, loops=(LoopStatus(A, OWN, 2.0), LoopStatus(None, OWN, 1.0)))
    data = status_data(CONFIG, facts, Counters(), [UP])
    assert data["state"] == "degraded"
    assert data["loops"][0] == {"peer": "a", "carrier": "own", "since": 2.0}
    assert data["degraded"] == [
        "loop: a second path joins the LAN of this host with that of a; own carries for both",
        "loop: the LAN of this host is a ring; nothing is flooded between it and the overlay",
    ]


def test_a_storm_degrades_and_names_its_port() -> None:
    facts = replace(
        FACTS, storms=(StormStatus(A, "broadcast", 9, 3.0), StormStatus(None, "multicast", 1, 0.1))
    )
    data = status_data(CONFIG, facts, Counters(), [UP])
    assert data["storms"][1] == {"peer": None, "kind": "multicast", "dropped": 1, "since": 0.1}
    assert data["degraded"] == [
        "storm: broadcast from a; 9 frames dropped in 3 s",
        "storm: multicast from this host; 1 frames dropped in 0 s",
    ]


def test_a_path_that_is_too_small_degrades_the_node_and_says_what_to_do() -> None:
    small = replace(UP, path_too_small=True)
    status = status_data(CONFIG, FACTS, Counters(), [small])
    (trouble,) = status["degraded"]
    assert (status["state"], status["peers"][0]["path_too_small"]) == ("degraded", True)
    assert "path to peer a (192.0.2.1:7470) does not carry datagrams of 1200 bytes" in trouble
    assert "raise the MTU of the underlay" in trouble
    assert status_data(CONFIG, FACTS, Counters(), [replace(small, up=False)])["degraded"][0].startswith(
        "peer a"
    )


def test_one_key_on_two_hosts_degrades_the_node_and_names_both_addresses() -> None:
    two = replace(UP, two_hosts=(Address("192.0.2.1", 7470), Address("198.51.100.9", 7471)))
    data = status_data(CONFIG, FACTS, Counters(), [two])
    assert data["state"] == "degraded"
    (trouble,) = data["degraded"]
    assert "a answers at 192.0.2.1:7470 and at 198.51.100.9:7471" in trouble


def test_another_mtu_at_a_peer_degrades_the_node_and_says_where_it_stands_and_what_to_do() -> None:
    (trouble,) = status_data(CONFIG, FACTS, Counters(), [replace(UP, mtu=9000)])["degraded"]
    assert trouble.startswith("mtu: 9000 at peer a, 1500 here; larger frames than 1500 do not pass")
    assert (
        "make mtu in [segment] equal in both peers.toml, and restart the node whose file you changed"
        in trouble
    )
    for same in (1500, 0):  # 0: an older version, which does not tell it
        assert status_data(CONFIG, FACTS, Counters(), [replace(UP, mtu=same)])["degraded"] == []

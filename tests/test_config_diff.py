"""What a reload would change."""

from dataclasses import replace
from ipaddress import ip_interface

from l2overlay.addresses import PeerKey, parse_mac
from l2overlay.config.diff import diff_configs
from l2overlay.config.types import Config, Endpoint, PeerConfig, SegmentConfig, Suite

ALPHA = PeerConfig("alpha", PeerKey(b"a" * 32), Endpoint("192.0.2.1", 7470))
BETA = PeerConfig("beta", PeerKey(b"b" * 32))
SEGMENT = SegmentConfig("lan", "br-lan", "tap-lan")
OLD = Config(SEGMENT, (ALPHA, BETA))


def test_equal_configurations_differ_in_nothing() -> None:
    diff = diff_configs(OLD, Config(replace(SEGMENT), (BETA, ALPHA)))
    assert not diff
    assert diff.lines() == []


def test_peers_are_told_apart_by_key() -> None:
    rekeyed = replace(BETA, public_key=PeerKey(b"c" * 32))
    diff = diff_configs(OLD, Config(SEGMENT, (ALPHA, rekeyed)))
    assert (diff.added, diff.removed, diff.changed) == ((rekeyed,), (BETA,), ())
    assert diff.lines() == ["- peer beta", "+ peer beta"]


def test_changed_fields_of_a_peer_are_named_with_both_values() -> None:
    moved = replace(
        ALPHA,
        endpoint=Endpoint("2001:db8::1", 1),
        macs=(parse_mac("52:54:00:00:00:01"),),
        persistent_keepalive=0.0,
    )
    diff = diff_configs(OLD, Config(SEGMENT, (moved, replace(BETA, name="bravo"))))
    assert [change.fields for change in diff.changed] == [
        ("endpoint", "macs", "persistent_keepalive"),
        ("name",),
    ]
    assert diff.lines() == [
        "peer alpha: endpoint 192.0.2.1:7470 -> [2001:db8::1]:1",
        "peer alpha: macs none -> 52:54:00:00:00:01",
        "peer alpha: persistent_keepalive 20 s -> 0 s",
        "peer beta: name beta -> bravo",
    ]


def test_segment_changes_say_which_need_a_restart() -> None:
    new = replace(
        SEGMENT,
        bridge="br0",
        mtu=9000,
        suite=Suite.CHACHAPOLY,
        psk=b"s" * 32,
        addresses={"alpha": (ip_interface("10.9.0.1/24"),)},
    )
    diff = diff_configs(OLD, Config(new, OLD.peers))
    assert diff.segment == ("bridge", "mtu", "suite", "psk", "addresses")
    assert diff.restart == ("bridge", "mtu", "suite", "psk")
    assert diff.lines() == [
        "segment: bridge br-lan -> br0 (needs a restart)",
        "segment: mtu 1500 -> 9000 (needs a restart)",
        "segment: suite AESGCM -> CHACHAPOLY (needs a restart)",
        "segment: psk changed (needs a restart)",
        "segment: addresses none -> alpha 10.9.0.1/24",
    ]

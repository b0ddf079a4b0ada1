"""Which segment the doctor looks at: what a file says, and what a node that runs says better."""

from typing import Any

from l2overlay.config.read import parse_config
from l2overlay.doctor.subject import segment_of_config, with_node

FILE = """[segment]
name = "lan"
mtu = 9000
listen = 7000

[[peers]]
name = "alpha"
public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
endpoint = "192.0.2.1:7471"

[[peers]]
name = "beta"
public_key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
endpoint = "[2001:db8::2]:7472"

[[peers]]
name = "roamer"
public_key = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
"""
STATUS = {
    "segment": "lan",
    "node": "alpha",
    "mtu": 1500,
    "degraded": ["the TAP is gone"],
    "tap": {"name": "tap-x"},
    "bridge": {"name": "br-x"},
    "underlay": {"port": 7999},
    "peers": [
        {"name": "beta", "endpoint": "[2001:db8::2]:7472", "up": False, "reason": "no answer"},
        {"name": "roamer", "endpoint": None, "up": False, "reason": None},
    ],
}


def test_the_own_stanza_is_that_with_an_address_of_this_host() -> None:
    config = parse_config(FILE, "lan.toml", base_dir=None)
    here = segment_of_config(config, ["127.0.0.1", "192.0.2.1"])
    assert (here.bridge, here.tap, here.mtu, here.port) == ("br-lan", "tap-lan", 9000, 7471)
    assert [(peer.name, peer.host, peer.port) for peer in here.peers] == [
        ("beta", "2001:db8::2", 7472),
        ("roamer", None, None),
    ]


def test_a_host_that_is_in_no_stanza_listens_on_the_segment_s_port() -> None:
    config = parse_config(FILE, "lan.toml", base_dir=None)
    elsewhere = segment_of_config(config, ["198.51.100.7"])
    assert elsewhere.port == 7000
    assert len(elsewhere.peers) == 3


def test_a_running_node_knows_better_than_the_file() -> None:
    config = parse_config(FILE, "lan.toml", base_dir=None)
    stations: list[dict[str, Any]] = [
        {"mac": "52:54:00:00:00:01", "peer": "beta"},
        {"mac": "52:54:00:00:00:02", "peer": None},
    ]
    segment = with_node(segment_of_config(config, []), STATUS, stations)
    assert (segment.bridge, segment.tap, segment.mtu, segment.port) == ("br-x", "tap-x", 1500, 7999)
    assert [(p.name, p.host, p.port, p.up, p.reason) for p in segment.peers] == [
        ("beta", "2001:db8::2", 7472, False, "no answer"),
        ("roamer", None, None, False, ""),
    ]
    assert segment.node is not None
    assert segment.node.troubles == ("the TAP is gone",)
    assert segment.node.stations == {"52:54:00:00:00:01": "beta", "52:54:00:00:00:02": None}

"""Where the ways to the peers lead: past the bridge, into it and out of another port, or back by the TAP."""

import pytest

from l2overlay.addresses import Address
from l2overlay.node import way
from l2overlay.node.underlay import Path
from l2overlay.node.way import BACK_TIME, HEAR_TIME, OwnBridge, Way, Ways

PEER = Address("198.51.100.2", 7470)
BRIDGE, ETH0 = Path("br-lan", "192.0.2.1"), Path("eth0", "192.0.2.1")


class Host:
    """What the kernel knows of the next hop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = ""
        self.ports: tuple[str, ...] = ("tap-lan", "eth1")
        monkeypatch.setattr(way, "next_hop", lambda host, _scope: (3, host))
        monkeypatch.setattr(way, "neighbour", lambda _link, _host: b"\x02" * 6)
        monkeypatch.setattr(way, "station_port", lambda _bridge, _mac: self.port)
        self.bridge = OwnBridge("br-lan", "tap-lan", lambda: self.ports)
        self.ways = Ways(self.bridge)

    def way(self, link: str = "br-lan") -> Way:
        return self.bridge.way_of(PEER, link)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_route_by_another_link_is_outside_and_one_by_the_tap_comes_back(host: Host) -> None:
    assert (host.way("eth0"), host.way(""), host.way("tap-lan")) == (Way.OUTSIDE, Way.OUTSIDE, Way.BACK)


@pytest.mark.parametrize(
    ("port", "found"), [("tap-lan", Way.BACK), ("eth1", Way.BY_BRIDGE), ("", Way.UNKNOWN)]
)
def test_in_the_bridge_the_port_of_the_next_hop_decides(host: Host, port: str, found: Way) -> None:
    host.port = port
    assert host.way() is found


def test_in_a_bridge_without_another_port_every_way_comes_back(host: Host) -> None:
    host.ports = ("tap-lan",)
    assert host.way() is Way.BACK


def test_a_way_that_came_back_counts_so_until_its_next_hop_is_heard_elsewhere_or_a_minute_is_over(
    host: Host,
) -> None:
    host.port = "tap-lan"
    host.ways.learn(PEER, BRIDGE, 0.0)
    assert host.ways.back() == {PEER.host}
    host.port = ""
    host.ways.learn(PEER, BRIDGE, BACK_TIME - 1)
    assert host.ways.back() == {PEER.host}
    host.ways.learn(PEER, BRIDGE, BACK_TIME)
    assert host.ways.back() == frozenset()
    host.port = "tap-lan"
    host.ways.learn(PEER, BRIDGE, BACK_TIME + 1)
    host.port = "eth1"
    host.ways.learn(PEER, BRIDGE, BACK_TIME + 2)
    assert host.ways.back() == frozenset()
    assert host.ways.by_bridge() == {("192.0.2.1", PEER)}


def test_a_next_hop_that_is_not_heard_is_told_after_some_seconds(host: Host) -> None:
    host.ways.learn(PEER, BRIDGE, 0.0)
    assert host.ways.unheard(HEAR_TIME - 0.1) == frozenset()
    assert host.ways.unheard(HEAR_TIME) == {PEER.host}
    assert host.ways.doubtful() == [PEER]
    host.ways.learn(PEER, ETH0, HEAR_TIME)
    assert host.ways.doubtful() == []
    assert host.ways.by_bridge() == frozenset()


def test_a_peer_that_called_a_second_address_is_answered_from_there_and_looked_for_with_both(
    host: Host,
) -> None:
    host.ways.learn(PEER._replace(local="192.0.2.99"), BRIDGE, 0.0)
    assert host.ways.by_bridge() == {("192.0.2.1", PEER), ("192.0.2.99", PEER)}

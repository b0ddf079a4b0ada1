"""The quick way of a lone frame does what the ordinary way does, and is left as soon as it would not."""

import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2overlay.addresses import Address
from l2overlay.config.types import ProtectConfig, StormConfig, StormLimit
from l2overlay.controlplane import liveness
from l2overlay.controlplane.handshake import RESP_TYPE
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane import microflows
from l2overlay.dataplane.gate import FilterGate
from l2overlay.dataplane.link import Link
from l2overlay.dataplane.microflows import MAX_AGE, MAX_FLOWS, Microflows
from l2overlay.dataplane.session import Session
from l2overlay.dataplane.wire import Record
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame
from tests.bench.inmemory import Mesh
from tests.dataplane.super_frames import partial_frame

MACS = [bytes((2, 0, 0, 0, 0, n)) for n in range(4)]
BROADCAST = b"\xff" * 6
PLAIN = bytes(10)


class Net(Mesh):
    """Nodes in memory. `hub` is node 0."""

    def __init__(self, spokes: int = 2, protect: ProtectConfig | None = None) -> None:
        super().__init__(spokes, protect)
        self.nodes = [self.hub, *self.spokes]
        for node in self.nodes:
            node.frames_to_deliver()

    def send(self, source: int, frame: bytes, step: float = 0.01) -> list[list[bytes]]:
        """A frame from the TAP of `source`, a moment later; returns what each TAP gets."""
        self.pass_time(step)
        self.nodes[source].receive_frames([TapFrame(frame)], self.now)
        return self.arrived()

    def pass_time(self, step: float) -> None:
        self.now += step
        for node in self.nodes:
            while node.next_timer() <= self.now:
                node.handle_timer(self.now)
        while self.exchange():
            pass

    def arrived(self) -> list[list[bytes]]:
        while self.exchange():
            pass
        return [[b"".join(frame) for frame in node.frames_to_deliver()] for node in self.nodes]


def frame(source: int, destination: int, body: bytes = b"\x08\x00" + bytes(50)) -> bytes:
    """From one station to another; as destination 9 is everybody."""
    return PLAIN + (BROADCAST if destination == 9 else MACS[destination]) + MACS[source] + body


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ "out" and "in" for each frame that went the quick way."""
    taken: list[str] = []
    seal, unpack = Microflows.seal, Microflows.unpack_untrusted

    def noted_seal(self: Microflows, frame: TapFrame, now: float) -> Burst | None:
        burst = seal(self, frame, now)
        taken.extend(["out"] * (burst is not None))
        return burst

    def noted_unpack(
        self: Microflows, plaintext: bytes, link: Link, session: Session, address: Address, now: float
    ) -> bytes | None:
        found = unpack(self, plaintext, link, session, address, now)
        taken.extend(["in"] * (found is not None))
        return found

    monkeypatch.setattr(Microflows, "seal", noted_seal)
    monkeypatch.setattr(Microflows, "unpack_untrusted", noted_unpack)
    return taken


def acquainted(spokes: int = 1, protect: ProtectConfig | None = None) -> Net:
    """Station 0 behind the hub and station 1 behind the first spoke have spoken."""
    net = Net(spokes, protect)
    net.send(0, frame(0, 9))
    net.send(1, frame(1, 0))
    net.send(0, frame(0, 1))
    net.send(1, frame(1, 0))
    return net


# -- the same as the ordinary way ----------------------------------------------------------------------------------------

BODIES = (b"\x08\x00" + bytes(50), b"\x81\x00\x00\x05\x08\x00" + bytes(46), b"\x08\x00", b"")
KINDS: tuple[Callable[[bytes], bytes], ...] = (
    lambda plain: plain,
    lambda plain: partial_frame("udp4", 30)[:10] + plain[10:22] + partial_frame("udp4", 30)[22:],
    lambda plain: b"\x01" + plain[1:],  # a checksum to be filled in before the frame begins
    lambda plain: plain + bytes(1300),
    lambda plain: plain[:20],
)
STEPS = st.sampled_from((0.0, 0.004, 0.3, 1.1))
SENT = st.tuples(
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from((0, 1, 2, 3, 9)),
    st.integers(0, 4),
    st.integers(0, 3),
    STEPS,
)


def run(
    script: list[tuple[int, int, int, int, int, float]],
) -> tuple[list[list[list[bytes]]], list[Counters]]:
    """What arrives, frame by frame, and what was counted."""
    net = Net()
    arrived = [
        net.send(node, KINDS[kind](frame(source, destination, BODIES[body])), step)
        for node, source, destination, kind, body, step in script
    ]
    return arrived, [node.total_counters() for node in net.nodes]


@settings(deadline=None, max_examples=40)
@given(st.lists(SENT, max_size=40))
def test_same_frames_arrive_and_the_same_is_counted_with_and_without_it(
    script: list[tuple[int, int, int, int, int, float]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microflows, "MAX_AGE", 0.0)
        ordinary = run(script)
    assert run(script) == ordinary


def test_a_conversation_goes_the_quick_way_in_both_directions(quick: list[str]) -> None:
    net = acquainted()
    quick.clear()
    for _ in range(10):
        assert net.send(0, frame(0, 1)) == [[], [frame(0, 1)]]
        assert net.send(1, frame(1, 0)) == [[frame(1, 0)], []]
    assert quick == ["out", "in"] * 20


def test_partial_checksum_stays_partial(quick: list[str]) -> None:
    net = acquainted()
    sent = KINDS[1](frame(0, 1))
    for _ in range(3):
        assert net.send(0, sent) == [[], [sent]]
    assert quick[-2:] == ["out", "in"]


# -- left when it must be --------------------------------------------------------------------------------------------------


def test_once_a_second_the_ordinary_way_refreshes_the_ages(
    quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "PING_INTERVAL", 1e6)  # PINGs that go with frames would bring it about, too
    net = acquainted()
    for _ in range(40):
        net.send(0, frame(0, 1), 0.1)
        net.send(1, frame(1, 0), 0.0)
        ages = [entry.age for node in net.nodes for entry in node.stations(net.now)]
        assert max(ages) <= MAX_AGE + 0.11
    assert 0.7 < quick.count("out") / 80 < 1
    assert 0.7 < quick.count("in") / 80 < 1


def test_pings_go_with_frames_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microflows, "MAX_AGE", 1e6)
    net = acquainted()
    before = net.hub.total_counters()
    for _ in range(200):
        net.send(0, frame(0, 1), 0.05)
    after = net.hub.total_counters()
    pongs = after.rx_datagrams - before.rx_datagrams
    assert 9 <= pongs <= 25  # one a second, and keepalives of the other end
    assert after.tx_datagrams - before.tx_datagrams <= 200 + 15  # those PINGs left in the datagrams of frames


def test_a_station_that_moves_is_followed_at_once() -> None:
    net = acquainted(2)
    net.send(2, frame(1, 9))  # station 1 is behind the second spoke now
    assert net.send(0, frame(0, 1)) == [[], [], [frame(0, 1)]]


def test_a_station_whose_move_came_among_other_frames_is_followed_at_once() -> None:
    net = acquainted(2)
    net.now += 0.01
    net.spokes[1].receive_frames([TapFrame(frame(1, 9)), TapFrame(frame(1, 9))], net.now)
    net.arrived()
    assert net.send(0, frame(0, 1)) == [[], [], [frame(0, 1)]]


def test_a_station_that_is_heard_here_in_the_same_batch_is_not_looked_for_elsewhere() -> None:
    net = acquainted()
    net.now += 0.01
    net.hub.receive_frames([TapFrame(frame(0, 1)), TapFrame(frame(1, 9))], net.now)
    net.arrived()
    assert net.send(0, frame(0, 1)) == [[], []]
    assert net.hub.total_counters().drops == {DropReason.LOCAL_DESTINATION: 1}


def test_frames_of_a_station_that_lives_elsewhere_are_judged_anew() -> None:
    net = acquainted()
    net.send(0, frame(1, 9))  # station 1 is behind the hub now
    assert net.send(1, frame(0, 1)) == [[frame(0, 1)], []]  # and station 0 behind the spoke
    assert net.send(0, frame(1, 0)) == [[], [frame(1, 0)]]
    assert net.hub.total_counters().drops == {}


def test_a_peer_that_leaves_gets_nothing(quick: list[str]) -> None:
    net = acquainted()
    quick.clear()
    net.spokes[0].leave(net.now)
    net.arrived()
    net.send(0, frame(0, 1), 0.0)
    assert quick == []
    assert net.hub.total_counters().drops == {DropReason.NO_PEER: 1}


def test_a_filter_sees_every_frame(quick: list[str]) -> None:
    net = acquainted()
    net.hub.gate = FilterGate(lambda: None)
    quick.clear()
    net.send(0, frame(0, 1))
    net.send(0, frame(0, 1))
    assert "out" not in quick


@pytest.mark.parametrize("guard", [{"arp_spoof_guard": True}, {"ethertypes_deny": frozenset({0x88CC})}])
def test_guards_see_every_frame(quick: list[str], guard: dict[str, Any]) -> None:
    acquainted(1, ProtectConfig(**guard))
    assert quick == []


def test_damaged_and_repeated_datagrams_are_counted_once() -> None:
    net = acquainted()
    net.hub.receive_frames([TapFrame(frame(0, 1))], net.now)
    (burst,) = net.hub.bursts_to_send()
    data = b"".join(burst.buffers)

    def arrive(datagram: bytes) -> dict[DropReason, int]:
        before = dict(net.spokes[0].total_counters().drops)
        net.spokes[0].receive_datagrams([Burst(net.addresses[0], len(datagram) or 1, [datagram])], net.now)
        after = net.spokes[0].total_counters().drops
        return {
            reason: count - before.get(reason, 0)
            for reason, count in after.items()
            if count != before.get(reason, 0)
        }

    assert arrive(data[:-1] + bytes((data[-1] ^ 1,))) == {DropReason.BAD_TAG: 1}
    assert arrive(data[:20]) == {DropReason.BAD_LENGTH: 1}
    assert arrive(data) == {}
    assert arrive(data) == {DropReason.REPLAYED: 1}
    assert arrive(b"") == {DropReason.BAD_LENGTH: 1}
    assert net.arrived()[1] == [frame(0, 1)]


def test_storm_control_counts_every_broadcast(quick: list[str]) -> None:
    limit = StormLimit(10, 4e6, burst_time=1.0)
    net = acquainted(1, ProtectConfig(storm=StormConfig(broadcast=limit), loop_guard=False))
    net.hub.reconfigure(replace(net.hub._config, protect=None), net.now)  # it lets everything through
    net.send(0, frame(0, 1))
    quick.clear()
    arrived = [net.send(0, frame(0, 9), 0.001)[1] for _ in range(30)]
    assert 8 <= sum(map(len, arrived)) <= 20
    assert quick == []


def test_guards_that_come_later_see_every_frame(quick: list[str]) -> None:
    net = acquainted()
    config = replace(net.hub._config, protect=ProtectConfig(arp_spoof_guard=True))
    net.hub.reconfigure(config, net.now)
    quick.clear()
    net.send(0, frame(0, 1))
    net.send(1, frame(1, 0))
    assert "in" not in quick[-1:]
    assert quick.count("out") <= 1, "the spoke's own"


def test_a_frame_that_is_too_long_is_refused_though_its_flow_is_known() -> None:
    net = acquainted()
    (spoke_of_hub,) = net.hub._members
    assert spoke_of_hub.link.current is not None
    long = frame(0, 1, b"\x08\x00" + bytes(1600))[10:]
    record = struct.pack("<BBH", Record.FRAME, 0, len(long)) + long
    data = b"".join(spoke_of_hub.link.current.seal([record]))
    net.spokes[0].receive_datagrams([Burst(net.addresses[0], len(data), [data])], net.now)
    assert net.arrived()[1] == []
    assert net.spokes[0].total_counters().drops == {DropReason.GIANT_FRAME: 1}


def test_flows_are_bounded() -> None:
    net = acquainted()
    link = next(iter(net.hub._members)).link
    flows = net.hub._microflows
    for number in range(3 * MAX_FLOWS):
        flows.went_out(TapFrame(PLAIN + number.to_bytes(16, "big")), link, net.now)
        flows.came_in(PLAIN + number.to_bytes(16, "big"), link, net.now)
    assert len(flows._out) <= MAX_FLOWS
    assert len(flows._in) <= MAX_FLOWS


def lone_datagram(net: Net) -> bytes:
    """Of the frame from station 0 to station 1, on its way from the hub."""
    net.hub.receive_frames([TapFrame(frame(0, 1))], net.now)
    (burst,) = net.hub.bursts_to_send()
    return b"".join(burst.buffers)


def functions_called(work: Callable[[], object]) -> list[str]:
    """Of ours, beneath `work`."""
    names: list[str] = []

    def note(called: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            names.append(called.f_code.co_qualname)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return names[1:]


def test_a_lone_frame_of_a_known_flow_calls_six_functions_out_and_five_in() -> None:
    """More of them cost it microseconds, because it meets cold caches."""
    net = acquainted()
    frames = [TapFrame(frame(0, 1))]
    out = functions_called(lambda: net.hub.receive_frames(frames, net.now))
    (burst,) = net.hub.bursts_to_send()
    arriving = [Burst(net.addresses[0], burst.datagram_size, [b"".join(burst.buffers)])]
    back = functions_called(lambda: net.spokes[0].receive_datagrams(arriving, net.now))
    assert net.arrived()[1] == [frame(0, 1)]
    assert (len(out), len(back)) == (6, 5), (out, back)


def test_a_frame_from_a_new_address_is_answered_by_a_challenge() -> None:
    net = acquainted()
    data, elsewhere = lone_datagram(net), Address("192.0.2.77", 1)
    spoke = net.spokes[0]
    spoke.receive_datagrams([Burst(elsewhere, len(data), [data])], net.now)
    assert [burst.address for burst in spoke.bursts_to_send()] == [elsewhere]


def test_a_frame_confirms_a_session_when_the_ping_before_it_is_lost() -> None:
    net = acquainted()
    (hub_of_spoke,) = net.spokes[0]._members
    (spoke_of_hub,) = net.hub._members
    spoke_of_hub.start_handshake(net.now)
    (init,) = net.hub.bursts_to_send()
    net.spokes[0].receive_datagrams([Burst(net.addresses[0], init.datagram_size, init.buffers)], net.now)
    resp = next(burst for burst in net.spokes[0].bursts_to_send() if burst.buffers[0][0] == RESP_TYPE)
    net.hub.receive_datagrams([Burst(net.addresses[1], resp.datagram_size, resp.buffers)], net.now)
    net.hub.bursts_to_send()  # the PING that would confirm it
    (waiting,) = hub_of_spoke.link.next
    hub_of_spoke.liveness.expects_frames = True
    data = lone_datagram(net)
    net.spokes[0].receive_datagrams([Burst(net.addresses[0], len(data), [data])], net.now)
    assert hub_of_spoke.link.current is waiting
    assert net.arrived()[1] == [frame(0, 1)]


def test_a_frame_tells_that_more_are_to_be_expected() -> None:
    net = acquainted()
    (hub_of_spoke,) = net.spokes[0]._members
    hub_of_spoke._send_ping(net.now)
    assert not hub_of_spoke.liveness.expects_frames
    net.send(0, frame(0, 1), 0.0)
    assert hub_of_spoke.liveness.expects_frames


def test_each_of_many_frames_read_together_is_counted() -> None:
    net = acquainted()
    net.hub.receive_frames([TapFrame(frame(0, 1))] * 3, net.now)
    assert net.arrived()[1] == [frame(0, 1)] * 3


def test_first_frame_behind_a_new_session_is_still_heard(quick: list[str]) -> None:
    """The responder's new session counts only once a datagram came under it."""
    net = acquainted()
    hub: Overlay = net.hub
    for _ in range(30):
        net.pass_time(5.0)  # past a rekey
    net.send(1, frame(1, 9))
    net.send(0, frame(0, 1))
    quick.clear()
    assert net.send(0, frame(0, 1)) == [[], [frame(0, 1)]]
    assert all(
        peer.up and peer.session_age is not None and peer.session_age < 130 for peer in hub.peers(net.now)
    )

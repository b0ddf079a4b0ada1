"""One peer from its node's side: when it is called, when it is up, what waits for it, when its session is replaced."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from l2overlay.addresses import Address, MacAddress
from l2overlay.controlplane.dialling import (
    DOWN_SPREAD,
    DOWN_TIME,
    FIRST_RETRIES,
    FIRST_RETRY,
    LATER_RETRY,
    MAX_PENDING,
    REKEY_SPREAD,
    REKEY_TIME,
    RESPONDER_REKEY_TIME,
    SILENCE_TIME,
    UNANSWERED_EVERY,
    UNANSWERED_FROM,
)
from l2overlay.controlplane.events import PeerDown, PeerMoved, PeerUnanswered, PeerUp
from l2overlay.controlplane.handshake import FEATURE_LAN, FEATURE_TRAIN
from l2overlay.controlplane.local import INIT_RATE
from l2overlay.controlplane.paths import FOLLOW_TIME
from l2overlay.controlplane.peer import UNCONFIRMED_INITS, UNHEARD_TIME
from l2overlay.controlplane.roaming import CHALLENGE_BURST, CHALLENGE_INTERVAL
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import plain
from l2overlay.dataplane.session import REJECT_TIME
from l2overlay.dataplane.waiting import MAX_QUEUED_BYTES, MAX_QUEUED_FRAMES, QUEUE_TIME
from l2overlay.dataplane.wire import LAN, RECEPTION, Record, control_record
from l2overlay.seams import TapFrame

from .far_end import DATA, FAR_ADDRESS, INIT, RESP, FarEnd, NearEnd, config_of

NEAR, FAR = b"\x11" * 32, b"\x22" * 32
BOUND = MacAddress(bytes.fromhex("525400aabbcc"))
STATION = bytes.fromhex("525400000001")


@pytest.fixture
def near() -> NearEnd:
    return NearEnd(NEAR, config_of(NEAR, FAR))


@pytest.fixture
def far(near: NearEnd) -> FarEnd:
    return FarEnd(FAR, near.key)


def call(near: NearEnd, far: FarEnd) -> None:
    """The node learns where the peer is."""
    near.overlay.set_endpoint(far.context.public_key, FAR_ADDRESS, near.now)


def inits(sent: list[tuple[float, bytes]]) -> list[float]:
    return [time for time, datagram in sent if datagram[0] == INIT]


def frame_to(destination: bytes, size: int = 60) -> TapFrame:
    return plain((destination + STATION + b"\x88\xb5").ljust(size, b"\0"))


def records(far: FarEnd, sent: list[tuple[float, bytes]]) -> list[Record]:
    return [kind for _, datagram in sent if datagram[0] == DATA for kind, _ in far.open(datagram)]


def talk_back(near: NearEnd, far: FarEnd, seconds: float) -> list[tuple[float, bytes]]:
    """Let time pass while the far end answers every PING; returns what the node sent."""
    sent, end = [], near.now + seconds
    while near.now < end:
        due = near.overlay.next_timer()
        step = min(max(due - near.now, 0.0), end - near.now)
        batch = near.wait(step)
        sent += batch
        for _, datagram in batch:
            if datagram[0] == DATA:
                for kind, body in far.open(datagram):
                    if kind is Record.PING:
                        near.receive(far.control(Record.PONG, body))
                    elif kind is Record.PATH_PROBE:
                        near.receive(far.control(Record.PATH_ACK, body[:4]))
    return sent


# -- calling -----------------------------------------------------------------------------------------------------


def test_a_peer_is_called_at_once_when_its_endpoint_is_known_and_never_before(
    near: NearEnd, far: FarEnd
) -> None:
    assert near.wait(100.0) == []
    call(near, far)
    assert len(inits(near.wait(0.0))) == 1


def test_a_silent_peer_is_called_fast_first_and_then_slower_and_never_in_step(
    near: NearEnd, far: FarEnd
) -> None:
    call(near, far)
    times = inits(near.wait(60.0))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    fast, slow = gaps[: FIRST_RETRIES - 1], gaps[FIRST_RETRIES - 1 :]
    assert all(0.8 * FIRST_RETRY <= gap <= 1.2 * FIRST_RETRY for gap in fast)
    assert all(0.8 * LATER_RETRY <= gap <= 1.2 * LATER_RETRY for gap in slow)
    assert len({round(gap, 3) for gap in slow}) > 10


def test_a_silent_peer_is_reported_at_its_third_init_and_at_every_eighth_after(
    near: NearEnd, far: FarEnd
) -> None:
    call(near, far)
    near.wait(60.0)
    attempts = [event.attempts for event in near.events() if isinstance(event, PeerUnanswered)]
    assert attempts[:3] == [
        UNANSWERED_FROM,
        UNANSWERED_FROM + UNANSWERED_EVERY,
        UNANSWERED_FROM + 2 * UNANSWERED_EVERY,
    ]
    assert near.status().reason.startswith("no answer to ")
    assert near.status().next_try is not None


def test_many_silent_peers_are_called_less_often_so_that_all_inits_stay_below_the_rate() -> None:
    keys = [bytes([i, 1]) * 16 for i in range(200)]
    near = NearEnd(NEAR, config_of(NEAR, *keys))
    for i, key in enumerate(keys):
        near.overlay.set_endpoint(
            FarEnd(key, near.key).context.public_key, Address("192.0.2.3", i + 1), near.now
        )
    near.wait(20.0)
    calls = inits(near.wait(60.0))
    assert 0.7 * INIT_RATE <= len(calls) / 60.0 <= 1.1 * INIT_RATE


def test_the_answer_to_any_of_the_last_four_inits_is_taken_and_to_an_older_one_not(
    near: NearEnd, far: FarEnd
) -> None:
    call(near, far)
    sent = [datagram for _, datagram in near.wait(4.0) if datagram[0] == INIT]
    assert len(sent) > MAX_PENDING
    assert near.receive(far.answer(sent[-MAX_PENDING - 1])) == []
    assert not near.status().up
    oldest_that_counts = near.receive(far.answer(sent[-MAX_PENDING]))
    assert near.status().up
    assert [kind for kind, _ in far.open(oldest_that_counts[0][1])] == [Record.PING]
    near.receive(far.answer(sent[-1]))
    assert near.drops(DropReason.UNKNOWN_SESSION) == 2, "one answer ends them all"


def test_a_cookie_makes_the_node_call_again_at_once_with_mac2(near: NearEnd, far: FarEnd) -> None:
    loaded = NearEnd(FAR, config_of(FAR, NEAR))
    loaded.overlay._members._under_load_until = near.now + 100.0
    call(near, far)
    ((_, first),) = near.wait(0.0)
    assert first[-16:] == bytes(16)
    ((_, cookie),) = loaded.receive(first)
    near.receive(cookie)
    ((_, second),) = near.wait(0.0)
    assert second[-16:] != bytes(16)
    near.receive(cookie)
    assert near.wait(0.0) == [], "a second cookie is no reason to hurry"


# -- up and down -------------------------------------------------------------------------------------------------


def test_as_initiator_the_peer_is_up_with_its_resp_and_gets_a_ping_at_once(
    near: NearEnd, far: FarEnd
) -> None:
    call(near, far)
    ((_, init),) = near.wait(0.0)
    ((address, confirmation),) = near.receive(far.answer(init))
    assert address == FAR_ADDRESS
    assert [kind for kind, _ in far.open(confirmation)] == [Record.PING]
    assert near.events() == [PeerUp(far.context.public_key, FAR_ADDRESS)]


def test_as_responder_the_peer_is_up_with_its_first_datagram_and_nothing_is_sent_before(
    near: NearEnd, far: FarEnd
) -> None:
    ((_, resp),) = near.receive(far.init())
    near.overlay.receive_frames([frame_to(b"\xff" * 6)], near.now)
    assert near.sent() == []
    assert near.drops(DropReason.NO_PEER) == 1
    far.receive_resp(resp)
    near.receive(far.seal())
    assert near.events() == [PeerUp(far.context.public_key, FAR_ADDRESS)]
    assert near.status().endpoint == FAR_ADDRESS


def test_a_ping_is_answered_in_kind(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    ((_, answer),) = near.receive(far.control(Record.PING, b"12345678"))
    assert far.open(answer) == [(Record.PONG, b"12345678")]


def test_a_peer_that_says_bye_is_down_and_is_called_again_soon(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    near.receive(far.control(Record.BYE))
    assert near.events()[-1] == PeerDown(far.context.public_key, "it left")
    assert len(inits(near.wait(DOWN_SPREAD))) == 1
    assert near.receive(far.seal()) == []
    assert near.drops(DropReason.UNKNOWN_SESSION) == 1


def test_a_silent_peer_is_asked_by_pings_then_by_inits_and_is_down_six_seconds_after_the_first_ping(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    talk_back(near, far, 5.0)
    near.overlay.receive_frames([frame_to(b"\xff" * 6)], near.now)
    ((_, first),) = near.sent()
    asked = near.now
    assert [kind for kind, _ in far.open(first)] == [Record.FRAME, Record.PING]
    sent = near.wait(DOWN_TIME - 0.01)
    assert near.status().up
    pings = [time for time, d in sent if d[0] == DATA and Record.PING in [kind for kind, _ in far.open(d)]]
    assert len(pings) > 20
    calls = inits(sent)
    assert calls[0] == pytest.approx(asked + SILENCE_TIME, abs=0.001)
    assert len(calls) >= UNANSWERED_FROM
    near.wait(0.02)
    assert near.events()[-1] == PeerDown(far.context.public_key, "no answer")


def test_answers_that_wait_in_the_socket_are_read_before_a_late_verdict(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    talk_back(near, far, 5.0)
    near.overlay.receive_frames([frame_to(b"\xff" * 6)], near.now)
    near.sent()
    sent = near.wait(DOWN_TIME - 0.01)
    pings = [record for _, d in sent if d[0] == DATA for record in far.open(d) if record[0] == Record.PING]
    near.now += 1.0
    near.overlay.receive_frames([frame_to(b"\xff" * 6)], near.now)
    near.receive(far.seal(control_record(Record.PONG, pings[-1][1])))
    near.overlay.handle_timer(near.now)
    assert near.status().up


def test_a_pong_ends_the_asking_and_what_is_merely_heard_does_not(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    talk_back(near, far, 5.0)
    near.overlay.receive_frames([frame_to(b"\xff" * 6)], near.now)
    near.sent()
    near.wait(SILENCE_TIME - 0.1)
    near.receive(far.seal())
    assert len(inits(near.wait(0.2))) == 1, "it was heard, and is asked nevertheless"
    ping = next(
        body for _, d in near.wait(0.5) if d[0] == DATA for kind, body in far.open(d) if kind is Record.PING
    )
    near.receive(far.control(Record.PONG, ping))
    assert inits(talk_back(near, far, 30.0)) == []
    assert near.status().up


def test_a_peer_that_calls_again_and_again_and_answers_no_ping_does_not_hear_us(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    talk_back(near, far, 5.0)
    for _ in range(UNCONFIRMED_INITS):
        assert near.status().up
        near.receive(far.init())
        near.wait(UNHEARD_TIME / (UNCONFIRMED_INITS - 2))
    assert near.events()[-1] == PeerDown(far.context.public_key, "it does not hear us")


def test_inits_in_vain_do_not_take_a_peer_down_that_answers_pings(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    established = far.session
    for _ in range(10 * UNCONFIRMED_INITS):
        near.receive(far.init())
        far.session = established
        talk_back(near, far, 0.5)
    assert near.status().up


def test_an_expired_session_takes_the_peer_down(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    near.now += REJECT_TIME
    near.wait(0.0)
    assert near.events()[-1] == PeerDown(far.context.public_key, "its session expired")


# -- sessions ----------------------------------------------------------------------------------------------------


def test_the_initiator_of_a_session_replaces_it_in_time(near: NearEnd, far: FarEnd) -> None:
    call(near, far)
    ((_, init),) = near.wait(0.0)
    ((_, confirmation),) = near.receive(far.answer(init))
    near.receive(far.control(Record.PONG, far.open(confirmation)[0][1]))
    (first, *_) = inits(talk_back(near, far, REKEY_TIME + 0.1))
    assert REKEY_TIME - REKEY_SPREAD <= first - 1000.0 <= REKEY_TIME


def test_the_responder_of_a_session_replaces_it_when_the_initiator_does_not(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    (first, *_) = inits(talk_back(near, far, RESPONDER_REKEY_TIME + 0.1))
    assert RESPONDER_REKEY_TIME - REKEY_SPREAD <= first - 1000.0 <= RESPONDER_REKEY_TIME


def test_the_session_before_still_opens_what_was_under_way(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    late = far.control(Record.PING, b"12345678")
    far.dial(near)
    ((_, answer),) = near.receive(late)
    assert far.open(answer) == [(Record.PONG, b"12345678")], "it opens, and the answer goes under the new one"


def test_a_session_that_waits_for_its_initiator_is_not_forgotten_for_the_next_three(
    near: NearEnd, far: FarEnd
) -> None:
    ((_, resp),) = near.receive(far.init())
    far.receive_resp(resp)
    for _ in range(MAX_PENDING - 1):
        near.receive(far.init())
    near.receive(far.seal())
    assert near.status().up
    assert len(near.overlay._local.links.sessions) == 1, "the others are gone"


def test_sessions_of_a_peer_do_not_pile_up(near: NearEnd, far: FarEnd) -> None:
    for _ in range(20):
        far.dial(near)
    for _ in range(20):
        near.receive(far.init())
    assert len(near.overlay._local.links.sessions) <= 1 + 3 + MAX_PENDING


# -- frames that wait --------------------------------------------------------------------------------------------


def bound_to_far() -> NearEnd:
    """A node whose file binds a station to the peer."""
    config = config_of(NEAR, FAR)
    own, peer = config.peers
    return NearEnd(NEAR, replace(config, peers=(own, replace(peer, macs=(BOUND,)))))


def test_frames_for_a_bound_station_wait_for_the_session_and_leave_in_order() -> None:
    near = bound_to_far()
    far = FarEnd(FAR, near.key)
    call(near, far)
    ((_, init),) = near.wait(0.0)
    frames = [frame_to(BOUND, size=60 + i) for i in range(10)]
    near.overlay.receive_frames(frames, near.now)
    assert near.status().queued_frames == 10
    near.wait(QUEUE_TIME - 0.1)
    sent = near.receive(far.answer(init))
    arrived = [body for _, datagram in sent for kind, body in far.open(datagram) if kind is Record.FRAME]
    assert arrived == [bytes(frame[10:]) for frame in frames]


def test_frames_that_wait_too_long_or_are_too_many_are_dropped_with_the_reason() -> None:
    near = bound_to_far()
    far = FarEnd(FAR, near.key)
    call(near, far)
    near.overlay.receive_frames([frame_to(BOUND)] * (MAX_QUEUED_FRAMES + 3), near.now)
    assert near.drops(DropReason.QUEUE_FULL) == 3
    near.wait(QUEUE_TIME)
    assert near.drops(DropReason.QUEUE_TIMEOUT) == MAX_QUEUED_FRAMES
    assert near.status().queued_frames == 0
    large = [frame_to(BOUND, size=1500)] * (MAX_QUEUED_FRAMES - 1)
    near.overlay.receive_frames(large, near.now)
    assert near.status().queued_frames == min(len(large), MAX_QUEUED_BYTES // 1510)


def test_frames_for_a_peer_without_an_endpoint_do_not_wait() -> None:
    near = bound_to_far()
    near.overlay.receive_frames([frame_to(BOUND)], near.now)
    assert near.drops(DropReason.PEER_DOWN) == 1


# -- addresses ---------------------------------------------------------------------------------------------------

ELSEWHERE = Address("198.51.100.9", 4711)


def test_a_datagram_from_elsewhere_is_questioned_there_and_traffic_moves_with_the_answer(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    near.events()
    ((address, question),) = near.receive(far.seal(bytes(12)), source=ELSEWHERE)
    assert address == ELSEWHERE
    ((kind, token),) = far.open(question)
    assert kind is Record.PATH_CHALLENGE
    assert near.status().endpoint == FAR_ADDRESS
    near.receive(far.control(Record.PATH_RESPONSE, token), source=ELSEWHERE)
    assert near.status().endpoint == ELSEWHERE
    assert PeerMoved(far.context.public_key, FAR_ADDRESS, ELSEWHERE) in near.events()


def test_an_answer_from_another_place_or_with_another_token_moves_nothing(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    ((_, question),) = near.receive(far.seal(bytes(12)), source=ELSEWHERE)
    ((_, token),) = far.open(question)
    near.receive(far.control(Record.PATH_RESPONSE, token), source=FAR_ADDRESS)
    near.receive(far.control(Record.PATH_RESPONSE, bytes(8)), source=ELSEWHERE)
    assert near.status().endpoint == FAR_ADDRESS


def test_one_address_is_questioned_once_per_interval(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    assert len(near.receive(*[far.seal(bytes(12)) for _ in range(10)], source=ELSEWHERE)) == 1
    near.wait(CHALLENGE_INTERVAL)
    assert len(near.receive(far.seal(bytes(12)), source=ELSEWHERE)) == 1


def test_a_question_is_answered_to_where_it_came_from(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    answers = near.receive(far.control(Record.PATH_CHALLENGE, b"12345678"), source=ELSEWHERE)
    assert (ELSEWHERE, [(Record.PATH_RESPONSE, b"12345678")]) in [(a, far.open(d)) for a, d in answers]


def test_an_insider_gets_one_answer_for_many_questions_to_an_address_that_nobody_proved(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    question = b"".join(control_record(Record.PATH_CHALLENGE, bytes([n]) * 8) for n in range(120))
    answers = [d for address, d in near.receive(far.seal(question), source=ELSEWHERE) if address == ELSEWHERE]
    assert [kind for d in answers for kind, _ in far.open(d)].count(Record.PATH_RESPONSE) == 1
    assert sum(map(len, answers)) < len(question) / 10


@pytest.mark.parametrize("kind", [Record.PATH_CHALLENGE, Record.PING, Record.PATH_PROBE, Record.PADDING])
def test_what_an_insider_has_sent_to_others_has_a_rate_and_is_no_larger_than_what_it_sends(
    near: NearEnd, far: FarEnd, kind: Record
) -> None:
    """One datagram each from 200 addresses that it made up."""
    far.dial(near)
    body = bytes(8)
    asked = sent = count = 0
    for n in range(200):
        datagram = far.control(kind, body)
        asked += len(datagram)
        victims = [
            d for address, d in near.receive(datagram, source=Address("198.51.100.9", n)) if address[1] == n
        ]
        count += len(victims)
        sent += sum(map(len, victims))
        assert sent <= asked + 44
    assert count <= 2 * CHALLENGE_BURST


@pytest.mark.parametrize("length", [0, 4, 11])
def test_a_datagram_that_is_shorter_than_a_question_is_not_followed_by_one(
    near: NearEnd, far: FarEnd, length: int
) -> None:
    far.dial(near)
    assert near.receive(far.seal(bytes(length)), source=ELSEWHERE) == []


def test_one_who_repeats_datagrams_from_elsewhere_does_not_spoil_the_question_to_the_genuine_address(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    ((_, question),) = near.receive(far.seal(bytes(12)), source=ELSEWHERE)
    near.receive(far.seal(bytes(12)), source=Address("203.0.113.66", 666))
    near.receive(far.control(Record.PATH_RESPONSE, far.open(question)[0][1]), source=ELSEWHERE)
    assert near.status().endpoint == ELSEWHERE


AT_SECOND = FAR_ADDRESS._replace(local="192.0.2.99")


def test_who_calls_another_of_our_addresses_is_answered_from_there_from_the_first_word_on(
    near: NearEnd, far: FarEnd
) -> None:
    ((address, resp),) = near.receive(far.init(), source=AT_SECOND)
    assert address == AT_SECOND
    far.receive_resp(resp)
    sent = near.receive(far.seal(), source=AT_SECOND)
    assert near.status().endpoint == AT_SECOND
    assert {address for address, _ in sent} == {AT_SECOND}


def test_a_peer_that_begins_to_call_another_of_our_addresses_is_answered_from_there_a_second_later(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    near.events()
    assert near.receive(far.seal(bytes(12)), source=AT_SECOND) == []
    near.wait(FOLLOW_TIME)
    ((address, question),) = near.receive(far.seal(bytes(12)), source=AT_SECOND)
    assert address == AT_SECOND
    ((_, token),) = far.open(question)
    near.receive(far.control(Record.PATH_RESPONSE, token), source=AT_SECOND)
    assert near.status().endpoint == AT_SECOND
    assert not [event for event in near.events() if isinstance(event, PeerMoved)]


def test_a_silent_peer_that_once_called_our_second_address_is_called_from_both_in_turn(
    near: NearEnd, far: FarEnd
) -> None:
    _, resp = near.receive(far.init(), source=AT_SECOND)[0]
    far.receive_resp(resp)
    near.receive(far.seal(), source=AT_SECOND)
    near.receive(far.control(Record.BYE), source=AT_SECOND)
    near.sent()
    called = []
    for _ in range(60):
        near.now += 0.1
        near.overlay.handle_timer(near.now)
        called += [address for address, datagram in near.sent() if datagram[0] == INIT]
    assert called[:4] == [AT_SECOND, FAR_ADDRESS, AT_SECOND, FAR_ADDRESS]


def test_a_peer_that_went_down_is_called_where_the_file_says_and_not_where_it_was(
    near: NearEnd, far: FarEnd
) -> None:
    call(near, far)
    near.wait(0.0)
    far.dial(near)
    ((_, question),) = near.receive(far.seal(bytes(12)), source=ELSEWHERE)
    near.receive(far.control(Record.PATH_RESPONSE, far.open(question)[0][1]), source=ELSEWHERE)
    near.wait(0.0)
    assert near.status().endpoint == ELSEWHERE
    near.receive(far.control(Record.BYE))
    assert near.status().endpoint == FAR_ADDRESS


def test_probing_a_peer_that_is_up_asks_it_and_one_that_is_down_calls_it_now(
    near: NearEnd, far: FarEnd
) -> None:
    far.dial(near)
    near.overlay.probe_peers(near.now)
    ((_, question),) = near.sent()
    assert Record.PING in [kind for kind, _ in far.open(question)]
    near.receive(far.control(Record.BYE))
    near.overlay.probe_peers(near.now)
    assert len(inits(near.wait(0.0))) == 1


# -- what was held back ----------------------------------------------------------------------------------------------------


def restarted(near: NearEnd, far: FarEnd) -> FarEnd:
    """The peer's next run, which is up, some time after the one before."""
    near.wait(5.0)
    again = FarEnd(FAR, near.key, stamp=far.stamp + 1000, random=Random(7), features=far.features)
    again.dial(near)
    near.events()
    return again


def test_a_bye_of_a_former_session_does_not_take_the_present_one_down(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    held_back = far.control(Record.BYE)
    again = restarted(near, far)
    sent = near.receive(held_back)
    assert near.status().up
    assert near.events() == []
    assert any(again.open(datagram) for _, datagram in sent), "but it is asked whether it is there"
    near.receive(again.control(Record.BYE))
    assert not near.status().up


def test_a_lan_record_of_a_former_session_changes_nothing(near: NearEnd, far: FarEnd) -> None:
    far.features = FEATURE_LAN
    far.dial(near)
    held_back = far.control(Record.LAN, LAN.pack(b"o" * 32, 0))
    again = restarted(near, far)
    near.receive(again.control(Record.LAN, LAN.pack(b"n" * 32, 0)))
    known = near.overlay._protection.loop._lans[far.context.public_key]
    near.receive(held_back)
    assert near.overlay._protection.loop._lans[far.context.public_key] == known


def test_a_reception_of_a_former_session_changes_nothing(near: NearEnd, far: FarEnd) -> None:
    far.features = FEATURE_TRAIN
    far.dial(near)
    held_back = [far.control(Record.RECEPTION, RECEPTION.pack(1024, 1024)) for _ in range(3)]
    restarted(near, far)
    near.receive(*held_back)
    assert near.status().cars == 1


def test_a_ping_of_a_former_session_does_not_put_off_ours(near: NearEnd, far: FarEnd) -> None:
    far.dial(near)
    held_back = far.control(Record.PING, b"12345678")
    again = restarted(near, far)
    for _, datagram in near.sent():
        again.open(datagram)
    (peer,) = near.overlay._members
    peer.liveness.answered(near.now)
    due = peer.liveness.deadline()
    near.receive(held_back)
    assert peer.liveness.deadline() == due


def test_the_first_datagram_of_a_former_run_does_not_replace_the_present_session(
    near: NearEnd, far: FarEnd
) -> None:
    """Its handshake was answered, its PING was held back; then the peer was restarted, and the node called it."""
    far.receive_resp(next(d for _, d in near.receive(far.init(near.now)) if d[0] == RESP))
    held_back = far.control(Record.PING, b"12345678")
    near.wait(5.0)
    again = FarEnd(FAR, near.key, stamp=far.stamp + 1000, random=Random(7))
    near.overlay.set_endpoint(far.context.public_key, FAR_ADDRESS, near.now)
    init = next(d for _, d in near.wait(0.1) if d[0] == INIT)
    near.receive(again.answer(init))
    assert near.status().up
    near.receive(held_back)
    (peer,) = near.overlay._members
    assert peer.link.current is not None
    assert again.session is not None
    assert peer.link.current.remote_index == again.session.local_index


def test_a_node_that_leaves_says_so_under_every_session_that_the_peer_may_use(
    near: NearEnd, far: FarEnd
) -> None:
    """Both ends called at the same moment: each sends under another session."""
    far.dial(near)
    (peer,) = near.overlay._members
    peer.start_handshake(near.now)
    (init,) = [d for _, d in near.sent() if d[0] == INIT]
    first = far.session
    near.receive(far.answer(init))
    near.overlay.leave(near.now)
    sent = [d for _, d in near.sent()]
    second, far.session = far.session, first
    assert second is not first
    assert [(Record.BYE, b"")] in [far.open(d) for d in sent]
    far.session = second
    assert [(Record.BYE, b"")] in [far.open(d) for d in sent]

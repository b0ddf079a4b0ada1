"""scapy as an independent codec: it reads what we write, we read what it writes, and it survives what nobody would write."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l2overlay.addresses import Address, PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import CookieChecker, CookieHolder, mac1_of
from l2overlay.controlplane.handshake import (
    HandshakeContext,
    initiate,
    receive_init_untrusted,
    receive_resp_untrusted,
    respond,
)
from l2overlay.counters import Counters
from l2overlay.dataplane import wire
from l2overlay.dataplane.inbox import Inbox
from l2overlay.dataplane.outbox import Outbox
from l2overlay.dataplane.session import Session
from l2overlay.errors import L2OverlayError
from l2overlay.observe import scapy_layer
from l2overlay.observe.scapy_layer import (
    Bye,
    Cookie,
    Data,
    Datagram,
    Fragment,
    Frame,
    Init,
    Lan,
    Padding,
    PathAck,
    PathChallenge,
    PathProbe,
    PathResponse,
    Ping,
    Plaintext,
    Pong,
    Reception,
    Resp,
    Slice,
    Train,
    Unknown,
    open_data,
    open_train,
    seal_data,
    seal_train,
    trains_in,
)
from l2overlay.seams import TapFrame

SEND_KEY, RECEIVE_KEY = b"\x01" * 32, b"\x02" * 32
ADDRESS = Address("192.0.2.1", 7470)
PLAIN = bytes(10)

both_suites = pytest.mark.parametrize("suite", list(Suite), ids=lambda s: s.name)


def a_session(suite: Suite = Suite.AESGCM) -> Session:
    return Session(
        PeerKey(bytes(32)),
        suite,
        send_key=SEND_KEY,
        receive_key=RECEIVE_KEY,
        local_index=0x11223344,
        remote_index=0x55667788,
        initiator=True,
        created_time=0.0,
        address=ADDRESS,
    )


def receive(*plaintexts: Any) -> tuple[list[bytes], list[tuple[wire.Record, bytes]]]:
    counters = Counters()
    received = Inbox(counters).receive_untrusted([bytes(plaintext) for plaintext in plaintexts], 0.0)
    assert counters.drops == {}
    return [b"".join(frame) for frame in received.frames], received.controls


def records_of(plaintexts: Sequence[bytes]) -> list[Any]:
    records = []
    for plaintext in plaintexts:
        read = Plaintext(plaintext)
        assert bytes(read) == plaintext
        records += read.records
    return records


def tcp_super_frame(payload: bytes) -> Any:
    """Built by scapy, with what the kernel leaves to do in its virtio header; the partial sum is not looked at here."""
    frame = Ether(dst="52:54:00:00:00:02", src="52:54:00:00:00:01") / IP(src="10.0.0.1", dst="10.0.0.2")
    return frame / TCP(sport=40_000, dport=42_000, seq=1000, flags="PA") / Raw(payload)


VIRTIO_TCP4 = bytes.fromhex("0101 3600 a805 2200 1000")


# -- what we write, scapy reads --------------------------------------------------------------------------------------------


@both_suites
def test_handshake_of_ours_is_read_field_by_field_and_built_again(suite: Suite) -> None:
    left, right = (HandshakeContext.create(bytes([n]) * 32, suite, "lan") for n in (1, 2))
    pending = initiate(left, right.public_key, sender=0xAABBCCDD, stamp=5, features=0, ephemeral=b"\x03" * 32)
    init = Datagram(pending.datagram)
    assert type(init) is Init
    assert (init.type, init.suite, init.reserved, init.sender) == (1, suite, 0, 0xAABBCCDD)
    assert init.mac1 == mac1_of(pending.datagram)
    assert init.mac2 == bytes(16)
    rebuilt = Init(**{field.name: getattr(init, field.name) for field in Init.fields_desc})
    received = receive_init_untrusted(right, bytes(rebuilt))

    datagram, keys = respond(right, received, sender=7, features=0, ephemeral=b"\x04" * 32)
    resp = Datagram(datagram)
    assert type(resp) is Resp
    assert (resp.type, resp.suite, resp.sender, resp.receiver) == (2, suite, 7, 0xAABBCCDD)
    rebuilt = Resp(**{field.name: getattr(resp, field.name) for field in Resp.fields_desc})
    assert receive_resp_untrusted(left, pending, bytes(rebuilt))[0].receive == keys.send


def test_cookie_of_ours_is_read_and_built_again() -> None:
    left, right = (HandshakeContext.create(bytes([n]) * 32, Suite.AESGCM, "lan") for n in (1, 2))
    pending = initiate(left, right.public_key, sender=9, stamp=5, features=0, ephemeral=b"\x03" * 32)
    datagram = CookieChecker(right.public_key).reply(pending.datagram, b"here", 0.0, lambda n: b"\x07" * n)
    cookie = Datagram(datagram)
    assert type(cookie) is Cookie
    assert (cookie.reserved, cookie.receiver, cookie.nonce) == (bytes(3), 9, b"\x07" * 24)
    rebuilt = Cookie(**{field.name: getattr(cookie, field.name) for field in Cookie.fields_desc})
    holder = CookieHolder(right.public_key)
    holder.receive_untrusted(bytes(rebuilt), pending.mac1, 0.0)
    assert holder.cookie(0.0) is not None


@both_suites
def test_data_of_ours_is_opened_by_scapy_with_the_key(suite: Suite) -> None:
    session = a_session(suite)
    session.send_counter = 0x0102030405
    header, ciphertext = session.seal([wire.control_record(wire.Record.PING, b"\x01" + bytes(7))])
    data = Datagram(header + ciphertext)
    assert type(data) is Data
    assert (data.type, data.reserved) == (4, 0)
    assert (data.receiver, data.counter) == (0x55667788, 0x0102030405)
    (ping,) = open_data(data, SEND_KEY, suite).records
    assert (type(ping), ping.token) == (Ping, 1)
    with pytest.raises(InvalidTag):
        open_data(data, RECEIVE_KEY, suite)


@both_suites
def test_train_of_ours_is_opened_by_scapy_with_the_key(suite: Suite) -> None:
    session = a_session(suite)
    session.send_counter = 0x0102030405
    plaintext = wire.control_record(wire.Record.PING, b"\x01" + bytes(7)) * 100
    train = bytes(session.seal_train(plaintext, 300))
    cars = [Datagram(train[at : at + 300]) for at in range(0, len(train), 300)]
    assert [type(car) for car in cars] == [Train] * 5
    assert [(car.type, car.index, car.count, car.reserved) for car in cars] == [
        (5, i, 5, 0) for i in range(5)
    ]
    assert {(car.receiver, car.counter) for car in cars} == {(0x55667788, 0x0102030405)}
    assert b"".join(bytes(car) for car in cars) == train
    assert {ping.token for ping in open_train(reversed(cars), SEND_KEY, suite).records} == {1}
    for wrong in (cars[1:], cars[:-1]):
        with pytest.raises(InvalidTag):
            open_train(wrong, SEND_KEY, suite)
    with pytest.raises(InvalidTag):
        open_train(cars, RECEIVE_KEY, suite)


def test_whole_trains_are_found_in_a_capture_among_all_else() -> None:
    session = a_session()
    trains = []
    for number in range(3):
        train = bytes(session.seal_train(bytes([number]) * 1000, 300))
        trains.append([train[at : at + 300] for at in range(0, len(train), 300)])
    del trains[1][2]
    datagrams = [car for cars in zip(*trains, strict=False) for car in cars] + [trains[0][-1], trains[2][-1]]
    datagrams += [b"".join(session.seal([b""])), trains[0][0]]
    packets = [IP(bytes(IP(dst="192.0.2.1") / UDP(sport=7470, dport=7470) / Raw(each))) for each in datagrams]
    found = trains_in(packets)
    assert [[bytes(car) for car in cars] for cars in found] == [trains[0], trains[2]]
    assert [bytes(open_train(cars, SEND_KEY)) for cars in found] == [bytes(1000), b"\2" * 1000]


def test_keepalive_of_ours_holds_no_record() -> None:
    header, ciphertext = a_session().seal([b""])
    assert open_data(Datagram(header + ciphertext), SEND_KEY).records == []


def test_frames_of_ours_are_read_with_their_ethernet() -> None:
    outbox = Outbox(1472)
    sent = [
        bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src="52:54:00:00:00:01") / Raw(bytes([n]) * 50))
        for n in range(30)
    ]
    for frame in sent:
        outbox.add(TapFrame(PLAIN + frame))
    records = records_of(outbox.take())
    frames = [record for record in records if type(record) is Frame]
    assert [record.frame for record in frames] == sent
    assert frames[0].ethernet().src == "52:54:00:00:00:01"
    assert {type(record) for record in records} <= {Frame, Padding}


def test_fragments_of_ours_are_read() -> None:
    frame = bytes(range(256)) * 20
    outbox = Outbox(1472)
    outbox.add(TapFrame(bytes.fromhex("0100 0000 0000 2200 1000") + frame))
    records = records_of(outbox.take())
    assert {type(record) for record in records} == {Fragment}
    assert {(record.id, record.total, int(record.flags)) for record in records} == {(1, len(frame) + 4, 1)}
    assert b"".join(record.part for record in records) == b"\x22\0\x10\0" + frame
    assert [record.offset for record in records][:2] == [0, len(records[0].part)]


def test_slices_of_ours_are_read_with_their_template() -> None:
    payload = bytes(range(256)) * 40
    frame = bytes(tcp_super_frame(payload))
    outbox = Outbox(1472)
    outbox.add(TapFrame(VIRTIO_TCP4 + frame))
    records = records_of(outbox.take())
    assert {type(record) for record in records} == {Slice}
    first = records[0]
    assert (first.id, first.gso_type, first.reserved, first.gso_size) == (1, 1, 0, 1448)
    assert (first.header_len, first.csum_start, first.total) == (54, 34, len(payload))
    assert first.header == frame[:54]
    assert b"".join(record.data for record in records) == payload
    assert first.ethernet()[TCP].seq == 1000


def test_every_control_record_of_ours_is_read() -> None:
    kinds = {
        wire.Record.PING: Ping,
        wire.Record.PONG: Pong,
        wire.Record.PATH_ACK: PathAck,
        wire.Record.PATH_CHALLENGE: PathChallenge,
        wire.Record.PATH_RESPONSE: PathResponse,
        wire.Record.BYE: Bye,
        wire.Record.LAN: Lan,
        wire.Record.RECEPTION: Reception,
    }
    assert kinds.keys() == wire.CONTROL_BODY_LEN.keys()
    for kind, layer in kinds.items():
        plaintext = wire.control_record(kind, bytes(wire.CONTROL_BODY_LEN[kind]))
        (record,) = records_of([plaintext])
        assert type(record) is layer
    (report,) = records_of([wire.control_record(wire.Record.RECEPTION, wire.RECEPTION.pack(1024, 1000))])
    assert (report.used, report.opened) == (1024, 1000)
    (lan,) = records_of([wire.control_record(wire.Record.LAN, wire.LAN.pack(b"k" * 32, 5))])
    assert (lan.key, lan.change) == (b"k" * 32, 5)
    (probe,) = records_of([wire.path_probe(0x01020304, 1472)])
    assert (type(probe), probe.token) == (PathProbe, 0x01020304)
    assert probe.zeros == bytes(1472 - 32 - 4 - 4)


# -- what scapy writes, we read --------------------------------------------------------------------------------------------


@both_suites
def test_data_of_scapy_is_opened_by_a_session(suite: Suite) -> None:
    session = a_session(suite)
    plaintext = Plaintext(records=[Frame(frame=b"A" * 60), Bye()])
    datagram = bytes(seal_data(plaintext, RECEIVE_KEY, 0x11223344, 77, suite))
    counters = Counters()
    opened, end = session.open_untrusted(datagram, 0, len(datagram), counters)
    assert (opened, end, counters.drops) == ([bytes(plaintext)], len(datagram), {})
    assert session.window[77] == 77


@both_suites
def test_train_of_scapy_is_opened_by_a_session(suite: Suite) -> None:
    session = a_session(suite)
    plaintext = Plaintext(records=[Frame(frame=b"A" * 1500), Reception(used=5, opened=4)])
    cars = [bytes(car) for car in seal_train(plaintext, RECEIVE_KEY, 0x11223344, 77, 600, suite)]
    assert list(map(len, cars)) == [600, 600, len(plaintext) + 16 - 2 * 584 + 16]
    counters = Counters()
    opened, end = session.open_untrusted(b"".join(cars), 0, 600, counters)
    assert (opened, end, counters.drops) == ([bytes(plaintext)], sum(map(len, cars)), {})


def test_records_of_scapy_are_read_in_order() -> None:
    plaintext = Plaintext(
        records=[
            Frame(frame=b"A" * 60),
            Ping(token=1),
            Pong(token=2),
            PathProbe(token=3, zeros=bytes(100)),
            PathAck(token=4),
            PathChallenge(token=b"challeng"),
            PathResponse(token=b"response"),
            Frame(flags=1, csum_start=34, csum_offset=16, frame=b"B" * 60),
            Lan(key=b"k" * 32, change=7),
            Reception(used=9, opened=8),
            Bye(),
            Padding(rest=bytes(7)),
        ]
    )
    frames, controls = receive(plaintext)
    assert frames == [PLAIN + b"A" * 60, bytes.fromhex("0100 0000 0000 2200 1000") + b"B" * 60]
    assert controls == [
        (wire.Record.PING, bytes([1]) + bytes(7)),
        (wire.Record.PONG, bytes([2]) + bytes(7)),
        (wire.Record.PATH_PROBE, bytes([3, 0, 0, 0])),
        (wire.Record.PATH_ACK, bytes([4, 0, 0, 0])),
        (wire.Record.PATH_CHALLENGE, b"challeng"),
        (wire.Record.PATH_RESPONSE, b"response"),
        (wire.Record.LAN, b"k" * 32 + bytes([7, 0, 0, 0])),
        (wire.Record.RECEPTION, bytes([9, 0, 0, 0, 8, 0, 0, 0])),
        (wire.Record.BYE, b""),
    ]


def test_fragments_of_scapy_make_a_frame() -> None:
    frame = bytes(range(256)) * 10
    parts = [
        Fragment(id=5, total=len(frame), offset=at, part=frame[at : at + 1000]) for at in (1000, 0, 2000)
    ]
    assert receive(*(Plaintext(records=[part]) for part in parts)) == ([PLAIN + frame], [])


def test_slices_of_scapy_make_a_super_frame() -> None:
    payload = bytes(range(256)) * 40
    frame = bytes(tcp_super_frame(payload))
    template = {
        "id": 9,
        "gso_type": 1,
        "gso_size": 1448,
        "csum_start": 34,
        "total": len(payload),
        "header": frame[:54],
    }
    slices = [
        Slice(offset=at, data=payload[at : at + 1300], **template) for at in range(0, len(payload), 1300)
    ]
    (written,), _ = receive(*(Plaintext(records=[piece]) for piece in slices))
    assert written == VIRTIO_TCP4 + frame


# -- on the underlay -------------------------------------------------------------------------------------------------------


def test_datagram_is_found_in_a_capture_by_its_port() -> None:
    header, ciphertext = a_session().seal([b""])
    for ports in (
        {"sport": 7470, "dport": 7470},
        {"sport": 50_000, "dport": 7470},
        {"sport": 7470, "dport": 50_000},
    ):
        packet = Ether(bytes(Ether() / IP(dst="192.0.2.1") / UDP(**ports) / Raw(header + ciphertext)))
        assert packet[Data].receiver == 0x55667788


def test_another_port_can_be_bound() -> None:
    datagram = bytes(Init())
    packet = bytes(IP(dst="192.0.2.1") / UDP(sport=1111, dport=17_470) / Raw(datagram))
    assert Init not in IP(packet)
    scapy_layer.bind_port(17_470)
    assert Init in IP(packet)


# -- what nobody would write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record", [b"\x04\0\x07\0" + bytes(7), b"\x0b\0\0\0", b"\x02\0\x01\0\0", b"\x03\0\0\0", b"\x0a\0\x01\0\0"]
)
def test_record_whose_length_is_not_of_its_kind_is_shown_as_it_is(record: bytes) -> None:
    read = Plaintext(record + bytes(Bye()))
    assert [type(r) for r in read.records] == [Unknown, Bye]
    assert bytes(read) == record + bytes(Bye())


def test_record_cut_short_is_raw() -> None:
    assert [type(r) for r in Plaintext(b"\x01\0\x3c\0" + bytes(59)).records] == [Raw]


def test_slice_whose_header_reaches_past_its_record_keeps_to_its_record() -> None:
    read = Plaintext(bytes(Slice(header_len=500, header=b"abc", data=b"")) + bytes(Bye()))
    assert [type(r) for r in read.records] == [Slice, Bye]
    assert read.records[0].header == b"abc"


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_any_bytes_are_dissected_and_built_again(data: bytes) -> None:
    assert bytes(Plaintext(data)) == bytes(Datagram(data)) == data


@pytest.mark.parametrize(
    ("kind", "length"), [(1, 151), (1, 153), (2, 99), (3, 65), (4, 31), (5, 16), (6, 152), (0, 32)]
)
def test_datagram_whose_length_is_not_of_its_type_is_raw(kind: int, length: int) -> None:
    assert type(Datagram(bytes([kind]).ljust(length, b"x"))) is Raw


def test_nothing_is_raw() -> None:
    assert type(Datagram()) is type(Datagram(b"")) is Raw
    assert type(scapy_layer.Record()) is Raw


def test_lies_about_lengths_are_kept_as_they_were_told() -> None:
    assert bytes(Frame(length=7, frame=b"A" * 60))[:4] == b"\x01\0\x07\0"


def test_without_scapy_the_import_says_in_one_line_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "l2overlay.observe.scapy_layer")
    monkeypatch.setitem(sys.modules, "scapy.fields", None)
    with pytest.raises(ImportError, match=r"pip install 'l2overlay\[scapy\]'") as caught:
        importlib.import_module("l2overlay.observe.scapy_layer")
    assert isinstance(caught.value, L2OverlayError)
    assert len(str(caught.value).splitlines()) == 1

"""A node written from docs/protocol.md, and nothing else of ours, talks to the real one.

It has the Noise of others (noiseprotocol), hashlib and AEADs; layouts and rules are those that the document states. What it
has to guess is a fault of the document.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

from l2overlay import keys
from l2overlay.addresses import Address, PeerKey, format_key
from l2overlay.config.read import parse_config
from l2overlay.overlay import Overlay
from l2overlay.seams import Burst, TapFrame
from tests import drive

HERE, THERE = Address("192.0.2.1", 7470), Address("192.0.2.2", 7470)
GUEST, STATION = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
PLAIN = bytes(10)
INIT, RESP, COOKIE, DATA, TRAIN = 1, 2, 3, 4, 5
FRAME, SLICE, FRAGMENT, PING, PONG = 1, 2, 3, 4, 5
PATH_PROBE, PATH_ACK, PATH_CHALLENGE, PATH_RESPONSE, BYE = 6, 7, 8, 9, 10
RECEPTION = 12
KNOWS_TRAINS = 2
SUITE_NAMES = {1: b"Noise_IKpsk2_25519_AESGCM_BLAKE2s", 2: b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"}


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def with_macs(message: bytes, receiver: bytes, cookie: bytes = b"") -> bytes:
    message += mac(hashlib.blake2s(b"mac1----" + receiver).digest(), message)
    return message + (mac(cookie, message) if cookie else bytes(16))


def record(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("<BBH", kind, flags, len(body)) + body


def records_in(plaintext: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 4 <= len(plaintext):
        kind, flags, length = struct.unpack_from("<BBH", plaintext, at)
        if kind == 0:
            return
        yield kind, flags, plaintext[at + 4 : at + 4 + length]
        at += 4 + length


MTU = 1500


@dataclass
class Stranger:
    """The other implementation."""

    suite: int
    remote: bytes
    private: bytes = field(default_factory=keys.generate)
    features: int = 0
    stamp: int = 0
    index: int = 0x01020304
    remote_index: int = 0
    counter: int = 0
    cookie: bytes = b""
    init: bytes = b""
    noise: Any = None

    @property
    def public(self) -> bytes:
        return keys.public_key(self.private)

    def _start(self, *, initiator: bool) -> None:
        self.noise = NoiseConnection.from_name(SUITE_NAMES[self.suite])
        self.noise.set_psks(bytes(32))
        self.noise.set_prologue(b"l2overlay" + bytes((1, self.suite)) + b"lan")
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, self.private)
        if initiator:
            self.noise.set_as_initiator()
            self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self.remote)
        else:
            self.noise.set_as_responder()
        self.noise.start_handshake()

    def dial(self) -> bytes:
        self._start(initiator=True)
        self.stamp += 1
        message = bytes(self.noise.write_message(struct.pack("<QII", self.stamp, self.features, 0)))
        head = struct.pack("<BBHI", INIT, self.suite, 0, self.index)
        self.init = with_macs(head + message, self.remote, self.cookie)
        return self.init

    def receive_resp(self, datagram: bytes) -> None:
        kind, suite, reserved, self.remote_index, receiver = struct.unpack_from("<BBHII", datagram)
        assert (len(datagram), kind, suite, reserved, receiver) == (100, RESP, self.suite, 0, self.index)
        assert with_macs(datagram[:-32], self.public) == datagram
        assert self.noise.read_message(datagram[12:-32]) == struct.pack("<HHI", 3, MTU, 0)
        self.counter = 0

    def answer(self, datagram: bytes) -> bytes:
        kind, suite, reserved, self.remote_index = struct.unpack_from("<BBHI", datagram)
        assert (len(datagram), kind, suite, reserved) == (152, INIT, self.suite, 0)
        assert with_macs(datagram[:-32], self.public) == datagram
        self._start(initiator=False)
        stamp, features, zero = struct.unpack("<QII", self.noise.read_message(datagram[8:-32]))
        assert (features, zero) == (3 | MTU << 16, 0)
        assert stamp > 0
        message = bytes(self.noise.write_message(struct.pack("<II", self.features, 0)))
        head = struct.pack("<BBHII", RESP, self.suite, 0, self.index, self.remote_index)
        self.counter = 0
        return with_macs(head + message, self.remote)

    def receive_cookie(self, datagram: bytes) -> None:
        kind, reserved, receiver = struct.unpack("<B3sI", datagram[:8])
        assert (len(datagram), kind, reserved, receiver) == (64, COOKIE, bytes(3), self.index)
        label_key = hashlib.blake2s(b"cookie--" + self.remote).digest()
        key = hashlib.blake2s(datagram[8:32], key=label_key).digest()
        self.cookie = ChaCha20Poly1305(key).decrypt(bytes(12), datagram[32:], self.init[-32:-16])

    def _cipher(self, direction: str) -> Any:
        key = getattr(self.noise.noise_protocol, f"cipher_state_{direction}").k
        return AESGCM(key) if self.suite == 1 else ChaCha20Poly1305(key)

    def seal(self, plaintext: bytes) -> bytes:
        header = struct.pack("<BBHIQ", DATA, 0, 0, self.remote_index, self.counter)
        self.counter += 1
        sealed: bytes = self._cipher("encrypt").encrypt(header[4:], plaintext, None)
        return header + sealed

    def seal_train(self, plaintext: bytes, car_len: int) -> list[bytes]:
        nonce = struct.pack("<IQ", self.remote_index, self.counter)
        self.counter += 1
        sealed = self._cipher("encrypt").encrypt(nonce, plaintext, None)
        pieces = [sealed[at : at + car_len - 16] for at in range(0, len(sealed), car_len - 16)]
        return [bytes((TRAIN, i, len(pieces), 0)) + nonce + piece for i, piece in enumerate(pieces)]

    def open_train(self, cars: list[bytes]) -> bytes:
        for number, car in enumerate(cars):
            kind, index, count, reserved, receiver = struct.unpack_from("<BBBBI", car)
            assert (kind, index, count, reserved) == (TRAIN, number, len(cars), 0)
            assert (receiver, car[8:16]) == (self.index, cars[0][8:16])
        sealed = b"".join(car[16:] for car in cars)
        assert len(sealed) <= 36 * 1024
        return bytes(self._cipher("decrypt").decrypt(cars[0][4:16], sealed, None))

    def open(self, datagram: bytes) -> bytes:
        kind, reserved, receiver = struct.unpack_from("<B3sI", datagram)
        assert (kind, reserved, receiver) == (DATA, bytes(3), self.index)
        return bytes(self._cipher("decrypt").decrypt(datagram[4:16], datagram[16:], None))


@dataclass
class Meeting:
    """Our node, the stranger, and a wire between them."""

    node: Overlay
    stranger: Stranger
    now: float = 100.0

    def to_node(self, *datagrams: bytes, source: Address = THERE) -> list[tuple[Address, bytes]]:
        """Give datagrams to the node, each as the kernel may join them; returns what it sends."""
        drive.receive_each(self.node, datagrams, source, self.now)
        return self.from_node()

    def from_node(self) -> list[tuple[Address, bytes]]:
        return drive.sent(self.node)

    def burst_to_node(self, datagrams: list[bytes]) -> None:
        self.node.receive_datagrams([Burst(THERE, len(datagrams[0]), datagrams)], self.now)

    def tap_to_node(self, *frames: bytes) -> list[tuple[int, int, bytes]]:
        """Frames from the TAP; returns the records that the stranger gets, probes of the path apart."""
        self.node.receive_frames([TapFrame(frame) for frame in frames], self.now)
        return [r for _, datagram in self.from_node() for r in self.opened(datagram) if r[0] != PATH_PROBE]

    def opened(self, datagram: bytes) -> list[tuple[int, int, bytes]]:
        return list(records_in(self.stranger.open(datagram)))

    def tap(self) -> list[bytes]:
        """What the TAP got, probes of the loop guard apart."""
        frames = [b"".join(pieces) for pieces in self.node.frames_to_deliver()]
        return [frame for frame in frames if frame[10:16] != b"\x03l2olp"]

    def is_up(self) -> bool:
        return self.node.peers(self.now)[0].up

    def dial(self) -> None:
        """The stranger becomes a peer that is up."""
        ((address, resp),) = self.to_node(self.stranger.dial())
        assert address == THERE
        self.stranger.receive_resp(resp)
        self.to_node(self.stranger.seal(record(PING, bytes(8))))
        assert self.is_up()


@pytest.fixture(params=[1, 2], ids=["aes-gcm", "chacha20-poly1305"])
def suite(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def meeting(suite: int) -> Meeting:
    private = keys.generate()
    stranger = Stranger(suite, keys.public_key(private))
    name = {1: "aes-gcm", 2: "chacha20-poly1305"}[suite]
    stanza = '[[peers]]\nname = "{}"\npublic_key = "{}"\n'
    text = f'[segment]\nname = "lan"\nsuite = "{name}"\n'
    text += stanza.format("node", format_key(stranger.remote)) + stanza.format(
        "stranger", format_key(stranger.public)
    )
    config = parse_config(text, "test", base_dir=None)
    node = Overlay(config, private, now=100.0, wall_clock=1e9, random=os.urandom)
    return Meeting(node, stranger)


def frame(payload: bytes, *, source: bytes = STATION, destination: bytes = GUEST) -> bytes:
    return destination + source + b"\x88\xb5" + payload


def test_the_stranger_dials_and_its_ping_is_answered(meeting: Meeting) -> None:
    ((_, resp),) = meeting.to_node(meeting.stranger.dial())
    meeting.stranger.receive_resp(resp)
    assert not meeting.is_up()  # until the first datagram under the new keys
    sent = meeting.to_node(meeting.stranger.seal(record(PING, b"12345678")))
    assert meeting.is_up()
    assert (PONG, 0, b"12345678") in [r for _, d in sent for r in meeting.opened(d)]


def test_the_node_dials_and_confirms_with_a_ping_at_once(meeting: Meeting) -> None:
    meeting.node.set_endpoint(PeerKey(meeting.stranger.public), THERE, meeting.now)
    meeting.now += 1.0
    meeting.node.handle_timer(meeting.now)
    ((address, init),) = meeting.from_node()
    sent = meeting.to_node(meeting.stranger.answer(init))
    assert address == THERE
    assert meeting.is_up()
    assert PING in [r[0] for _, d in sent for r in meeting.opened(d)]


def test_a_stranger_whose_stamps_are_behind_is_called_back_once_its_address_is_proven(
    meeting: Meeting,
) -> None:
    stranger = meeting.stranger
    stranger.stamp = 1000
    meeting.dial()
    meeting.to_node(stranger.seal(record(BYE)))
    assert not meeting.is_up()
    stranger.stamp, moved = 0, Address("203.0.113.7", 4000)  # its clock went back, and its stamp file is lost
    ((address, cookie),) = meeting.to_node(stranger.dial(), source=moved)
    assert (address, cookie[0]) == (moved, COOKIE)
    stranger.receive_cookie(cookie)
    ((address, init),) = meeting.to_node(stranger.dial(), source=moved)
    assert (address, init[0]) == (moved, INIT)
    sent = meeting.to_node(stranger.answer(init), source=moved)
    assert meeting.is_up()
    assert PING in [r[0] for _, d in sent for r in meeting.opened(d)]


def test_a_frame_travels_byte_for_byte_in_both_directions(meeting: Meeting) -> None:
    meeting.dial()
    there = frame(b"\x01odd\x00", source=GUEST, destination=STATION)
    assert meeting.tap_to_node(PLAIN + there) == [(FRAME, 0, there)]
    meeting.to_node(meeting.stranger.seal(record(FRAME, frame(b"\x00back\x02"))))
    assert meeting.tap() == [PLAIN + frame(b"\x00back\x02")]


def test_a_partial_checksum_travels_in_front_of_its_frame(meeting: Meeting) -> None:
    meeting.dial()
    virtio = struct.pack("<BBHHHH", 1, 0, 0, 0, 34, 6)
    there = frame(bytes(60), source=GUEST, destination=STATION)
    assert meeting.tap_to_node(virtio + there) == [(FRAME, 1, struct.pack("<HH", 34, 6) + there)]
    meeting.to_node(
        meeting.stranger.seal(record(FRAME, struct.pack("<HH", 34, 6) + frame(bytes(60)), flags=1))
    )
    assert meeting.tap() == [virtio + frame(bytes(60))]


def test_fragments_join_at_both_ends(meeting: Meeting) -> None:
    meeting.dial()
    large = frame(os.urandom(1500), source=GUEST, destination=STATION)
    whole = bytearray(len(large))
    for kind, flags, body in meeting.tap_to_node(PLAIN + large):
        offset, _, total = struct.unpack_from("<HIH", body)
        assert (kind, flags, total) == (FRAGMENT, 0, len(large))
        whole[offset : offset + len(body) - 8] = body[8:]
    assert whole == large
    back = frame(os.urandom(1500))
    for at in (800, 0):
        part = struct.pack("<HIH", at, 7, len(back)) + back[at : at + 800]
        meeting.to_node(meeting.stranger.seal(record(FRAGMENT, part)))
    assert meeting.tap() == [PLAIN + back]


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def super_frame(payload: bytes, gso_size: int, *, source: bytes, destination: bytes) -> tuple[bytes, bytes]:
    """A TCP super-frame over IPv4 with CWR, PSH and FIN set: its virtio header, and the frame."""
    addresses = bytes((10, 9, 0, 1, 10, 9, 0, 2))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 1000, 0, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack("!H", 0xFFFF - checksum(ip)) + ip[12:]
    pseudo = checksum(addresses + struct.pack("!HH", 6, 20 + len(payload)))
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 5000, 0, 5 << 4, 0x80 | 0x08 | 0x01, 1024, pseudo, 0)
    virtio = struct.pack("<BBHHHH", 1, 1, 54, gso_size, 34, 16)
    return virtio, destination + source + b"\x08\x00" + ip + tcp + payload


def test_slices_of_the_node_are_the_whole_super_frame(meeting: Meeting) -> None:
    meeting.dial()
    payload = os.urandom(20_000)
    virtio, sent = super_frame(payload, 1448, source=GUEST, destination=STATION)
    got = bytearray(len(payload))
    for kind, flags, body in meeting.tap_to_node(virtio + sent):
        offset, _, gso_type, zero, gso_size, header_len, csum_start, total = struct.unpack_from(
            "<HIBBHHHH", body
        )
        assert (kind, flags, zero) == (SLICE, 0, 0)
        assert (gso_type, gso_size, header_len, csum_start, total) == (1, 1448, 54, 34, len(payload))
        assert body[16 : 16 + header_len] == sent[:54]
        data = body[16 + header_len :]
        got[offset : offset + len(data)] = data
    assert got == payload


def check_run(tap_frame: bytes, payload: bytes, start: int, end: int) -> None:
    """The corrections of the document's table, one by one."""
    length = end - start
    flags, gso_type, _, gso_size, csum_start, csum_offset = struct.unpack_from("<BBHHHH", tap_frame)
    assert (flags, gso_type, gso_size, csum_start, csum_offset) == (1, 1, 1000, 34, 16)
    ip, tcp = tap_frame[24:44], tap_frame[44:64]
    total_length, identification = struct.unpack_from("!HH", ip, 2)
    assert total_length == 40 + length
    assert identification == 1000 + start // 1000
    assert checksum(ip) == 0xFFFF
    assert struct.unpack_from("!I", tcp, 4)[0] == 5000 + start
    assert bool(tcp[13] & 0x80) == (start == 0)
    assert bool(tcp[13] & 0x09) == (end == len(payload))
    assert struct.unpack_from("!H", tcp, 16)[0] == checksum(ip[12:20] + struct.pack("!HH", 6, 20 + length))
    assert tap_frame[64:] == payload[start:end]


def test_slices_of_the_stranger_with_one_lost_come_out_as_runs_that_keep_to_the_units(
    meeting: Meeting,
) -> None:
    meeting.dial()
    payload = os.urandom(9_500)
    _, sent = super_frame(payload, 1000, source=STATION, destination=GUEST)
    template = struct.pack("<IBBHHHH", 1, 1, 0, 1000, 54, 34, len(payload)) + sent[:54]
    slices = [
        record(SLICE, struct.pack("<H", at) + template + payload[at : at + 1100])
        for at in range(0, len(payload), 1100)
    ]
    del slices[4]  # bytes 4400 to 5500
    meeting.burst_to_node([meeting.stranger.seal(s) for s in slices])
    first, part, second = meeting.tap()
    check_run(first, payload, 0, 4400)
    assert part[:2] == b"\x01\0"  # its checksum is to be completed, and it is no super-frame
    assert part[64:] == payload[5500:6000]
    check_run(second, payload, 6000, 9500)


def test_a_new_address_is_challenged_and_taken_after_the_answer(meeting: Meeting) -> None:
    meeting.dial()
    elsewhere = Address("198.51.100.7", 9)
    sent = meeting.to_node(meeting.stranger.seal(record(PING, bytes(8))), source=elsewhere)
    ((address, datagram),) = [s for s in sent if meeting.opened(s[1])[0][0] == PATH_CHALLENGE]
    assert address == elsewhere
    ((_, _, token),) = meeting.opened(datagram)
    assert meeting.node.peers(meeting.now)[0].endpoint == THERE
    meeting.to_node(meeting.stranger.seal(record(PATH_RESPONSE, token)), source=elsewhere)
    assert meeting.node.peers(meeting.now)[0].endpoint == elsewhere


def test_a_challenge_of_the_stranger_is_answered_where_it_came_from(meeting: Meeting) -> None:
    meeting.dial()
    elsewhere = Address("198.51.100.7", 9)
    challenge = meeting.stranger.seal(record(PATH_CHALLENGE, b"tokenabc"))
    sent = meeting.to_node(challenge, source=elsewhere)
    assert (elsewhere, [(PATH_RESPONSE, 0, b"tokenabc")]) in [(a, meeting.opened(d)) for a, d in sent]


def test_a_probe_has_the_size_that_is_tried_and_its_ack_makes_datagrams_larger(meeting: Meeting) -> None:
    ((_, resp),) = meeting.to_node(meeting.stranger.dial())
    meeting.stranger.receive_resp(resp)
    meeting.to_node(meeting.stranger.seal(b""))
    meeting.node.handle_timer(meeting.now)
    ((_, probe),) = [s for s in meeting.from_node() if meeting.opened(s[1])[0][0] == PATH_PROBE]
    assert len(probe) == 1472
    ((_, _, body),) = meeting.opened(probe)
    meeting.to_node(meeting.stranger.seal(record(PATH_ACK, body[:4])))
    assert meeting.node.peers(meeting.now)[0].datagram_size == 1472


def test_a_probe_of_the_stranger_is_acknowledged(meeting: Meeting) -> None:
    meeting.dial()
    sent = meeting.to_node(meeting.stranger.seal(record(PATH_PROBE, b"abcd" + bytes(1000))))
    assert (PATH_ACK, 0, b"abcd") in [r for _, d in sent for r in meeting.opened(d)]


def test_bye_takes_the_peer_down_at_once(meeting: Meeting) -> None:
    meeting.dial()
    meeting.to_node(meeting.stranger.seal(record(BYE)))
    assert not meeting.is_up()


def test_a_node_under_load_asks_for_a_cookie_and_takes_the_init_that_carries_it(meeting: Meeting) -> None:
    while True:
        ((_, reply),) = meeting.to_node(meeting.stranger.dial())
        if reply[0] == COOKIE:
            break
    meeting.stranger.receive_cookie(reply)
    meeting.dial()


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0", b"\0\xff\xff\xff" + b"anything"], ids=repr)
def test_padding_ends_a_datagram(meeting: Meeting, tail: bytes) -> None:
    meeting.dial()
    meeting.to_node(meeting.stranger.seal(record(FRAME, frame(b"one")) + tail))
    assert meeting.tap() == [PLAIN + frame(b"one")]


@pytest.mark.parametrize(
    "bad", [record(13), record(PING, b"short"), record(FRAME, bytes(20), flags=2), b"\1\0"], ids=repr
)
def test_a_malformed_record_takes_what_follows_with_it_and_nothing_before(
    meeting: Meeting, bad: bytes
) -> None:
    meeting.dial()
    meeting.to_node(meeting.stranger.seal(record(FRAME, frame(b"one")) + bad + record(FRAME, frame(b"two"))))
    assert meeting.tap() == [PLAIN + frame(b"one")]
    assert meeting.is_up()


def know_trains(meeting: Meeting) -> None:
    meeting.stranger.features = KNOWS_TRAINS
    meeting.dial()


def report_all(meeting: Meeting) -> None:
    """All that the node has sealed has come, says the stranger, again and again."""
    for _ in range(6):
        meeting.to_node(meeting.stranger.seal(record(RECEPTION, struct.pack("<II", 1024, 1024))))


def trains_in(datagrams: list[bytes]) -> list[list[bytes]]:
    """The cars that have one counter; what is DATA is left out."""
    trains: dict[bytes, list[bytes]] = {}
    for datagram in datagrams:
        if datagram[0] == TRAIN:
            trains.setdefault(datagram[8:16], []).append(datagram)
    return list(trains.values())


def test_the_node_sends_trains_to_a_stranger_that_lost_nothing(meeting: Meeting) -> None:
    know_trains(meeting)
    payload = os.urandom(60_000)
    virtio, sent = super_frame(payload, 1448, source=GUEST, destination=STATION)
    meeting.node.receive_frames([TapFrame(virtio + sent)], meeting.now)
    assert {datagram[0] for _, datagram in meeting.from_node()} == {DATA}
    report_all(meeting)
    meeting.node.receive_frames([TapFrame(virtio + sent)], meeting.now)
    datagrams = [datagram for _, datagram in meeting.from_node()]
    trains = trains_in(datagrams)
    assert max(map(len, datagrams)) == 1200
    assert max(map(len, trains)) == 32 * 1024 // (1200 - 16)
    got = bytearray(len(payload))
    others = [meeting.stranger.open(datagram) for datagram in datagrams if datagram[0] == DATA]
    for plaintext in [meeting.stranger.open_train(cars) for cars in trains] + others:
        for kind, _, body in records_in(plaintext):
            assert kind == SLICE
            data = body[70:]
            (offset,) = struct.unpack_from("<H", body)
            got[offset : offset + len(data)] = data
    assert got == payload


def test_the_node_makes_trains_shorter_when_the_stranger_says_that_much_is_lost(meeting: Meeting) -> None:
    know_trains(meeting)
    virtio, sent = super_frame(bytes(60_000), 1448, source=GUEST, destination=STATION)
    lengths = []
    report_all(meeting)
    for opened in (1024, 1023, 1020, 1014, 900):
        report = struct.pack("<II", 1024, opened)
        meeting.to_node(meeting.stranger.seal(record(RECEPTION, report)))
        meeting.node.receive_frames([TapFrame(virtio + sent)], meeting.now)
        trains = trains_in([datagram for _, datagram in meeting.from_node()])
        lengths.append(max(map(len, trains), default=1))
    # 10 of 1024 are 0.98 %, of which 0.25 % are a quarter; and of 12 % not one car is left.
    assert lengths == [27, 27, 27, 6, 1]


@pytest.mark.parametrize("one_burst", [True, False])
def test_the_node_delivers_a_train_of_the_stranger(meeting: Meeting, one_burst: bool) -> None:
    know_trains(meeting)
    payload = os.urandom(20_000)
    _, sent = super_frame(payload, 1000, source=STATION, destination=GUEST)
    template = struct.pack("<IBBHHHH", 1, 1, 0, 1000, 54, 34, len(payload)) + sent[:54]
    plaintext = record(SLICE, struct.pack("<H", 0) + template + payload) + record(FRAME, frame(bytes(1486)))
    cars = meeting.stranger.seal_train(plaintext, 1000)
    assert len(cars) == 22
    if one_burst:
        meeting.burst_to_node(cars)
    else:
        meeting.to_node(*reversed(cars))
    whole, single = meeting.tap()
    check_run(whole, payload, 0, len(payload))
    assert single == PLAIN + frame(bytes(1486))
    meeting.to_node(*cars)
    assert meeting.tap() == [], "once is enough"


def test_the_node_says_how_much_of_the_strangers_counters_it_has_opened(meeting: Meeting) -> None:
    know_trains(meeting)

    def send(count: int, lost: int) -> list[tuple[int, ...]]:
        reports = []
        for number in range(count):
            datagram = meeting.stranger.seal(b"")
            meeting.now += 0.001
            sent = meeting.to_node(datagram) if number >= lost else []
            records = [r for _, d in sent for r in meeting.opened(d)]
            reports += [struct.unpack("<II", body) for kind, _, body in records if kind == RECEPTION]
        return reports

    meeting.now += 0.06
    (first,) = send(1030, lost=0)
    assert first == (1024, 1024)
    (second,) = send(50, lost=4)
    assert second[0] - second[1] == 4
    cars = meeting.stranger.seal_train(bytes(5000), 1200)
    meeting.to_node(*cars[1:])
    ((used, opened),) = send(1030, lost=0)
    assert used - opened == 1, "a train that has lost a car is one counter"


def test_a_stranger_that_does_not_know_trains_gets_none_and_no_reports(meeting: Meeting) -> None:
    meeting.dial()
    for _ in range(1100):
        sent = meeting.to_node(meeting.stranger.seal(b""))
        meeting.now += 0.001
        assert RECEPTION not in [kind for _, datagram in sent for kind, _, _ in meeting.opened(datagram)]
    virtio, there = super_frame(bytes(60_000), 1448, source=GUEST, destination=STATION)
    meeting.node.receive_frames([TapFrame(virtio + there)], meeting.now)
    assert {datagram[0] for _, datagram in meeting.from_node()} == {DATA}

"""sendmmsg(2) alone, on loopback in a namespace: lo 127.0.0.1 ::1."""

import socket
from collections.abc import Callable, Iterator

import pytest

from l2overlay.linux import sendmmsg
from l2overlay.linux.sendmmsg import MAX_MESSAGES, MessageBatch, batch_for, pack_name, refused_name
from l2overlay.testing.lab import Namespace

from .conftest import inside

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PORT_0: dict[int, tuple[str | int, ...]] = {
    socket.AF_INET: ("127.0.0.1", 0),
    socket.AF_INET6: ("::1", 0, 0, 0),
}
families = pytest.mark.parametrize("family", list(LOOPBACK))


@pytest.fixture(autouse=True)
def loopback(namespace: Callable[[], Namespace]) -> Iterator[None]:
    host = namespace()
    host.ip("link set lo up")
    with inside(host):
        yield


def opened(family: int) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind((LOOPBACK[socket.AddressFamily(family)], 0))
    return udp


def received(udp: socket.socket) -> list[bytes]:
    datagrams = []
    while True:
        try:
            datagrams.append(udp.recv(70_000))
        except BlockingIOError:
            return datagrams


def never(number: int) -> int:
    raise AssertionError(f"the kernel did not take message {number}")


@families
def test_each_datagram_reaches_the_address_beside_it(family: int) -> None:
    with opened(family) as sender, opened(family) as one, opened(family) as other:
        batch = MessageBatch(family)
        names = [pack_name(family, udp.getsockname()) for udp in (one, other)]
        for _ in range(2):  # what an earlier batch left in the headers does not matter
            datagrams = [bytes([n]) * (n * 7) for n in range(MAX_MESSAGES)]
            sent = batch.send(sender.fileno(), names * (MAX_MESSAGES // 2), datagrams, never)
            assert sent == MAX_MESSAGES
            assert received(one) == datagrams[::2]
            assert received(other) == datagrams[1::2]
            assert batch.send(sender.fileno(), names, [b"", bytes(60_000)], never) == 2
            assert (received(one), received(other)) == ([b""], [bytes(60_000)])


@families
def test_it_goes_on_behind_what_the_kernel_does_not_take(family: int) -> None:
    with opened(family) as sender, opened(family) as receiver:
        good, bad = pack_name(family, receiver.getsockname()), pack_name(family, PORT_0[family])
        names = [bad, good, refused_name(family), bad, good, refused_name(family), good, good, bad]
        numbers: list[int] = []

        def send_alone(number: int) -> int:
            numbers.append(number)
            return 2 if number == 5 else 1

        datagrams = [b"%d" % number for number in range(9)]
        assert MessageBatch(family).send(sender.fileno(), names, datagrams, send_alone) == 9
        assert numbers == [0, 2, 3, 5, 8]
        assert received(receiver) == [b"1", b"4", b"7"]


@families
def test_it_stops_where_none_can_be_sent_alone(family: int) -> None:
    with opened(family) as sender, opened(family) as receiver:
        good = pack_name(family, receiver.getsockname())
        names = [good, good, refused_name(family), good]
        datagrams = [b"0", b"1", b"2", b"3"]
        assert MessageBatch(family).send(sender.fileno(), names, datagrams, lambda _: 0) == 2
        assert received(receiver) == [b"0", b"1"]


def test_more_than_one_call_takes_is_an_error_and_not_a_write_beyond_the_headers() -> None:
    with opened(socket.AF_INET) as sender:
        name = pack_name(socket.AF_INET, sender.getsockname())
        too_many = MAX_MESSAGES + 1
        with pytest.raises(ValueError, match="assignment"):
            MessageBatch(socket.AF_INET).send(sender.fileno(), [name] * too_many, [b"x"] * too_many, never)


def test_a_name_carries_flow_label_and_scope() -> None:
    name = pack_name(socket.AF_INET6, ("fe80::1", 0x1234, 5, 7))
    assert name[2:4] == b"\x12\x34"
    assert name[8:24] == socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert int.from_bytes(name[24:], "little") == 7 or int.from_bytes(name[24:], "big") == 7


@families
def test_where_libc_or_the_kernel_has_none_there_is_no_batch(
    family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(family) as udp:
        assert batch_for(udp) is not None
        monkeypatch.setattr(sendmmsg, "_sendmmsg", lambda *_: -1)  # ENOSYS, or EPERM of a seccomp filter
        assert batch_for(udp) is None
        monkeypatch.setattr(sendmmsg, "_sendmmsg", None)
        assert batch_for(udp) is None

"""The filter on the UDP socket, asked of the kernel over loopback."""

import socket
import time
from collections.abc import Callable

import pytest

from l2overlay.addresses import Address, host_bytes
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE
from l2overlay.errors import HostSetupError
from l2overlay.linux.shield import MAX_KNOWN, PASSING_SHARE, program
from l2overlay.linux.udp import LinuxUdp

COUNT = 640


def arrived(udp: LinuxUdp) -> int:
    """Datagrams that wait now."""
    found, deadline = 0, time.monotonic() + 0.3
    while time.monotonic() < deadline:
        bursts = udp.receive_bursts(64)
        found += sum(len(burst.datagrams()) for burst in bursts)
        if not bursts:
            time.sleep(0.02)
    return found


def sender(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_data_passes_from_known_addresses_and_a_small_share_of_it_from_others(host: str) -> None:
    with sender(host) as known, sender(host) as stranger:
        udp = LinuxUdp.open(0)
        try:
            others = [Address(f"192.0.2.{n}", 7000 + n) for n in range(1, 200)]
            assert udp.shield([*others, Address(host, known.getsockname()[1])])
            for kind in (DATA_TYPE, TRAIN_TYPE):
                datagram = bytes([kind]) + bytes(40)
                for _ in range(COUNT):
                    known.sendto(datagram, (host, udp.port))
                assert arrived(udp) == COUNT
                for _ in range(COUNT):
                    stranger.sendto(datagram, (host, udp.port))
                assert 0 < arrived(udp) < 4 * COUNT / PASSING_SHARE
            assert udp.overflow_count > COUNT  # the kernel counts what it drops
            udp.shield(None)
            for _ in range(COUNT):
                stranger.sendto(bytes([DATA_TYPE]) + bytes(40), (host, udp.port))
            assert arrived(udp) == COUNT
        finally:
            udp.close()


def test_as_many_addresses_as_a_program_holds_are_taken() -> None:
    udp = LinuxUdp.open_loopback()
    try:
        assert udp.shield(Address(f"10.0.{n >> 8}.{n & 255}", 7470) for n in range(MAX_KNOWN))
        code = program(Address(f"10.0.{n >> 8}.{n & 255}", 7470) for n in range(MAX_KNOWN))
        assert code is not None
        assert len(code) < 4096
    finally:
        udp.close()


def test_taking_off_a_filter_that_the_kernel_never_had_does_nothing() -> None:
    """It refused it, or the socket is a new one."""
    udp = LinuxUdp.open_loopback()
    try:
        assert not udp.shield(None)
    finally:
        udp.close()


def test_with_more_addresses_than_a_program_holds_there_is_no_filter_and_every_peer_is_heard() -> None:
    udp = LinuxUdp.open_loopback()
    try:
        known = [Address(f"10.0.{n >> 8}.{n & 255}", 7470) for n in range(MAX_KNOWN)]
        assert udp.shield(known)
        assert not udp.shield([*known, Address("192.0.2.1", 7470)])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for _ in range(COUNT):
                peer.sendto(bytes([DATA_TYPE]) + bytes(40), ("127.0.0.1", udp.port))
        assert arrived(udp) == COUNT
    finally:
        udp.close()


INIT = bytes([1]) + bytes(151)


def strangers(udp: LinuxUdp) -> tuple[list[Address], int]:
    """Where those kept apart came from, and how many were lost."""
    found, lost = list[Address](), 0
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        bursts, more = udp.receive_strangers(64)
        found += [burst.address for burst in bursts if burst.buffers == [INIT]]
        lost += more
        if not bursts:
            break
    return found, lost


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_during_a_flood_handshakes_of_strangers_wait_apart_and_those_from_known_addresses_do_not(
    host: str,
) -> None:
    with sender(host) as known, sender(host) as stranger:
        udp = LinuxUdp.open(0)
        try:
            assert udp.shield([Address(host, known.getsockname()[1])])
            for sock in (known, stranger):
                sock.sendto(INIT, (host, udp.port))
            assert arrived(udp) == 1
            found, lost = strangers(udp)
            assert [(each.host, each.port) for each in found] == [(host, stranger.getsockname()[1])]
            assert lost == 0
            assert udp.shield([Address(host, sock.getsockname()[1]) for sock in (known, stranger)])
            stranger.sendto(INIT, (host, udp.port))
            assert arrived(udp) == 1
        finally:
            udp.close()


def test_what_waits_apart_is_bounded_and_what_is_lost_is_counted() -> None:
    count = 20_000
    with sender("127.0.0.1") as stranger:
        udp = LinuxUdp.open(0)
        try:
            udp.shield([])
            for _ in range(count):
                stranger.sendto(INIT, ("127.0.0.1", udp.port))
            found, lost = strangers(udp)
            assert 300 < len(found) < 8000
            assert len(found) + lost == count
            assert udp.overflow_count == 0
        finally:
            udp.close()


def test_when_the_flood_is_over_all_comes_to_one_socket_and_nobody_else_gets_its_port() -> None:
    with sender("127.0.0.1") as stranger:
        udp = LinuxUdp.open(0)
        try:
            for _ in range(2):
                udp.shield([])
                udp.shield(None)
            stranger.sendto(INIT, ("127.0.0.1", udp.port))
            assert arrived(udp) == 1
            with pytest.raises(HostSetupError, match="in use"):
                LinuxUdp.open(udp.port)
        finally:
            udp.close()


def test_the_doorman_is_asked_about_those_that_wait_apart_and_gets_the_address_that_was_called() -> None:
    asked = []

    def doorman(data: bytes, size: int, host: bytes, stranger: Callable[[], Address]) -> bool:
        asked.append((data, size, host, stranger()))
        return False

    with sender("127.0.0.1") as stranger:
        udp = LinuxUdp.open(0)
        try:
            udp.doorman = doorman
            udp.shield([])
            stranger.sendto(INIT, ("127.0.0.1", udp.port))
            assert udp.receive_strangers(64) == ([], 0)
            here = Address("127.0.0.1", stranger.getsockname()[1], "127.0.0.1")
            assert asked == [(INIT, 152, host_bytes("127.0.0.1"), here)]
            udp.shield(None)
            stranger.sendto(INIT, ("127.0.0.1", udp.port))
            assert arrived(udp) == 0
            assert asked[1] == asked[0]
        finally:
            udp.close()


def test_a_flood_of_handshakes_makes_no_peer_be_forgotten() -> None:
    with sender("127.0.0.1") as peer:
        udp = LinuxUdp.open(0)
        try:
            peer.sendto(bytes([DATA_TYPE]) + bytes(40), ("127.0.0.1", udp.port))
            assert arrived(udp) == 1
            for _ in range(3):
                with sender("127.0.0.1") as stranger:
                    stranger.sendto(INIT, ("127.0.0.1", udp.port))
            assert arrived(udp) == 3
            assert [sockaddr[1] for sockaddr, _ in udp._addresses] == [peer.getsockname()[1]]
        finally:
            udp.close()

"""The filter on the UDP socket, asked of the kernel over loopback."""

import socket
import time

import pytest

from l2overlay.addresses import Address
from l2overlay.dataplane.wire import DATA_TYPE, TRAIN_TYPE
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
            stranger.sendto(bytes([1]) + bytes(151), (host, udp.port))
            assert arrived(udp) == 1  # a handshake
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

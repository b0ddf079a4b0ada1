"""Frames as the TAP gives them, with the virtio header, for benchmarks without a kernel."""

import struct

from l2overlay.seams import TapFrame

from .traffic import internet_checksum, udp_frame

PLAIN_VIRTIO = bytes(10)
ETHERNET_LEN, IPV4_LEN, TCP_LEN = 14, 20, 32
MSS = 1448
"""At MTU 1500 with timestamps, which make the TCP header 32 bytes long."""
NEEDS_CHECKSUM, GSO_TCPV4 = 1, 1


def small_frame(size: int = 64) -> TapFrame:
    """A UDP frame, counted with its FCS."""
    return TapFrame(PLAIN_VIRTIO + udp_frame(size))


def super_frame(segments: int = 44) -> TapFrame:
    """TCP segments still in one piece, from guest a to guest b, with the checksum still to do; 44 fill 64 KiB."""
    payload = bytes(range(256)) * (segments * MSS // 256 + 1)
    header = udp_frame(64)[: ETHERNET_LEN + IPV4_LEN]
    ip = bytearray(header[ETHERNET_LEN:])
    struct.pack_into("!H", ip, 2, IPV4_LEN + TCP_LEN + segments * MSS)
    ip[9] = 6
    ip[10:12] = b"\0\0"
    struct.pack_into("!H", ip, 10, internet_checksum(bytes(ip)))
    tcp = struct.pack("!HHIIBBHHH", 40000, 5201, 1, 1, TCP_LEN // 4 << 4, 0x18, 1000, 0, 0)
    tcp += b"\x01\x01\x08\x0a" + bytes(8)
    headers_len = ETHERNET_LEN + IPV4_LEN + TCP_LEN
    virtio = struct.pack("<BBHHHH", NEEDS_CHECKSUM, GSO_TCPV4, headers_len, MSS, ETHERNET_LEN + IPV4_LEN, 16)
    return TapFrame(virtio + header[:ETHERNET_LEN] + bytes(ip) + tcp + payload[: segments * MSS])

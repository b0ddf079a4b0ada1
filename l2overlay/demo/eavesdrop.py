"""Shows what an eavesdropper on a link sees: `python -m l2overlay.demo.eavesdrop LINK --canary HEX`.

It reads a packet socket (packet(7)) of its network namespace until SIGTERM or SIGINT. It needs root, but no tcpdump. First
it prints `listening`. At the end it prints one line of JSON: the number of frames, their bytes, frames to or from the nodes'
UDP port, frames that contain the canary, frames that came too fast to be read, and the largest share of one byte value
(0.004 in noise and in ciphertext).

A veth delivers a burst of datagrams as one frame of up to 64 KiB, which counts as one.
"""

import argparse
import contextlib
import json
import signal
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field

ETH_P_ALL = 3
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
BUFFER_SIZE = 64 << 20
"""Holds half a second of a gigabit link while this process waits for a core."""
FRAME_LEN_MAX = 1 << 17
SAMPLE_FRAMES = 2000
DATA_HEADER_LEN = 16
SAMPLE_LEN = 1000
"""The first bytes of a burst, before the header of a second datagram."""
QUIET = 0.05
"""Seconds without a frame after which a busy link counts as read to its end."""
LISTENING = "listening"


@dataclass(slots=True)
class Sight:
    """The counts of an eavesdropper."""

    frames: int = 0
    total_size: int = 0
    node_frames: int = 0
    canary_frames: int = 0
    missed: int = 0
    commonest_byte: float = 0.0
    sample: str = ""
    """The first bytes of the UDP payload of the last large frame to or from a node's UDP port, in hex."""
    fresh: bool = False
    """Whether a frame has come since this was last cleared."""
    _histogram: Counter[int] = field(default_factory=Counter)

    def see(self, frame: bytes, port: int, canary: bytes) -> None:
        """Count one frame."""
        self.fresh = True
        self.frames += 1
        self.total_size += len(frame)
        self.canary_frames += canary in frame
        payload = node_payload(frame, port)
        if payload is None:
            return
        self.node_frames += 1
        if len(payload) > SAMPLE_LEN and self.node_frames < SAMPLE_FRAMES:
            self.sample = payload[:64].hex()
            self._histogram.update(payload[DATA_HEADER_LEN:SAMPLE_LEN])

    def as_json(self) -> str:
        """The counts as one line, for the parent process."""
        total = self._histogram.total()
        self.commonest_byte = self._histogram.most_common(1)[0][1] / total if total else 0.0
        told = ("frames", "total_size", "node_frames", "canary_frames", "missed", "commonest_byte", "sample")
        return json.dumps({name: getattr(self, name) for name in told})


def node_payload(frame: bytes, port: int) -> bytes | None:
    """The UDP payload of an Ethernet frame to or from `port`, or None. Ignores fragments and IPv6 extension headers."""
    ethertype = int.from_bytes(frame[12:14])
    if ethertype == ETH_P_IP and len(frame) > 34 and frame[23] == socket.IPPROTO_UDP:
        start = 14 + (frame[14] & 0x0F) * 4
    elif ethertype == ETH_P_IPV6 and len(frame) > 54 and frame[20] == socket.IPPROTO_UDP:
        start = 54
    else:
        return None
    ports = struct.unpack_from("!HH", frame, start) if len(frame) >= start + 8 else ()
    return frame[start + 8 :] if port in ports else None


def eavesdrop(link: str, port: int, canary: bytes) -> Sight:
    """Read the link until a signal comes and the link is quiet."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.append(number))
    sight = Sight()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tapped:
        tapped.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_SIZE)
        tapped.bind((link, ETH_P_ALL))
        tapped.settimeout(QUIET)
        _say(LISTENING)
        while not stopping or sight.fresh:
            sight.fresh = False
            with contextlib.suppress(TimeoutError):
                sight.see(tapped.recv(FRAME_LEN_MAX), port, canary)
        sight.missed = struct.unpack("II", tapped.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    return sight


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link")
    parser.add_argument("--port", type=int, default=7470)
    parser.add_argument("--canary", type=bytes.fromhex, required=True)
    args = parser.parse_args()
    _say(eavesdrop(args.link, args.port, args.canary).as_json())


if __name__ == "__main__":
    main()

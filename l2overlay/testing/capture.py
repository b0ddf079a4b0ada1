"""Captures the frames of a link with tcpdump while a `with` block runs.

The file is classic pcap: a 24-byte header, then 16 bytes before each frame. This module reads it itself, because the
package does not import scapy. `-Z root` lets tcpdump write into the lab's folder. With `--immediate-mode` tcpdump gets the
last frames before it ends.
"""

import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from l2overlay.testing.namespace import LabError, Namespace, signal_group

PCAP_HEADER = struct.Struct("<IHHiIII")
"""magic, version major and minor, zone, accuracy, snapshot length, link type"""
PCAP_MAGIC = 0xA1B2C3D4
RECORD_HEADER = struct.Struct("<IIII")
"""seconds, microseconds, captured length, length on the wire"""
START_TIMEOUT = 10.0
BUFFER_KIB = 65536
"""The kernel's buffer: it holds half a second of a gigabit link before a frame is lost."""


class Capture:
    """Frames of one link. Use as a context manager; read `frames()` after the block."""

    def __init__(self, namespace: Namespace, link: str, expression: str, path: Path) -> None:
        self.path = path
        self.dropped = 0
        """Frames that the kernel could not hand to tcpdump. Known after the block."""
        self._namespace = namespace
        self._argv = [
            *("tcpdump", "-i", link, "-U", "-n", "-s", "0", "-Z", "root", "--immediate-mode"),
            *("-B", str(BUFFER_KIB), "-w", str(path), *expression.split()),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._said = path.with_suffix(".log")

    def __enter__(self) -> "Capture":
        with self._said.open("wb") as said:
            self._process = self._namespace.popen(self._argv, stdout=said)
        deadline = time.monotonic() + START_TIMEOUT
        while "listening on" not in self._said.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"tcpdump did not start: {self._said.read_text().strip()}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            signal_group(self._process, signal.SIGINT)
            self._process.wait(START_TIMEOUT)
        found = re.search(r"(\d+) packets? dropped by kernel", self._said.read_text())
        self.dropped = int(found[1]) if found else 0

    def frames(self) -> list[bytes]:
        """All captured frames, each from its destination address on."""
        return list(read_pcap(self.path))

    def contains(self, canary: bytes) -> bool:
        """Whether the bytes occur in the capture file."""
        return canary in self.path.read_bytes()


def read_pcap(path: Path) -> Iterator[bytes]:
    """The frames of a little-endian pcap file, without a record that is cut off at the end."""
    data = memoryview(path.read_bytes())
    if len(data) < PCAP_HEADER.size or PCAP_HEADER.unpack_from(data)[0] != PCAP_MAGIC:
        raise LabError(f"{path} is not a pcap file")
    offset = PCAP_HEADER.size
    while offset + RECORD_HEADER.size <= len(data):
        captured_len = RECORD_HEADER.unpack_from(data, offset)[2]
        offset += RECORD_HEADER.size
        if offset + captured_len > len(data):
            return
        yield bytes(data[offset : offset + captured_len])
        offset += captured_len

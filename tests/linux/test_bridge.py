"""The bridge forgets what it has learned at one port.

br0 --- p0 (veth) --- q0      a frame sent at q0 teaches br0 that its source is behind p0
 +----- p1 (veth) --- q1
"""

import json
import socket
from collections.abc import Callable

import pytest

from l2overlay.errors import HostSetupError
from l2overlay.linux.bridge import forget_stations
from l2overlay.testing.lab import Namespace

from .conftest import inside, wait_for_carrier

MAKE = (
    "link add br0 type bridge forward_delay 0 mcast_snooping 0",
    *(f"link add p{n} type veth peer name q{n}" for n in (0, 1)),
    *(f"link set p{n} master br0" for n in (0, 1)),
    *(f"link set {link} up" for link in ("br0", "p0", "p1", "q0", "q1")),
    "link set p1 up",
)


def learned(host: Namespace, port: str) -> list[str]:
    entries = json.loads(host.run(["bridge", "-j", "fdb", "show", "brport", port]).stdout)
    return [e["mac"] for e in entries if e["mac"].startswith("02:") and e.get("state") != "permanent"]


def test_what_was_learned_at_one_port_is_forgotten_and_the_rest_stays(
    namespace: Callable[[], Namespace],
) -> None:
    host = namespace()
    host.ip(*MAKE)
    wait_for_carrier(host)
    host.run(["bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "p0", "master", "static"])
    with inside(host):
        for n in (0, 1):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as mouth:
                mouth.bind((f"q{n}", 0))
                mouth.send(b"\xff" * 6 + bytes([2, 0, 0, 0, 0, n]) + b"\x88\xb5" + bytes(46))
        assert learned(host, "p0") == ["02:00:00:00:00:00", "02:00:00:00:00:99"]
        forget_stations("p0")
    assert learned(host, "p0") == ["02:00:00:00:00:99"]
    assert learned(host, "p1") == ["02:00:00:00:00:01"]


def test_a_link_that_is_no_port_is_told(namespace: Callable[[], Namespace]) -> None:
    host = namespace()
    host.ip("link add alone type veth peer name other")
    with inside(host):
        for link in ("alone", "absent"):
            with pytest.raises(HostSetupError, match=f"did not forget the stations behind {link}"):
                forget_stations(link)

"""More than a node can answer: from strangers with forged addresses, and from a peer that has a key."""

from ipaddress import IPv4Address

import pytest

from l2overlay.addresses import Address
from l2overlay.controlplane.cookie import append_macs
from l2overlay.controlplane.events import PeerDown
from l2overlay.controlplane.handshake import INIT_LEN

from .simulator import Node, Simulation

COOKIE_TYPE = 3


class SpoofedFlood:
    """INITs with a good mac1 (the attacker knows the public key) and random bytes under it, from forged addresses."""

    def __init__(self, victim: Node, rate: float, hosts: int) -> None:
        self.victim, self.sim, self.rate, self.hosts = victim, victim.sim, rate, hosts
        self.sent = 0
        self.sim.at(self.sim.now, self._send)

    def _send(self) -> None:
        """One, and the next one after a while that varies: a flood in step would leave gaps for the others."""
        random = self.sim.random
        host = str(IPv4Address(random.randrange(self.hosts)))
        source = Address(host, random.randrange(1024, 65536))
        forged = append_macs(b"\x01\x01\x00\x00" + random.randbytes(INIT_LEN - 36), self.victim.key, None)
        self.victim.arrive(source, forged)
        self.sent += 1
        self.sim.at(self.sim.now + random.expovariate(self.rate), self._send)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("who_calls", ["newcomer", "both"])
@pytest.mark.parametrize("hosts", [1 << 32, 250], ids=["from everywhere", "from 250 hosts"])
def test_in_a_flood_of_spoofed_inits_a_genuine_newcomer_is_up_within_3_s_and_the_others_lose_nothing(
    seed: int, who_calls: str, hosts: int
) -> None:
    sim = Simulation(seed, 3, natted=(2,) if who_calls == "newcomer" else (), start=False, capture=True)
    a, b, c = sim.nodes
    a.start()
    b.start()
    sim.run_until_all_up(within=1.0)
    talks = sim.conversation(a, b)
    flood = SpoofedFlood(a, rate=20_000, hosts=hosts)
    sim.run(0.5)
    c.start()
    sim.run_until(lambda: a.up(c) and c.up(a), within=3.0)
    for talk in talks:
        talk.stop()
    sim.run(0.1)
    assert [talk.lost() for talk in talks] == [0.0, 0.0]
    assert a.times(PeerDown) == []
    assert sim.captured is not None
    answers = [len(cap.datagram) for cap in sim.captured if cap.receiver is None]
    assert 0 < max(answers) < INIT_LEN
    assert len(answers) <= flood.sent

"""Which news of the underlay matter: another path to a peer, or news of a link that a path goes over."""

from l2overlay.addresses import Address
from l2overlay.node.underlay import LOOKED_AT, Path, Paths, path_to

A, B = Address("192.0.2.1", 7470), Address("192.0.2.2", 7470)
ETH0, WLAN0, NOWHERE = Path("eth0", "198.51.100.1"), Path("wlan0", "203.0.113.1"), Path("", "")


class Host:
    """Paths as a test wants them."""

    def __init__(self) -> None:
        self.paths = {A.host: ETH0, B.host: ETH0}
        self.looked = 0
        self.known = Paths(self.look)
        for address in (A, B):
            self.known.learn(address)

    def look(self, address: Address) -> Path:
        self.looked += 1
        return self.paths.get(address.host, NOWHERE)

    def changed(self, *links: str) -> bool:
        return self.known.changed([A, B], frozenset(links))


def test_news_of_a_link_that_no_peer_is_behind_do_not_matter() -> None:
    assert not Host().changed("veth0", "docker0")


def test_news_of_a_link_that_a_peer_is_behind_matter() -> None:
    assert Host().changed("veth0", "eth0")


def test_news_of_no_link_in_particular_matter() -> None:
    assert Host().changed("")


def test_another_source_address_or_link_matters_once() -> None:
    host = Host()
    host.paths[B.host] = WLAN0
    assert host.changed("veth0")
    assert not host.changed("veth0")


def test_path_that_goes_away_and_comes_back_matters_both_times() -> None:
    host = Host()
    host.paths.clear()
    assert host.changed("veth0")
    host.paths = {A.host: ETH0, B.host: ETH0}
    assert host.changed("veth0")


def test_of_a_thousand_peers_a_few_are_looked_at() -> None:
    host = Host()
    host.looked = 0
    host.known.changed((Address(f"10.0.{n // 256}.{n % 256}", 1) for n in range(1000)), frozenset())
    assert host.looked == LOOKED_AT


def test_the_kernel_tells_link_and_source() -> None:
    assert path_to(Address("127.0.0.1", 9)) == Path("lo", "127.0.0.1")


def test_address_without_a_route_has_an_empty_path() -> None:
    assert path_to(Address("fe80::1%no-such-link", 9)) == NOWHERE

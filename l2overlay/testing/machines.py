"""The machines of a lab: hosts on the underlay, and the guests behind their bridges."""

from l2overlay.testing.namespace import Namespace


class Host(Namespace):
    """A machine with the link `under0` on the underlay. It may have a bridge, guests behind the bridge, and a node."""

    def __init__(self, name: str, label: str, number: int) -> None:
        super().__init__(name)
        self.number = number
        self.label = label
        """The node's name in peers.toml, and the name of the host's port of the switch."""
        self.ipv4 = f"10.77.0.{number}"
        self.ipv6 = f"fd77::{number:x}"
        self.bridge: str | None = None
        self.guests: list[Guest] = []
        self.private_key = b""
        self.public_key = b""

    def has_link(self, link: str) -> bool:
        """Whether the host has a link of that name now."""
        return self.run(["ip", "link", "show", "dev", link], check=False).returncode == 0


class Guest(Namespace):
    """A station: a namespace with `eth0`. The other end of `eth0` is a link of the host with the guest's label."""

    def __init__(self, name: str, label: str, number: int, host: Host, mtu: int) -> None:
        super().__init__(name)
        self.label = label
        self.host = host
        self.mtu = mtu
        self.ipv4 = f"10.9.0.{number}"
        self.ipv6 = f"fd09::{number:x}"
        self.mac = f"52:54:09:00:00:{number:02x}"

    def attach(self, bridge: str) -> None:
        """Plug the guest into a bridge of its host."""
        self.host.ip(f"link set {self.label} master {bridge}")

    def detach(self) -> None:
        """Take the guest out of its bridge."""
        self.host.ip(f"link set {self.label} nomaster")

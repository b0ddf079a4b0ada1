"""Docker: a network of its driver `bridge` on the segment's bridge, with this host's own part of the addresses."""

from l2overlay.attach.programs import Program, Version
from l2overlay.attach.recipe import Recipe, Step, Tool
from l2overlay.attach.segment import Guest, Segment

PROGRAM = Program(
    "Docker Engine",
    (("docker", "version", "--format", "{{.Server.Version}}"), ("docker", "--version")),
    assumed=(28, 0),
    detail=("docker", "info", "--format", "{{.FirewallBackend.Driver}}"),
)
NFTABLES_SINCE = (29, 0)
"""The version that can do without iptables."""


def _make(segment: Segment, guest: Guest, version: Version) -> Recipe:
    assert guest.slice is not None
    return Recipe(
        steps=(
            Step("once a host, while the node runs", _create(segment, guest)),
            *([] if _is_nftables(version) else [_accept(segment)]),
            Step(
                "a container",
                f"docker run --rm -it --network {segment.name} --mac-address {guest.mac_text} "
                f"--name {guest.name} ${{IMAGE-alpine}}",
            ),
        ),
        pitfall=_pitfall(segment, version),
        checks=(
            f"docker network inspect {segment.name}    # IPRange {guest.slice.pool}, on no other host the same",
            f"ip -4 address show dev {segment.bridge}    # nothing that Docker put there",
            f"docker run --rm --network {segment.name} ${{IMAGE-alpine}} ping -c 3 ADDRESS-OF-A-STATION",
        ),
        undo=(
            f"docker network rm {segment.name}",
            *([] if _is_nftables(version) else [_accept(segment, delete=True).run]),
        ),
    )


def _create(segment: Segment, guest: Guest) -> str:
    """`inhibit_ipv4` keeps the gateway's address off the bridge: otherwise each host would put it there."""
    assert guest.slice is not None
    options = {
        "com.docker.network.bridge.name": segment.bridge,
        "com.docker.network.bridge.inhibit_ipv4": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.driver.mtu": str(segment.mtu),
    }
    gateway = guest.gateway or guest.slice.gateway
    words = [f"-o {key}={value}" for key, value in options.items()]
    words.append(f"--subnet {guest.slice.subnet} --ip-range {guest.slice.pool} --gateway {gateway}")
    return " \\\n    ".join(["docker network create -d bridge", *words, segment.name])


def _accept(segment: Segment, *, delete: bool = False) -> Step:
    flag, bridge = "-D" if delete else "-I", segment.bridge
    return Step(
        "Docker drops what it does not know in FORWARD, bridged frames too once bridge-nf-call-iptables is 1",
        f"iptables -w {flag} DOCKER-USER -i {bridge} -o {bridge} -j ACCEPT",
    )


def _is_nftables(version: Version) -> bool:
    return version >= NFTABLES_SINCE and version.detail.startswith("nftables")


def _pitfall(segment: Segment, version: Version) -> str:
    start = f"start the node first: if {segment.bridge} is not there, Docker makes one, and takes it away with the network. "
    if _is_nftables(version):
        return start + (
            "The nftables backend has no DOCKER-USER, and an accept in a table of your own is not final: while "
            "`sysctl net.bridge.bridge-nf-call-iptables` is 1, mark the bridge's frames and start dockerd with "
            "--bridge-accept-fwmark; a DROP policy that an older Docker left in iptables still drops "
            "(`iptables -S FORWARD`)."
        )
    return start + "`systemctl restart docker` keeps DOCKER-USER; a reboot does not: make the rule permanent."


DOCKER = Tool("docker", "containers of Docker", _make, "web", PROGRAM, needs_slice=True)

"""The tunnels that are compared, each set up as its own documentation says it is fastest.

A contestant joins the bridges of two hosts over the underlay. `start` returns once the tunnel passes frames in both
directions; `pids` are the processes whose time and memory count. Guests keep MTU 1500 on a 1500-byte underlay; where a
tunnel has no means of its own to fit TCP into its datagrams, `mss` is what the guests announce instead
(`Topology.limit_mss`): the most favourable form of the clamp that an administrator would add. With guests at MTU 9000 it
is off: there the kernel's IP fragments are faster for every one of them, one read and one send for six datagrams.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from l2overlay.testing.namespace import LabError, run_command

from .topology import TAP_QUEUE_LEN, UDP_BUFFER, UNDERLAY_ADDRESS, UNDERLAY_MTU, Topology, wait_until
from .traffic import Pinger

START_TIMEOUT = 20.0
TAP = "tun-bench"
PORT = 5000
NAMES = ("a", "b")


class Contestant:
    """One tunnel. Subclasses start it; this base holds what they share."""

    name = ""
    programs: Sequence[str] = ()
    packages: Sequence[str] = ()
    encrypted = False
    userspace = True
    """Its own processes move the frames, so that their time and memory can be told apart."""
    mss: int | None = None
    largest_mtu = 65535
    settings = ""
    """In one line, for the report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Of its own, for the whole run: keys are made once."""
        self.pids: list[int] = []

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        absent = [program for program in self.programs if not shutil.which(program)]
        return f"{', '.join(absent)} not installed (apt install {' '.join(self.packages)})" if absent else ""

    def version(self) -> str:
        """As the program or the kernel says it."""
        return os.uname().release

    def prepare(self) -> None:
        """Keys and files that do not change from start to start."""

    def start(self, topology: Topology) -> None:
        """Bring the tunnel up between both hosts and wait until it carries frames."""
        self.pids = []
        for side in (0, 1):
            self.start_side(topology, side)
        if self.mss and topology.mtu <= UNDERLAY_MTU:
            topology.limit_mss(self.mss)
        self.wait_ready(topology)

    def start_side(self, topology: Topology, side: int) -> None:
        """One host's end."""
        raise NotImplementedError

    def wait_ready(self, topology: Topology) -> None:
        """Until guest b answers guest a, and full frames pass too."""
        pinger = Pinger(topology.guests[0])
        try:
            for size in (64, 1400):
                answered = partial(pinger.answers, 0.1, size)
                wait_until(answered, START_TIMEOUT, f"{self.name}: no echo of {size} bytes")
        finally:
            pinger.close()

    def run(self, topology: Topology, side: int, argv: Sequence[str]) -> None:
        """Start one process of the tunnel on a host; what it says goes to a file."""
        log = self.log(side)
        with log.open("ab") as said:
            process = topology.hosts[side].popen(argv, stdout=said, stderr=subprocess.STDOUT)
        self.pids.append(process.pid)

    def log(self, side: int) -> Path:
        """What the end on this side said."""
        return self.folder / f"{NAMES[side]}.log"

    def clear_logs(self) -> None:
        """A log holds one start only."""
        for side in (0, 1):
            self.log(side).unlink(missing_ok=True)


class BareVeth(Contestant):
    """No tunnel: the hosts' bridges joined by the underlay itself. What the machine can do."""

    name = "bare veth"
    userspace = False
    settings = "the underlay's veth pair is a port of both bridges"

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        topology.hosts[side].ip("addr flush dev under0", f"link set under0 mtu {topology.mtu} master br0")


class KernelVxlan(Contestant):
    """RFC 7348 in the kernel, plaintext."""

    name = "kernel VXLAN"
    userspace = False
    mss = 1410
    settings = (
        "unicast remote, UDP checksum off (default), guests' MSS 1410 so that 1500-byte datagrams hold it"
    )

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        local, remote = UNDERLAY_ADDRESS[side], UNDERLAY_ADDRESS[1 - side]
        topology.hosts[side].ip(
            # Without `dev`: that would limit its MTU to 1450, and a bridge with guests at 1500 refuses such a port.
            f"link add name {TAP} type vxlan id 42 local {local} remote {remote} dstport 4789"
        )
        topology.attach(side, TAP)


class Tinc(Contestant):
    """tinc 1.0 in switch mode."""

    name = "tinc"
    programs = ("tincd",)
    packages = ("tinc",)
    encrypted = True
    largest_mtu = 1500
    settings = (
        "Mode=switch, Cipher=aes-128-cbc, Digest=sha1, MACLength=4, UDPRcvBuf/UDPSndBuf 4 MiB, ReplayWindow=256; "
        "PMTU discovery and ClampMSS (defaults) fit TCP into its datagrams"
    )

    def version(self) -> str:
        return first_line(["tincd", "--version"])

    def prepare(self) -> None:
        for side, name in enumerate(NAMES):
            folder = self.folder / name
            (folder / "hosts").mkdir(parents=True)
            (folder / "tinc.conf").write_text(self._configuration(side))
            (folder / "hosts" / name).write_text(
                f"Address = {UNDERLAY_ADDRESS[side]}\nPort = {PORT}\nCipher = aes-128-cbc\nDigest = sha1\nMACLength = 4\n"
            )
            run_command(["tincd", "-c", str(folder), "-K2048"], stdin="\n\n")
        for name, other in (NAMES, NAMES[::-1]):
            shutil.copy(self.folder / name / "hosts" / name, self.folder / other / "hosts" / name)

    def _configuration(self, side: int) -> str:
        lines = [f"Name = {NAMES[side]}", "Mode = switch", "DeviceType = tap", f"Interface = {TAP}"]
        lines += ["AddressFamily = ipv4", f"BindToAddress = {UNDERLAY_ADDRESS[side]} {PORT}"]
        lines += [f"UDPRcvBuf = {UDP_BUFFER}", f"UDPSndBuf = {UDP_BUFFER}", "ReplayWindow = 256"]
        return "\n".join(lines + ([f"ConnectTo = {NAMES[0]}"] if side else [])) + "\n"

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        folder = self.folder / NAMES[side]
        self.run(topology, side, ["tincd", "-c", str(folder), "-D", "-d1", f"--pidfile={folder}/pid"])
        topology.attach_tap(side, TAP)

    def wait_ready(self, topology: Topology) -> None:
        """Until each knows the path MTU: before that frames travel in its TCP connection."""
        super().wait_ready(topology)
        wait_until(lambda: all(map(self._knows_path_mtu, (0, 1))), START_TIMEOUT, "tinc: no path MTU")

    def _knows_path_mtu(self, side: int) -> bool:
        """SIGUSR2 makes it list its nodes (tincd(8))."""
        os.kill(self.pids[side], signal.SIGUSR2)
        time.sleep(0.1)
        found = re.findall(
            rf"{NAMES[1 - side]} at .* pmtu (\d+) \(min (\d+) max (\d+)\)", self.log(side).read_text()
        )
        return bool(found) and found[-1][1] == found[-1][2] != "0"


class Fastd(Contestant):
    """fastd with its fastest AEAD for machines with AES instructions."""

    name = "fastd"
    method = "aes128-ctr+umac"
    programs = ("fastd",)
    packages = ("fastd",)
    encrypted = True
    mss = 1394
    settings = "method aes128-ctr+umac, mode tap, mtu 1500, guests' MSS 1394 (its manual: keep the kernel from fragmenting)"

    def version(self) -> str:
        return first_line(["fastd", "--version"])

    def prepare(self) -> None:
        keys = []
        for _ in NAMES:
            said = run_command(["fastd", "--generate-key", "--machine-readable"]).stdout.split()
            public = run_command(
                ["fastd", "--config", "-", "--show-key", "--machine-readable"], stdin=f'secret "{said[0]}";\n'
            )
            keys.append((said[0], public.stdout.split()[0]))
        for side in (0, 1):
            (self.folder / f"{NAMES[side]}.conf").write_text(
                self._configuration(side, keys[side][0], keys[1 - side][1])
            )

    def _configuration(self, side: int, secret: str, public: str) -> str:
        remote = f"  remote {UNDERLAY_ADDRESS[1 - side]}:{PORT};\n"
        return (
            f'log level info;\nmode tap;\ninterface "{TAP}";\nmethod "{self.method}";\n'
            f'bind {UNDERLAY_ADDRESS[side]}:{PORT};\nsecret "{secret}";\n'
            f'peer "{NAMES[1 - side]}" {{\n  key "{public}";\n{remote}}}\n'
        )

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        configuration = self.folder / f"{NAMES[side]}.conf"
        self.run(topology, side, ["fastd", "--config", str(configuration), "--mtu", str(topology.mtu)])
        topology.attach_tap(side, TAP)


class FastdNull(Fastd):
    """fastd without encryption."""

    name = "fastd null"
    method = "null"
    encrypted = False
    mss = 1417
    settings = "method null (plaintext), mode tap, mtu 1500, guests' MSS 1417"


class OpenVpn(Contestant):
    """OpenVPN tap over TLS; the data channel in user space (its kernel module does not carry Ethernet)."""

    name = "OpenVPN"
    programs = ("openvpn", "openssl")
    packages = ("openvpn", "openssl")
    encrypted = True
    settings = (
        "dev tap, TLS, AES-256-GCM, fast-io, sndbuf/rcvbuf 4 MiB, txqueuelen 1000; "
        "mssfix (default, 1492 mtu) fits TCP into its datagrams; "
        "guests at MTU 9000: tun-mtu 9000, mssfix 0, the kernel fragments"
    )

    def version(self) -> str:
        return " ".join(first_line(["openvpn", "--version"]).split()[:2])

    def prepare(self) -> None:
        for name in NAMES:
            key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
            make = [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ]
            run_command(
                [*make, "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
            )

    def _fingerprint(self, side: int) -> str:
        show = [
            "openssl",
            "x509",
            "-in",
            str(self.folder / f"{NAMES[side]}.crt"),
            "-noout",
            "-fingerprint",
            "-sha256",
        ]
        return run_command(show).stdout.strip().partition("=")[2]

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        name = NAMES[side]
        argv = ["openvpn", "--dev", TAP, "--dev-type", "tap", "--proto", "udp4", "--port", str(PORT)]
        argv += ["--local", UNDERLAY_ADDRESS[side], "--remote", UNDERLAY_ADDRESS[1 - side]]
        argv += ["--tls-client"] if side else ["--tls-server", "--dh", "none"]
        argv += ["--cert", str(self.folder / f"{name}.crt"), "--key", str(self.folder / f"{name}.key")]
        argv += ["--peer-fingerprint", self._fingerprint(1 - side), "--data-ciphers", "AES-256-GCM"]
        argv += [
            "--fast-io",
            "--sndbuf",
            str(UDP_BUFFER),
            "--rcvbuf",
            str(UDP_BUFFER),
            "--txqueuelen",
            str(TAP_QUEUE_LEN),
        ]
        argv += ["--tun-mtu", str(topology.mtu), "--verb", "3"]
        argv += ["--mssfix", "0"] if topology.mtu > 1500 else []
        self.run(topology, side, argv)
        topology.attach_tap(side, TAP)


class VdePlug(Contestant):
    """VDE 4: a TAP plugged to a UDP cable, plaintext."""

    name = "vde_plug"
    programs = ("vde_plug",)
    packages = ("vdeplug",)
    mss = 1418
    settings = "vde_plug tap:// udp:// (plaintext, point to point), guests' MSS 1418"

    def version(self) -> str:
        return debian_version("vdeplug")

    def start_side(self, topology: Topology, side: int) -> None:
        topology.make_bridge(side)
        topology.hosts[side].ip(f"tuntap add dev {TAP} mode tap", f"link set {TAP} up")
        cable = f"udp://{UNDERLAY_ADDRESS[side]}:{PORT}->{UNDERLAY_ADDRESS[1 - side]}:{PORT}"
        self.run(topology, side, ["vde_plug", f"tap://{TAP}", cable])
        topology.attach_tap(side, TAP)


class L2Overlay(Contestant):
    """This project, through its own command line and nothing else."""

    name = "l2overlay"
    encrypted = True
    settings = "join with defaults (AES-256-GCM); it makes its TAP and bridge itself"
    options: Sequence[str] = ()
    """Of `join`, besides those that it needs."""
    SEGMENT = "bench"

    def missing(self) -> str:
        done = run_command([*self._program(), "join", "--help"], check=False)
        return "" if done.returncode == 0 else "`python -m l2overlay join` does not run yet"

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "l2overlay"]

    def version(self) -> str:
        return first_line([*self._program(), "--version"])

    def prepare(self) -> None:
        for name in NAMES:
            run_command([*self._program(), "keygen", str(self.folder / f"{name}.key")])

    def _peers_file(self, mtu: int) -> Path:
        stanzas = [f'[segment]\nname = "{self.SEGMENT}"\nmtu = {mtu}\n']
        for side, name in enumerate(NAMES):
            public = run_command(
                [*self._program(), "pubkey", str(self.folder / f"{name}.key")]
            ).stdout.strip()
            endpoint = f"{UNDERLAY_ADDRESS[side]}:{PORT}"
            stanzas.append(f'[[peers]]\nname = "{name}"\npublic_key = "{public}"\nendpoint = "{endpoint}"\n')
        path = self.folder / f"peers-{mtu}.toml"
        path.write_text("\n".join(stanzas))
        return path

    def start_side(self, topology: Topology, side: int) -> None:
        name = NAMES[side]
        argv = [*self._program(), "join", "--peers", str(self._peers_file(topology.mtu))]
        argv += ["--key", str(self.folder / f"{name}.key"), "--run-dir", str(self.folder / f"run-{name}")]
        self.run(topology, side, [*argv, *self.options])

    def wait_ready(self, topology: Topology) -> None:
        for side in (0, 1):
            wait_until(partial(self._is_ready, side), START_TIMEOUT, f"{self.name}: no READY")
            topology.hosts[side].ip(f"link set tap-{self.SEGMENT} txqueuelen {TAP_QUEUE_LEN}")
            topology.attach(side, "guest0", f"br-{self.SEGMENT}")
        super().wait_ready(topology)

    def _is_ready(self, side: int) -> bool:
        return bool(re.search(r"^READY", self.log(side).read_text(), re.MULTILINE))


CONTESTANTS: tuple[type[Contestant], ...] = (
    L2Overlay,
    BareVeth,
    KernelVxlan,
    Tinc,
    Fastd,
    FastdNull,
    OpenVpn,
    VdePlug,
)


def first_line(argv: Sequence[str]) -> str:
    """What a program says first, on either stream."""
    done = run_command(argv, check=False)
    said = (done.stdout or done.stderr).strip().splitlines()
    return said[0] if said else "unknown"


def debian_version(package: str) -> str:
    """For programs that do not tell theirs."""
    return (
        run_command(["dpkg-query", "-W", "-f", "${Package} ${Version}", package], check=False).stdout
        or "unknown"
    )


def packages_to_install() -> list[str]:
    """Debian packages of contestants and tools that are not here."""
    needed = {"iperf3": "iperf3", "nft": "nftables", "ethtool": "ethtool", "ss": "iproute2"}
    wanted = [package for program, package in needed.items() if not shutil.which(program)]
    for kind in CONTESTANTS:
        if not all(shutil.which(program) for program in kind.programs):
            wanted += kind.packages
    return sorted(set(wanted))


def install_peers() -> list[str]:
    """apt-get install what is missing; says what it did. As root, or through sudo."""
    wanted = packages_to_install()
    if not wanted:
        return []
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    print(f"installing {' '.join(wanted)}", flush=True)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    for step in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *wanted]):
        done = subprocess.run([*sudo, *environment, "apt-get", *step], check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise LabError(f"apt-get {step[0]} failed")
    return wanted

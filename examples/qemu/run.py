"""A real VM boots over the overlay: `sudo .venv/bin/python examples/qemu/run.py [--out DIR]`.

    host h1                                            host h2
    QEMU --- tap vm1 ---[br-boot]--- node ==UDP== node ---[br-boot]--- g1: dnsmasq (DHCP, TFTP)

The VM has no disk and no operating system: the iPXE ROM of its network card asks DHCP and TFTP, gets `boot.ipxe` from the
other host, fetches a file of 1 MiB with it, and says so on its serial console. No KVM is needed, and none is used.

Two hosts and the guest with dnsmasq are network namespaces; the commands inside are those for real machines.
"""

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from l2overlay.testing.lab import Guest, Host, Lab, LabError

BOOT_TIMEOUT = 120.0
"""Emulation without KVM on a busy machine; it takes 10 to 20 s on an idle one."""
VM_MAC = "52:54:00:09:00:64"
PAYLOAD_LEN = 1 << 20
BOOTED = "booted over l2overlay:"
BOOT_SCRIPT = f"""#!ipxe
imgfetch --name payload tftp://${{next-server}}/payload
echo {BOOTED} ${{net0/mac}} has ${{net0/ip}} from ${{next-server}}
"""


@dataclass(frozen=True, slots=True)
class Boot:
    """What was seen of it."""

    console: str
    dnsmasq: str
    seconds: float


def boot(lab: Lab, timeout: float = BOOT_TIMEOUT) -> Boot:
    """Join two hosts, serve on one and boot on the other."""
    vm_host, boot_host = lab.add_underlay(2)
    lab.add_bridge(vm_host)
    server = lab.add_guest(boot_host)
    lab.start_nodes()
    dnsmasq_log, console = lab.folder / "dnsmasq.log", lab.folder / "console.log"
    serve(server, lab.folder / "tftp", dnsmasq_log)
    started_time = time.monotonic()
    vm = start_vm(vm_host, console)
    while BOOTED not in (text := read_console(console)):
        if vm.poll() is not None or time.monotonic() - started_time > timeout:
            raise LabError(f"the VM did not boot:\n{text}\n{dnsmasq_log.read_text()}")
        time.sleep(0.1)
    return Boot(text, dnsmasq_log.read_text(), time.monotonic() - started_time)


def serve(server: Guest, folder: Path, log: Path) -> subprocess.Popen[str]:
    """dnsmasq for DHCP and TFTP, with nothing from the machine's own configuration and no DNS."""
    folder.mkdir()
    (folder / "boot.ipxe").write_text(BOOT_SCRIPT)
    (folder / "payload").write_bytes(bytes(PAYLOAD_LEN))
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]
    argv += ["--interface=eth0", "--bind-interfaces", "--dhcp-range=10.9.0.100,10.9.0.150,5m"]
    argv += ["--dhcp-boot=boot.ipxe", "--enable-tftp", f"--tftp-root={folder}", "--user=root"]
    argv += [
        "--log-dhcp",
        "--log-facility=-",
        f"--dhcp-leasefile={log.with_suffix('.leases')}",
        "--pid-file=",
    ]
    with log.open("wb") as output:
        return server.popen(argv, stdout=output)


def start_vm(host: Host, console: Path) -> subprocess.Popen[str]:
    """QEMU with a tap in the host's bridge. Without `mac=` every VM everywhere has the same address."""
    host.ip("tuntap add vm1 mode tap", f"link set vm1 master {host.bridge} up")
    argv = ["qemu-system-x86_64", "-machine", "accel=tcg", "-m", "64", "-nographic", "-boot", "n"]
    argv += ["-netdev", "tap,id=n0,ifname=vm1,script=no,downscript=no"]
    argv += ["-device", f"virtio-net-pci,netdev=n0,mac={VM_MAC}"]
    with console.open("wb") as output:
        return host.popen(argv, stdout=output)


def read_console(path: Path) -> str:
    """The serial console as a person has seen it: no control sequences, and what was erased by backspace is not there."""
    seen: list[str] = []
    for char in re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|c)|\r", "", path.read_text(errors="replace")):
        if char != "\b":
            seen.append(char)
        elif seen:
            seen.pop()
    return "".join(seen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write console.txt and dnsmasq.txt there too")
    out: Path | None = parser.parse_args().out
    with Lab("boot") as lab:
        seen = boot(lab)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "console.txt").write_text(seen.console)
        (out / "dnsmasq.txt").write_text(seen.dnsmasq)
    told = [line for line in seen.dnsmasq.splitlines() if re.search(r"DHCP[A-Z]+\(|sent /", line)]
    sys.stdout.write(f"--- console of the VM\n{seen.console.strip()}\n--- dnsmasq\n" + "\n".join(told))
    sys.stdout.write(f"\n--- booted {seen.seconds:.1f} s after power on\n")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))

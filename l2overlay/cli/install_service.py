"""`l2overlay install-service SEGMENT`: the segment's node as a systemd service, which starts with the host.

Refused before anything is written: a peers.toml or key that `join` would refuse, and a file that somebody else wrote.
"""

import argparse
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from l2overlay import keys
from l2overlay.cli import output
from l2overlay.errors import HostPermissionError, UsageError
from l2overlay.service import install

HIDDEN = ("home", "root")
"""ProtectHome= of the unit hides them from the service."""


EXAMPLES = ("l2overlay install-service lan", "l2overlay install-service lan --print")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "segment", metavar="SEGMENT", help="its files are /etc/l2overlay/SEGMENT.toml and SEGMENT.key"
    )
    parser.add_argument(
        "--print", action="store_true", dest="show", help="print the files, and change nothing"
    )
    parser.add_argument("--no-start", action="store_true", help="start it at the next boot, not now")
    output.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Check, write, enable and start."""
    wanted = install.files(own_program())
    if args.show:
        _show(wanted, args.json)
        return 0
    _require_root(args.segment)
    _check_segment(args.segment)
    written = install.install(wanted)
    if not install.has_user():
        install.make_user()
    service, started = f"l2overlay@{args.segment}.service", False
    if install.is_running_systemd():
        install.run(["systemctl", "daemon-reload"])
        install.run(["systemctl", "enable", service])
        if not args.no_start:
            install.run(["systemctl", "restart", service])
            started = True
    _tell(args, service, [str(path) for path in written], started)
    return 0


def own_program() -> str:
    """The absolute path of the `l2overlay` that the unit is to start. Raises UsageError if the service cannot run it."""
    beside = Path(sys.executable).parent / "l2overlay"
    found = str(beside) if beside.exists() else shutil.which("l2overlay")
    if found is None:
        raise UsageError(
            "l2overlay is not installed as a program: run 'make install', or install the package"
        )
    if Path(found).parts[1] in HIDDEN:
        raise UsageError(f"{found} is in a home directory, which a service cannot read: run 'make install'")
    return found


def _require_root(segment: str) -> None:
    if os.geteuid() != 0:
        raise HostPermissionError(
            f"only root installs a service: sudo l2overlay install-service {shlex.quote(segment)}"
        )


def _check_segment(segment: str) -> None:
    """What `join` would refuse. Raises ConfigError, UsageError or HostPermissionError."""
    from l2overlay.config.read import load_config, require_own
    from l2overlay.config.values import segment_name

    try:
        segment_name(segment)
    except ValueError as error:
        raise UsageError(str(error)) from None
    peers_file = keys.CONFIGURATION_DIR / f"{segment}.toml"
    config = load_config(peers_file)
    if config.segment.name != segment:
        raise UsageError(
            f"{peers_file} describes the segment {config.segment.name}: the service l2overlay@{segment} needs a file "
            "of its own name"
        )
    key = keys.public_key(keys.load(keys.default_key_path(segment)))
    require_own(config, key, source=str(peers_file), name=socket.gethostname().split(".")[0])


def _show(wanted: list[install.ServiceFile], as_json: bool) -> None:
    if as_json:
        files = [{"path": str(file.path), "text": file.text} for file in wanted]
        output.print_json("install_service/1", {"files": files, "changed": False})
        return
    for file in wanted:
        print(f"## {file.path}", file.text, sep="\n")


def _tell(args: argparse.Namespace, service: str, written: list[str], started: bool) -> None:
    if args.json:
        data = {"service": service, "written": written, "started": started, "changed": True}
        output.print_json("install_service/1", data)
        return
    for path in written:
        print(f"wrote {path}")
    if started:
        print(f"{service} is enabled and runs; its log: journalctl -u {service}")
    elif install.is_running_systemd():
        print(f"{service} is enabled; start it: systemctl start {service}")
    else:
        print(f"systemd does not run here; on the host itself: systemctl enable --now {service}")

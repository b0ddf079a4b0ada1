"""Installs the service of one segment: makes a plan of the files, writes them, and calls systemd.

If a package has put the unit below /usr/lib, that unit is used. Otherwise the unit goes to /etc/systemd/system, where an
administrator's own units are. A file that a person wrote is never overwritten: it does not begin with OURS.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from l2overlay.errors import HostSetupError

USER = "l2overlay"
UNIT = "l2overlay@.service"
PACKAGED_UNITS = Path("/usr/lib/systemd/system")
OURS = "# Written by 'l2overlay install-service'. For changes: systemctl edit l2overlay@SEGMENT\n"
"""The first line of each file that we write. We recognise our files by it."""
COMMAND_TIME = 60.0
"""Most seconds that useradd or systemctl may take."""


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """One file of the service."""

    path: Path
    text: str


def text_of(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files("l2overlay.service").joinpath(name).read_text()


def unit(program: str) -> str:
    """The text of the unit l2overlay@.service. `program` is the absolute path of the program that it starts."""
    return text_of(UNIT).replace("@PROGRAM@", program)


def files(program: str, root: Path = Path("/")) -> list[ServiceFile]:
    """The files that an installation into `root` needs: the unit, unless a package brings it, and one file for each network
    manager of the host."""
    return [ServiceFile(root / path, OURS + text) for path, text in _wanted(program, root)]


def _wanted(program: str, root: Path) -> Iterator[tuple[str, str]]:
    if not (root / PACKAGED_UNITS.relative_to("/") / UNIT).exists():
        yield f"etc/systemd/system/{UNIT}", unit(program)
    if (root / "etc/NetworkManager").is_dir():
        yield "etc/NetworkManager/conf.d/l2overlay.conf", text_of("networkmanager.conf")
    if (root / "etc/systemd/network").is_dir():
        yield "etc/systemd/network/10-l2overlay.network", text_of("networkd.network")


def install(wanted: Sequence[ServiceFile]) -> list[Path]:
    """Write the files that are missing or old, and return their paths. Raises HostSetupError, also for a file of others."""
    stale = [file for file in wanted if _content(file.path) != file.text]
    for file in stale:
        content = _content(file.path)
        if content is not None and not content.startswith(OURS):
            raise HostSetupError(
                f"{file.path} was not written by l2overlay: move it away, or keep it and leave this out"
            )
    for file in stale:
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.path.write_text(file.text)
        except OSError as error:
            raise HostSetupError(f"cannot write {file.path}: {error.strerror}") from None
    return [file.path for file in stale]


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostSetupError(f"cannot read {path}: {error.strerror}") from None


def has_user() -> bool:
    """Whether the system user of the service exists."""
    import pwd

    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def make_user() -> None:
    """Make the system user of the service, without a home or a shell. Raises HostSetupError."""
    run(["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/var/lib/l2overlay",
         "--shell", "/usr/sbin/nologin", "--comment", "l2overlay nodes", USER])  # fmt: skip


def is_running_systemd() -> bool:
    """Whether systemd runs this host, as sd_booted(3) tests it."""
    return Path("/run/systemd/system").is_dir()


def run(argv: Sequence[str]) -> str:
    """Run a command, and return its output. Raises HostSetupError with the last line of the output if it fails."""
    if shutil.which(argv[0]) is None:
        raise HostSetupError(f"{argv[0]} is not installed")
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=COMMAND_TIME, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        raise HostSetupError(f"'{' '.join(argv)}' did not end within {COMMAND_TIME:g} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise HostSetupError(f"'{' '.join(argv)}' failed: {words[-1]}")
    return done.stdout

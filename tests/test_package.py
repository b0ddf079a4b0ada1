"""The wheel, and the Debian package: made, installed by dpkg and removed again.

dpkg works on an overlay of this machine's own root, in a mount namespace of its own, so the machine is left as it was.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from l2overlay import __version__
from l2overlay.cli.main import VERBS
from l2overlay.service import install

ROOT = Path(__file__).parents[1]
SERVICE_FILES = {"l2overlay@.service", "networkmanager.conf", "networkd.network", "sysusers.conf"}

IN_AN_OVERLAY = """\
set -e
mount --make-rprivate /
mount -t tmpfs none "$1"
mkdir "$1"/upper "$1"/work "$1"/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$2" "$1/root/var/l2overlay.deb"
mount --rbind /dev "$1/root/dev"
mount --rbind /sys "$1/root/sys"
mount -t proc proc "$1/root/proc"
mount -t tmpfs none "$1/root/run"
exec chroot "$1/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -ec "$3"
"""


def run(argv: list[str], seconds: float = 120, **env: str) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=ROOT,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)])
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_has_the_whole_package_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "l2overlay").rglob("*.py")}
    assert sources <= names
    assert {f"l2overlay/service/{name}" for name in SERVICE_FILES} <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]


def test_the_wheel_s_version_is_that_of_the_last_tag_or_later(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert version[0].isdigit()
    assert version.split(".dev")[0] == __version__.split(".dev")[0]


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: this is no Debian")
    folder = tmp_path_factory.mktemp("deb")
    run(["packaging/make-deb", str(wheel), str(folder)], 300, PYTHON=sys.executable)
    (made,) = folder.glob("*.deb")
    return made


@pytest.mark.host
@pytest.mark.slow
def test_dpkg_installs_the_package_and_removes_all_of_it(package: Path, tmp_path: Path) -> None:
    script = """
        dpkg -i /var/l2overlay.deb
        l2overlay --version
        l2overlay status none || echo "status ended with $?"
        id -nG l2overlay
        ls -l /usr/lib/systemd/system/l2overlay@.service
        ls /usr/share/man/man1/l2overlay-join.1.gz /usr/share/bash-completion/completions/l2overlay
        l2overlay keygen /etc/l2overlay/lan.key
        dpkg -r l2overlay
        ls /etc/l2overlay
        gone() { for path; do if [ -e "$path" ]; then echo "$path is left"; exit 1; fi; done; }
        gone /usr/lib/l2overlay /usr/bin/l2overlay /usr/lib/systemd/system/l2overlay@.service
        dpkg -P l2overlay
        gone /var/lib/l2overlay
    """
    said = run(["unshare", "-m", "sh", "-c", IN_AN_OVERLAY, "sh", str(tmp_path), str(package), script], 300)
    assert f"l2overlay {__version__.split('.dev')[0]}" in said
    assert "\nstatus ended with 3\n" in said, "the exit code of the program is that of the verb"
    assert "\nl2overlay\n" in said, "the user of the service, and its group"
    assert "lan.key" in said


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_there_is_a_man_page_for_every_verb_and_man_has_no_complaint(tmp_path: Path) -> None:
    run([sys.executable, "packaging/man_pages.py", str(tmp_path)], PYTHONPATH=str(ROOT))
    assert {page.name for page in tmp_path.iterdir()} == {"l2overlay.1", *(f"l2overlay-{v}.1" for v in VERBS)}
    for page in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            ["man", "--warnings", "-l", str(page)], capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, ""), page.name
        assert "EXIT STATUS" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit_and_little_exposure(tmp_path: Path) -> None:
    file = tmp_path / "l2overlay@.service"
    file.write_text(install.unit("/bin/true"))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (found.returncode, found.stderr) == (0, "")
    run(["systemd-analyze", "security", "--offline=true", "--threshold=30", str(file)])

"""Which node a verb asks, and who may ask: users without root, members of the socket's group, segments that do not run."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.cli import target
from l2overlay.control.run_dir import Hold, RunDir, running_segments
from l2overlay.errors import HostPermissionError
from l2overlay.linux import privileges
from tests.cli.calling import Call
from tests.cli.test_online_verbs import STATUS, FixedNode

NOBODY = 65534
GROUP = 4242


@contextlib.contextmanager
def as_nobody(*groups: int) -> Iterator[None]:
    """Another user for a while; the capabilities come back with the effective uid."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /run/l2overlay that everybody may enter (pytest's own directories are closed), with an empty /etc/l2overlay."""
    with tempfile.TemporaryDirectory(prefix="l2o-run-") as name:
        root = Path(name)
        root.chmod(0o755)
        monkeypatch.setattr(target, "RUN_ROOT", root)
        monkeypatch.setattr(keys, "CONFIGURATION_DIR", root / "etc")
        yield root


@pytest.fixture
def node(root: Path) -> Iterator[FixedNode]:
    """A node of the segment lab, whose socket belongs to a group."""
    hold = Hold(RunDir(root / "lab"), f"test-{os.getpid()}-lab")
    made = FixedNode(root / "lab")
    os.chown(root / "lab/control.sock", 0, GROUP)
    (root / "lab/control.sock").chmod(0o660)
    made.answers["status"] = [STATUS]
    yield made
    made.close()
    hold.release()


@pytest.mark.host
def test_a_member_of_the_socket_s_group_sees_the_status(call: Call, node: FixedNode) -> None:
    assert call("status")[0] == 0  # loads what a closed checkout would keep from another user
    with as_nobody(GROUP):
        code, out, err = call("status")
    assert (code, err) == (0, "")
    assert out.startswith("segment lab ")


@pytest.mark.host
def test_who_may_not_ask_is_told_how_to_and_not_that_nothing_runs(call: Call, node: FixedNode) -> None:
    with as_nobody():
        for words in (["status"], ["status", "lab"], ["peers"], ["fdb"], ["leave"]):
            code, _, err = call(*words)
            assert code == 5
            assert "is closed to this user: run the command with sudo" in err


@pytest.mark.host
@pytest.mark.parametrize("closed", ["control.sock", "lock"])
def test_who_may_not_ask_is_told_the_group_whose_members_may(
    call: Call, node: FixedNode, root: Path, closed: str
) -> None:
    """The service has a umask of 0027, so that the lock is closed as well as the socket."""
    for name in {"control.sock", closed}:
        os.chown(root / "lab" / name, 0, GROUP)
        (root / "lab" / name).chmod(0o660)
    with as_nobody():
        code, _, err = call("status", "lab")
    assert code == 5
    assert f"or as a member of the group {GROUP}\n" in err


@pytest.mark.host
@pytest.mark.parametrize("closed", ["", "lab"])
def test_a_run_directory_that_is_closed_is_not_called_empty(
    call: Call, node: FixedNode, root: Path, closed: str
) -> None:
    (root / closed).chmod(0o700)
    with as_nobody():
        code, _, err = call("status")
        with pytest.raises(HostPermissionError):
            list(running_segments(root))
    assert code == 5
    assert f"{root / closed} is closed to this user" in err


def test_a_segment_that_does_not_run_is_told_with_those_that_do(call: Call, root: Path) -> None:
    hold = Hold(RunDir(root / "lan"), f"test-{os.getpid()}-lan")
    for verb in ("status", "peers", "fdb", "events", "reload", "leave", "filter"):
        code, _, err = call(verb, "lam")
        assert code == 3
        assert "no node of a segment lam runs on this host (did you mean 'lan'?); these run: lan" in err
    hold.release()


@pytest.mark.parametrize(
    ("files", "segment", "hint"),
    [
        ([], [], "start one with 'l2overlay join SEGMENT', after 'l2overlay init SEGMENT'"),
        (["lan"], [], "start one with 'l2overlay join lan'"),
        (["dmz", "lan"], [], "start one with 'l2overlay join SEGMENT' (dmz, lan)"),
        (["dmz", "lan"], ["lan"], "start one with 'l2overlay join lan'"),
        (["lan"], ["nix"], "start one with 'l2overlay join SEGMENT' (lan)"),
    ],
)
def test_the_hint_names_a_command_that_works(
    call: Call, root: Path, files: list[str], segment: list[str], hint: str
) -> None:
    (root / "etc").mkdir()
    for name in files:
        (root / "etc" / f"{name}.toml").touch()
    code, _, err = call("status", *segment)
    assert code == 3
    assert hint in err


def test_join_without_a_segment_lists_those_that_are_configured(call: Call, root: Path) -> None:
    (root / "etc").mkdir()
    assert "which segment? Give its name ('l2overlay init SEGMENT' makes one)" in call("join")[2]
    (root / "etc/lan.toml").touch()
    assert f"which segment? Give its name (in {root}/etc: lan)" in call("join")[2]


@pytest.mark.parametrize(
    ("capabilities", "uid", "words"),
    [
        (0, 1000, "run it as root: sudo l2overlay join"),
        (0xA80425FB, 0, "root has no CAP_NET_ADMIN here; a container gets it with --cap-add=NET_ADMIN"),
        (1 << 12, 1000, "this process has CAP_NET_ADMIN, so something else forbids it"),
    ],
    ids=["user", "root in docker", "capability"],
)
def test_the_remedy_fits_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: int, uid: int, words: str
) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    monkeypatch.setattr(privileges, "STATUS", tmp_path / "status")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert privileges.remedy("CAP_NET_ADMIN", "l2overlay join").startswith(words)

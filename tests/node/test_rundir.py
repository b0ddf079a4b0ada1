"""The run directory: one node at a time, nothing left behind, and a dead node is no obstacle."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from l2overlay.control.run_dir import Hold, RunDir, StampFile, running_segments
from l2overlay.errors import HostSetupError

SEGMENT = f"test-{os.getpid()}"


def other_process(code: str) -> "subprocess.Popen[str]":
    """A second node, as far as this module is concerned: it says a line when it holds, and then waits."""
    script = "from pathlib import Path\nfrom l2overlay.control.run_dir import *\n" + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", script + "\nprint('held', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


def test_second_node_on_the_same_directory_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first = other_process(f"h = Hold(RunDir(Path({str(tmp_path)!r})), '{SEGMENT}-a')")
    with pytest.raises(HostSetupError, match=rf"held by the node with pid {first.pid};"):
        Hold(RunDir(tmp_path), f"{SEGMENT}-b")
    end(first)


def test_second_node_of_the_segment_is_refused_whatever_its_directory(tmp_path: Path) -> None:
    first = other_process(f"h = Hold(RunDir(Path({str(tmp_path / 'a')!r})), '{SEGMENT}')")
    with pytest.raises(HostSetupError, match=rf"runs already in this network namespace \(pid {first.pid}\)"):
        Hold(RunDir(tmp_path / "b"), SEGMENT)
    assert not (tmp_path / "b").exists()
    end(first)


def test_killed_node_leaves_a_lock_that_is_taken_over(tmp_path: Path) -> None:
    first = other_process(f"h = Hold(RunDir(Path({str(tmp_path)!r})), '{SEGMENT}')")
    end(first)
    assert (tmp_path / "lock").exists()
    assert RunDir(tmp_path).holder() is None
    hold = Hold(RunDir(tmp_path), SEGMENT)
    assert RunDir(tmp_path).holder() == os.getpid()
    hold.release()


def test_release_leaves_no_file_and_no_directory_that_we_made(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run" / "lab")
    hold = Hold(run_dir, SEGMENT)
    run_dir.write_state({"a": 1})
    StampFile(run_dir.stamp, "boot").note(5, 1.0)
    hold.release()
    assert list(tmp_path.iterdir()) == []


def test_release_keeps_a_directory_that_was_there(tmp_path: Path) -> None:
    Hold(RunDir(tmp_path), SEGMENT).release()
    assert tmp_path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_directory_with_a_neighbour_stays(tmp_path: Path) -> None:
    root = tmp_path / "l2overlay"
    a, b = Hold(RunDir(root / "a"), f"{SEGMENT}-a"), Hold(RunDir(root / "b"), f"{SEGMENT}-b")
    a.release()
    assert [name for name, _ in running_segments(root)] == ["b"]
    b.release()


def test_only_running_segments_are_listed(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "lock").write_text("1\n")
    hold = Hold(RunDir(tmp_path / "alive"), SEGMENT)
    assert [name for name, _ in running_segments(tmp_path)] == ["alive"]
    hold.release()
    assert list(running_segments(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_state_that_is_no_state_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert RunDir(tmp_path).read_state() is None


def test_state_comes_back_as_written(tmp_path: Path) -> None:
    RunDir(tmp_path).write_state({"undo": [1, 2]})
    assert RunDir(tmp_path).read_state() == {"undo": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def stamp_file(folder: Path, boot: str = "this-boot") -> StampFile:
    return StampFile(folder / "stamp", boot)


@pytest.mark.parametrize(
    "content",
    [b"", b"-5 1.0 this-boot", b"x y z", b"\xff\xff", b"9" * 30 + b" 1 this-boot", b"1 inf no-boot x"],
)
def test_stamp_that_is_no_stamp_is_zero(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stamp").write_bytes(content)
    assert stamp_file(tmp_path).read(0.0) == 0


def test_killed_node_can_have_used_every_stamp_up_to_now_and_no_later_one(tmp_path: Path) -> None:
    stamp_file(tmp_path).note(5_000_000, now=100.0)
    assert stamp_file(tmp_path).read(130.0) == 35_000_000


def test_after_another_boot_the_time_between_two_notes_is_added(tmp_path: Path) -> None:
    stamp_file(tmp_path).note(5_000_000, now=100.0)
    assert stamp_file(tmp_path, "next-boot").read(3.0) == 5_000_000 + int(StampFile.AHEAD * 1e6)
    assert StampFile.AHEAD > StampFile.INTERVAL


def test_a_hundred_killed_nodes_in_a_row_do_not_run_ahead_of_the_clock(tmp_path: Path) -> None:
    stamp = 0
    for now in range(100):
        stamp = max(stamp_file(tmp_path).read(float(now)) + 1, now * 1_000_000)
        stamp_file(tmp_path).note(stamp, float(now))
    assert stamp < 99_001_000


def test_stamp_that_cannot_be_written_is_told_once_a_minute(tmp_path: Path) -> None:
    file = stamp_file(tmp_path / "missing")
    told = [now for now in range(1, 182, 10) if file.note(1, float(now))]
    assert told == [1, 61, 121, 181]


def test_a_stamp_outlives_a_reboot_that_empties_the_run_directory(tmp_path: Path) -> None:
    lasting = tmp_path / "lib" / "l2overlay" / "lab.stamp"
    StampFile(tmp_path / "stamp", "this-boot", lasting).note(5_000_000, now=100.0)
    (tmp_path / "stamp").unlink()
    after = StampFile(tmp_path / "stamp", "next-boot", lasting)
    assert after.read(3.0) == 5_000_000 + int(StampFile.AHEAD * 1e6)


def test_a_stamp_of_an_earlier_version_counts_although_there_is_no_lasting_one_yet(tmp_path: Path) -> None:
    stamp_file(tmp_path).note(5_000_000, now=100.0)
    assert StampFile(tmp_path / "stamp", "this-boot", tmp_path / "none").read(100.0) == 5_000_000


def test_a_lasting_place_that_cannot_be_written_is_told_and_the_other_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stamps = StampFile(tmp_path / "stamp", "this-boot", tmp_path / "file" / "lab.stamp")
    assert "lab.stamp cannot be written" in (stamps.note(7, now=1.0) or "")
    assert stamps.note(7, now=2.0) is None
    assert stamps.read(2.0) >= 7


# A run directory that another user made, or put traps in

STRANGER = 65_534


def root_only() -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")


def test_a_directory_of_another_user_is_refused_with_what_to_do(tmp_path: Path) -> None:
    root_only()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    os.chown(run_dir, STRANGER, STRANGER)
    with pytest.raises(
        HostSetupError, match=rf"{run_dir} belongs to the user with uid {STRANGER}.*chown root"
    ):
        Hold(RunDir(run_dir), SEGMENT)
    assert list(run_dir.iterdir()) == []


def test_a_directory_that_others_may_write_to_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(HostSetupError, match=r"others may write here \(mode 0777\); run: chmod go-w"):
        Hold(RunDir(tmp_path), SEGMENT)
    tmp_path.chmod(0o1777)
    Hold(RunDir(tmp_path), SEGMENT).release()


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "another user's", "writable by all"])
def test_a_lock_that_is_not_ours_is_refused_and_what_it_leads_to_stays(tmp_path: Path, kind: str) -> None:
    precious, run_dir = tmp_path / "precious", RunDir(tmp_path / "run")
    precious.write_text("keep me")
    run_dir.path.mkdir()
    match kind:
        case "symbolic link":
            run_dir.lock.symlink_to(precious)
        case "hard link":
            run_dir.lock.hardlink_to(precious)
        case "another user's":
            root_only()
            run_dir.lock.touch()
            os.chown(run_dir.lock, STRANGER, STRANGER)
        case _:
            run_dir.lock.touch()
            run_dir.lock.chmod(0o666)
    with pytest.raises(HostSetupError, match="is a link, or a file that another user can change"):
        Hold(run_dir, SEGMENT)
    assert precious.read_text() == "keep me"


@pytest.mark.parametrize("name", ["stamp", "state.json"])
def test_a_link_in_the_place_of_a_file_that_is_written_is_not_followed(tmp_path: Path, name: str) -> None:
    precious, run_dir = tmp_path / "precious", RunDir(tmp_path / "run")
    precious.write_text("keep me")
    run_dir.path.mkdir()
    for trap in (name, f"{name}.{os.getpid()}"):
        (run_dir.path / trap).symlink_to(precious)
    if name == "stamp":
        assert StampFile(run_dir.stamp, "boot").note(1, 0.0) is None
    else:
        run_dir.write_state({})
    assert precious.read_text() == "keep me"
    assert not (run_dir.path / name).is_symlink()


def test_what_another_user_wrote_is_not_read(tmp_path: Path) -> None:
    root_only()
    run_dir = RunDir(tmp_path)
    run_dir.write_state({"undo": ""})
    run_dir.stamp.write_text("1000 0.0 boot\n")
    for path in (run_dir.state, run_dir.stamp):
        os.chown(path, STRANGER, STRANGER)
    assert run_dir.read_state() is None
    assert StampFile(run_dir.stamp, "boot").read(0.0) == 0
    with pytest.raises(HostSetupError, match="not a file that only this user can change"):
        run_dir.load_state()


def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    for name in ("stamp", "state.json", "lock"):
        os.mkfifo(tmp_path / name)
    assert RunDir(tmp_path).read_state() is None
    assert StampFile(tmp_path / "stamp", "boot").read(0.0) == 0
    with pytest.raises(HostSetupError):
        Hold(RunDir(tmp_path), SEGMENT)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a":' * 50_000, "[]", "1" * 10_000, "\xff"])
def test_a_state_that_we_did_not_write_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HostSetupError, match=r"state\.json is not used: not our JSON") as caught:
        RunDir(tmp_path).load_state()
    assert "\n" not in str(caught.value)


def test_a_write_that_the_disk_takes_half_of_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDir(tmp_path).write_state({"old": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
    with pytest.raises(OSError, match="No space left"):
        RunDir(tmp_path).write_state({"new": 2})
    monkeypatch.undo()
    assert json.loads((tmp_path / "state.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]

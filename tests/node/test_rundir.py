"""The run directory: one node at a time, nothing left behind, and a dead node is no obstacle."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from l2overlay.errors import HostSetupError
from l2overlay.node.rundir import Hold, RunDir, StampFile, running_segments

SEGMENT = f"test-{os.getpid()}"


def other_process(code: str) -> "subprocess.Popen[str]":
    """A second node, as far as this module is concerned: it says a line when it holds, and then waits."""
    script = "from pathlib import Path\nfrom l2overlay.node.rundir import *\n" + textwrap.dedent(code)
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
    run_dir.write_stamp(5)
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


@pytest.mark.parametrize("content", [b"", b"-5", b"x", b"\xff\xff"])
def test_stamp_that_is_no_number_is_zero(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stamp").write_bytes(content)
    assert RunDir(tmp_path).read_stamp() == 0


def test_stamp_on_disk_is_never_below_one_that_was_used(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    file = StampFile(run_dir, reserve=100)
    writes = 0
    for stamp in range(0, 1000, 7):
        before = run_dir.read_stamp()
        assert file.keep_ahead(stamp, now=0.0) is None
        assert run_dir.read_stamp() > stamp
        writes += run_dir.read_stamp() != before
    assert writes <= 1000 / 50 + 1


def test_stamp_that_cannot_be_written_is_told_once_a_minute(tmp_path: Path) -> None:
    file = StampFile(RunDir(tmp_path / "missing"), reserve=100)
    told = [now for now in range(181) if file.keep_ahead(now, now=float(now))]
    assert told == [0, 60, 120, 180]

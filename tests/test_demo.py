"""The real `l2overlay demo`, once, as a person runs it.

g1 --[br-demo h1]-- node ==(underlay)== node --[br-demo h2]-- g2        and h3, g3 likewise
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from l2overlay.cli.main import main
from l2overlay.demo.drawing import drawing
from l2overlay.testing.lab import child_environment, existing_namespaces

GUESTS = ("g1", "g2", "g3")


def run_verb(*argv: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "l2overlay", "demo", *argv]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=child_environment(), check=False
    )


@pytest.fixture(autouse=True, scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("notes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L2OVERLAY_DEMO_NOTES", str(folder))
        yield folder


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    done = run_verb("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.host
def test_everything_is_as_promised(demo: dict[str, Any]) -> None:
    assert demo["schema"] == "l2overlay.demo/1"
    assert (demo["ok"], demo["failures"]) == (True, [])


@pytest.mark.host
def test_every_node_is_ready_with_all_its_peers(demo: dict[str, Any]) -> None:
    assert set(demo["joined"]["ready"]) == {"h1", "h2", "h3"}
    assert all("2/2" in line for line in demo["joined"]["ready"].values())


@pytest.mark.host
def test_every_guest_has_pinged_every_other_one_in_both_families(demo: dict[str, Any]) -> None:
    answered = {
        (p["from"], p["to"], p["family"]) for p in demo["pinged"]["pings"] if p["received"] == p["sent"] > 0
    }
    assert answered == {(a, b, family) for a, b in permutations(GUESTS, 2) for family in (4, 6)}
    assert not any(p["duplicates"] for p in demo["pinged"]["pings"])


@pytest.mark.host
def test_the_stream_is_carried_byte_for_byte(demo: dict[str, Any]) -> None:
    assert demo["carried"]["intact"] is True
    assert demo["carried"]["bytes"] > 1_000_000
    assert demo["carried"]["bits_per_second"] > 0


@pytest.mark.host
def test_every_node_knows_where_each_guest_is(demo: dict[str, Any]) -> None:
    for host, stations in demo["learned"]["stations"].items():
        places = {s["guest"]: s["peer"] for s in stations if s["guest"]}
        assert places == {f"g{n}": None if host == f"h{n}" else f"h{n}" for n in (1, 2, 3)}


@pytest.mark.host
def test_the_canary_is_on_the_guests_link_and_not_on_the_underlay(demo: dict[str, Any]) -> None:
    seen = demo["overheard"]
    assert seen["guest_link"]["canary_frames"] > 0
    assert seen["underlay"]["canary_frames"] == 0
    assert seen["underlay"]["node_frames"] > 0
    assert seen["underlay"]["total_size"] > seen["guest_link"]["total_size"] / 2
    assert seen["underlay"]["commonest_byte"] < 0.02


@pytest.mark.host
def test_nothing_is_left_and_the_hosts_are_as_they_were(demo: dict[str, Any]) -> None:
    stopped = demo["stopped"]
    assert set(stopped["exit_codes"].values()) == {0}
    assert stopped["seconds"] < 2
    assert not any(stopped[what] for what in ("changed_hosts", "namespaces", "links", "processes", "files"))


def namespaces_of(lab: str) -> set[str]:
    return {name.removeprefix(f"{lab}-") for name in existing_namespaces() if name.startswith(f"{lab}-")}


@pytest.mark.host
def test_a_kept_demo_runs_until_it_is_stopped() -> None:
    done = run_verb("--hosts", "2", "--keep")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        (ping,) = (line.split() for line in done.stdout.splitlines() if "ping" in line and "netns" in line)
        lab = ping[ping.index("exec") + 1].removesuffix("-g1")
        assert namespaces_of(lab) == {"sw", "h1", "h2", "g1", "g2"}
        assert (
            subprocess.run([*ping, "-c", "2", "-i", "0.2"], stdout=subprocess.DEVNULL, check=False).returncode
            == 0
        )
    finally:
        stopped = run_verb("--stop")
    assert stopped.stdout == f"stopped: {lab}\n"
    assert not namespaces_of(lab)
    assert run_verb("--stop").stdout == "no demo is running\n"


@pytest.mark.host
def test_a_killed_demo_is_cleared_away_by_stop(notes: Path) -> None:
    command = [sys.executable, "-m", "l2overlay", "demo", "--hosts", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        assert process.stdout is not None
        while "READY" not in process.stdout.readline():
            pass
        process.kill()
    assert namespaces_of(f"l2o-{process.pid}-1")
    assert f"stopped: l2o-{process.pid}-1" in run_verb("--stop").stdout
    assert not namespaces_of(f"l2o-{process.pid}-1")
    assert not list(notes.glob(f"l2o-{process.pid}-*"))


@pytest.mark.host
def test_stop_leaves_a_demo_in_progress_alone() -> None:
    command = [sys.executable, "-m", "l2overlay", "demo", "--hosts", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        assert process.stdout is not None
        while "READY" not in process.stdout.readline():
            pass
        assert run_verb("--stop").stdout == "no demo is running\n"
        assert "everything works as promised" in process.communicate(timeout=60)[0]


def test_without_root_it_names_the_command_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["demo"]) == 5
    assert f"sudo {sys.executable} -m l2overlay demo" in capsys.readouterr().err


BARE_CHROOT = """\
set -e
for entry in /*; do
    if [ -L "$entry" ]; then cp -d "$entry" "$0$entry"
    elif [ -d "$entry" ]; then mkdir "$0$entry"; mount --rbind "$entry" "$0$entry"; fi
done
exec chroot "$0" "$@"
"""


@pytest.mark.host
def test_in_a_chroot_whose_root_is_no_mount_point_the_remedy_is_named(tmp_path: Path) -> None:
    argv = [
        "unshare",
        "-m",
        "sh",
        "-c",
        BARE_CHROOT,
        str(tmp_path),
        sys.executable,
        "-m",
        "l2overlay",
        "demo",
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, env=child_environment(), check=False
    )
    assert done.returncode == 1
    assert "mount --bind DIR DIR && chroot DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("count", ["1", "17", "three"])
def test_a_number_of_hosts_that_cannot_be_is_refused(count: str) -> None:
    done = run_verb("--hosts", count)
    assert done.returncode == 2
    assert "2 to 16" in done.stderr


@pytest.mark.parametrize("hosts", range(2, 17))
def test_the_drawing_fits_a_terminal(hosts: int) -> None:
    lines = drawing(hosts)
    assert max(map(len, lines)) <= 80
    assert f"g{hosts} 10.9.0.{hosts}" in lines[-1]

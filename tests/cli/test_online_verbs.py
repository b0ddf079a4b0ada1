"""status, peers, fdb, events, reload, leave, cleanup: what they ask, what they print, and their exit codes.

The node is a thread that gives fixed answers at a real socket; that real nodes give such answers is in tests/host.
"""

import json
import os
import socket
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from l2overlay.cli.output import ago, duration, short_time, size
from l2overlay.cli.target import chosen_run_dir
from l2overlay.control.run_dir import Hold, RunDir
from l2overlay.errors import NoDaemonError, UsageError
from l2overlay.linux.undo import Undo
from tests.cli.calling import Call

PEER = {
    "name": "athens",
    "public_key": "AAAA",
    "endpoint": "192.0.2.1:7470",
    "configured_endpoint": "192.0.2.1:7470",
    "up": True,
    "state": "up",
    "reason": "",
    "next_try": None,
    "rtt": 0.00031,
    "last_heard": 14.2,
    "session_age": 60.0,
    "datagram_size": 1472,
    "cars": 22,
    "stations": 2,
    "queued_frames": 0,
    "counters": {
        "rx_frames": 1,
        "rx_bytes": 12_345_678,
        "rx_datagrams": 1,
        "tx_frames": 1,
        "tx_bytes": 999,
        "tx_datagrams": 1,
    },
    "drops": {},
}
SILENT = {
    **PEER,
    "name": "bern",
    "up": False,
    "reason": "no answer to 3 handshakes",
    "next_try": 3.2,
    "rtt": None,
}
STATUS = {
    "schema": "l2overlay.status/1",
    "segment": "lab",
    "node": "here",
    "public_key": "BBBB",
    "state": "ok",
    "degraded": [],
    "pid": 1,
    "uptime": 200.0,
    "mtu": 1500,
    "suite": "aesgcm",
    "tap": {"name": "tap-lab", "mac": "fe:00:00:00:00:01", "present": True, "offload": True},
    "bridge": {"name": "br-lab", "ports": ["tap-lab", "vm1"], "adopted": True},
    "underlay": {"port": 7470, "gso": True, "gro": False, "blocked": 0},
    "linger": {"seconds": 0.25, "rehearsals": 12},
    "loop_lag": {"p50": 0.0002, "p99": 0.0031},
    "log_lines_lost": 0,
    "peers_up": 1,
    "peers_total": 1,
    "peers": [PEER],
    "counters": {
        "rx_frames": 5,
        "rx_bytes": 5,
        "rx_datagrams": 5,
        "tx_frames": 5,
        "tx_bytes": 5,
        "tx_datagrams": 5,
    },
    "drops": {"no_peer": 3, "bad_tag": 0},
}


class FixedNode:
    """Gives the same answers to whoever asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.when_asked: Callable[[], None] = lambda: None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "control.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                line = lines.readline().decode()
                if line:
                    self._answer(connection, line, lines)
                    self.when_asked()

    def _answer(self, connection: socket.socket, line: str, lines: IO[bytes]) -> None:
        method, target, _ = line.split()
        length = 0
        while header := lines.readline().strip().lower():
            if header.startswith(b"content-length:"):
                length = int(header.split()[1])
        url = urlsplit(target)
        request = url.path.removeprefix("/v1/")
        arguments = json.loads(lines.read(length) or b"{}") | dict(parse_qsl(url.query))
        self.asked.append({"method": method, "request": request, **arguments})
        answers = self.answers[request]
        if request == "events":
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            content = b"".join(b"data: " + json.dumps(answer).encode() + b"\n\n" for answer in answers)
        else:
            content = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)
            head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) if answers else b""
        connection.sendall(head + content)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FixedNode]:
    made = FixedNode(tmp_path)
    yield made
    made.close()


def test_status_shows_the_node_and_a_line_a_peer(call: Call, node: FixedNode) -> None:
    node.answers["status"] = [STATUS]
    code, out, _ = call("status", "--run-dir", node.folder)
    assert code == 0
    assert out.startswith("segment lab  node here  ok  1/1 peers up, running for 3 minutes\n")
    assert "bridge     br-lab  ports tap-lab vm1" in out
    assert "UDP port 7470  gso on  gro off" in out
    assert out.split("LAST HEARD\n")[1].splitlines()[0].split() == (
        [
            "athens",
            "192.0.2.1:7470",
            "up",
            "0.31",
            "ms",
            "12.3",
            "MB",
            "999",
            "B",
            "2",
            "14",
            "seconds",
            "ago",
        ]
    )
    assert "dropped    3 no_peer\n" in out


def test_degraded_status_exits_4_with_reason_and_next_try_on_the_peers_line(
    call: Call, node: FixedNode
) -> None:
    node.answers["status"] = [
        {**STATUS, "state": "degraded", "degraded": ["peer bern is down"], "peers": [SILENT]}
    ]
    code, out, _ = call("status", "--run-dir", node.folder)
    assert code == 4
    assert "  degraded   peer bern is down\n" in out
    assert "down: no answer to 3 handshakes; next try in 3 s" in out


def test_peers_that_may_call_are_counted_and_shown_on_request(call: Call, node: FixedNode) -> None:
    caller = {
        **SILENT,
        "name": "cairo",
        "endpoint": None,
        "configured_endpoint": None,
        "last_heard": None,
        "next_try": None,
    }
    node.answers["status"] = [{**STATUS, "peers": [PEER, caller]}]
    assert "cairo" not in call("status", "--run-dir", node.folder)[1]
    assert "and 1 more that may call this host" in call("status", "--run-dir", node.folder)[1]
    assert "cairo" in call("status", "-v", "--run-dir", node.folder)[1]


def test_json_is_the_nodes_answer_unchanged(call: Call, node: FixedNode) -> None:
    node.answers["status"] = [STATUS]
    code, out, _ = call("status", "--json", "--run-dir", node.folder)
    assert (code, json.loads(out)) == (0, STATUS)


def test_peers_lists_the_running_nodes_peers(call: Call, node: FixedNode) -> None:
    node.answers["peers"] = [{"schema": "l2overlay.peers/1", "segment": "lab", "peers": [PEER, SILENT]}]
    code, out, _ = call("peers", "--run-dir", node.folder)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["PEER", "athens", "bern"]
    assert json.loads(call("peers", "list", "--json", "--run-dir", node.folder)[1])["peers"] == [PEER, SILENT]


def test_fdb_lists_stations_with_their_place(call: Call, node: FixedNode) -> None:
    stations = [
        {"mac": "52:54:00:00:00:01", "vlan": 0, "peer": "athens", "static": False, "age": 2.0},
        {"mac": "52:54:00:00:00:02", "vlan": 7, "peer": None, "static": True, "age": 0.0},
    ]
    node.answers["fdb"] = [{"schema": "l2overlay.fdb/1", "segment": "lab", "stations": stations}]
    code, out, _ = call("fdb", "--run-dir", node.folder)
    assert code == 0
    assert [" ".join(line.split()) for line in out.splitlines()[1:]] == [
        "52:54:00:00:00:01 - athens 2 seconds ago",
        "52:54:00:00:00:02 7 this host static",
    ]


def test_events_are_a_line_each_and_json_lines_for_programs(call: Call, node: FixedNode) -> None:
    event = {
        "schema": "l2overlay.event/1",
        "time": 1.0,
        "event": "peer_up",
        "text": "peer athens is up",
        "held_back": 0,
    }
    node.answers["events"] = [event, event]
    code, out, _ = call("events", "--run-dir", node.folder)
    assert code == 0
    assert [line.partition(" peer")[2] for line in out.splitlines()] == [" athens is up"] * 2
    assert [
        json.loads(line) for line in call("events", "-f", "--json", "--run-dir", node.folder)[1].splitlines()
    ] == [event] * 2
    assert [request["follow"] for request in node.asked] == ["false", "true"]


def test_follower_that_was_let_go_is_told_and_exits_1(call: Call, node: FixedNode) -> None:
    node.answers["events"] = [
        {"schema": "l2overlay.error/1", "error": "events came faster than they were read"}
    ]
    code, _, err = call("events", "-f", "--run-dir", node.folder)
    assert code == 1
    assert "faster than they were read" in err


def test_reload_prints_the_difference(call: Call, node: FixedNode) -> None:
    node.answers["reload"] = [
        {"schema": "l2overlay.reload/1", "changes": ["+ peer bern"], "restart": [], "errors": []}
    ]
    assert call("reload", "--run-dir", node.folder)[:2] == (0, "+ peer bern\n")


def test_reload_that_failed_prints_every_mistake_and_exits_78(call: Call, node: FixedNode) -> None:
    errors = ["peers.toml:3:1: no", "peers.toml:9:1: neither"]
    node.answers["reload"] = [
        {"schema": "l2overlay.reload/1", "changes": [], "restart": [], "errors": errors}
    ]
    code, out, err = call("reload", "--run-dir", node.folder)
    assert (code, out) == (78, "")
    assert err.splitlines() == [*errors, "the node keeps its old configuration"]


def test_leave_waits_for_the_lock(call: Call, node: FixedNode) -> None:
    hold = Hold(RunDir(node.folder), f"test-{os.getpid()}")
    node.when_asked = hold.release
    node.answers["leave"] = [{"schema": "l2overlay.leave/1", "segment": "lab", "pid": 1}]
    assert call("leave", "--run-dir", node.folder)[:2] == (0, "left segment lab\n")


def test_leave_tells_of_a_bridge_that_stays_and_passes_purge_on(call: Call, node: FixedNode) -> None:
    said = {
        "schema": "l2overlay.leave/1",
        "segment": "lab",
        "pid": 1,
        "bridge": "br-lab",
        "kept_for": ["vnet0"],
    }
    node.answers["leave"] = [said]
    code, out, _ = call("leave", "--purge", "--run-dir", node.folder)
    assert code == 0
    assert "the bridge br-lab stays, because others have ports in it (vnet0)" in out
    assert node.asked[-1]["purge"] is True


def test_no_node_is_exit_3_with_what_to_do(call: Call, tmp_path: Path) -> None:
    for verb in ("status", "peers", "fdb", "events", "reload", "leave"):
        code, _, err = call(verb, "--run-dir", tmp_path)
        assert code == 3
        assert "'l2overlay join' with the same --run-dir starts one" in err


def test_node_that_refuses_is_exit_1_with_its_words(call: Call, node: FixedNode) -> None:
    node.answers["status"] = [{"schema": "l2overlay.error/1", "error": "more than 16 clients; try again"}]
    assert call("status", "--run-dir", node.folder)[::2] == (
        1,
        "l2overlay: more than 16 clients; try again\n",
    )


def test_segment_that_is_a_path_is_a_usage_error(call: Call) -> None:
    code, _, err = call("status", "../etc")
    assert code == 2
    assert "did you mean --run-dir ../etc" in err


# Which node is meant


def named(segment: str | None = None, run_dir: Path | None = None) -> Namespace:
    return Namespace(segment=segment, run_dir=run_dir)


def test_one_running_segment_needs_no_name_and_several_are_listed(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError):
        chosen_run_dir(named(), tmp_path)
    a = Hold(RunDir(tmp_path / "a"), f"test-{os.getpid()}-a")
    assert chosen_run_dir(named(), tmp_path).path == tmp_path / "a"
    b = Hold(RunDir(tmp_path / "b"), f"test-{os.getpid()}-b")
    with pytest.raises(UsageError, match="several nodes run here: a, b; name one of these segments"):
        chosen_run_dir(named(), tmp_path)
    b.release()
    a.release()


def test_run_dir_counts_more_than_a_name(tmp_path: Path) -> None:
    assert chosen_run_dir(named("lab", tmp_path)).path == tmp_path


# cleanup


def test_cleanup_of_a_running_node_is_refused_with_its_pid(call: Call, tmp_path: Path) -> None:
    hold = Hold(RunDir(tmp_path), f"test-{os.getpid()}")
    code, _, err = call("cleanup", "--run-dir", tmp_path)
    hold.release()
    assert code == 1
    assert f"running (pid {os.getpid()})" in err


def test_cleanup_removes_the_files_of_a_dead_node(call: Call, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run_dir.lock.write_text(f"1\n{run_dir.path}\n")
    run_dir.write_state({"undo": Undo().to_json()})
    assert call("cleanup", "--run-dir", run_dir.path)[:2] == (0, "nothing to undo\n")
    assert not run_dir.path.exists()


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"undo": "' + "[" * 100_000 + '"}', '{"undo": 7}', "{}"]
)
def test_cleanup_leaves_what_it_cannot_read(call: Call, tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    code, _, err = call("cleanup", "--run-dir", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert "state.json is not used: " in err
    assert "nothing was undone: check 'ip link', then remove the file" in err
    assert (tmp_path / "state.json").exists()


def test_join_needs_a_segment_or_a_file(call: Call) -> None:
    assert call("join")[0] == 2
    assert call("join", "lab", "--peers", "peers.toml")[0] == 2
    code, _, err = call("join", "peers.toml")
    assert code == 2
    assert "write --peers peers.toml" in err


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "3601"])
def test_join_refuses_a_linger_that_is_no_time(call: Call, text: str) -> None:
    code, _, err = call("join", "lab", "--linger", text)
    assert code == 2
    assert f"{text!r} is not a number of seconds from 0 to 3600" in err


def test_status_tells_of_rehearsals(call: Call, node: FixedNode) -> None:
    node.answers["status"] = [STATUS]
    assert "0.25 s after a lone frame, 12 rehearsals" in call("status", "-v", "--run-dir", node.folder)[1]


def test_numbers_for_developers_are_not_on_the_first_page(call: Call, node: FixedNode) -> None:
    node.answers["status"] = [STATUS]
    first_page = call("status", "--run-dir", node.folder)[1]
    assert not any(word in first_page for word in ("loop lag", "rehearsal", "linger", "aesgcm"))
    verbose = call("status", "-v", "--run-dir", node.folder)[1]
    assert "p50 0.20 ms  p99 3.10 ms" in verbose
    assert "aesgcm" in verbose
    assert json.loads(call("status", "--json", "--run-dir", node.folder)[1])["loop_lag"] == STATUS["loop_lag"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (2e5, "2 days"),
    ],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_and_sizes_read_well() -> None:
    assert [ago(None), ago(0.5), ago(14.9)] == ["never", "now", "14 seconds ago"]
    assert [size(999), size(1000), size(999_960), size(12_345_678), size(10**16)] == [
        "999 B",
        "1.0 kB",
        "1.0 MB",
        "12.3 MB",
        "10000.0 TB",
    ]
    assert [short_time(None), short_time(0.00031), short_time(0.0124), short_time(1.25)] == [
        "-",
        "0.31 ms",
        "12.4 ms",
        "1.2 s",
    ]

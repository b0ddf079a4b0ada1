"""The filter on real nodes, real iptables and real guests.

    alpha [br-lab]--tap--(node, filters)===+===(node)--tap--[br-lab] beta
      |  g1                                |                     |  g2
      |  g4 (only in some tests)    gamma (node)--[br-lab]--g3

Only alpha filters; the other two have the same file without `[filter]`.
"""

import fcntl
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable

import pytest

from l2overlay.addresses import MacAddress
from l2overlay.linux.firewall import Firewall, absent_parts, remove
from l2overlay.linux.iptables import FilterSpec
from l2overlay.testing.lab import Guest, Host, Lab, NodeProcess, Snapshot, differences
from tests.filter.writing import filter_of, rule
from tests.host.stations_filter import docker_rules, refuses, serve, status_filter, tool_folder
from tests.linux.conftest import inside

OpenLab = Callable[..., Lab]
DENY_IN = '[filter]\ndefault_in = "drop"\n'


class Filtered:
    """A lab whose first host filters."""

    def __init__(self, lab: Lab, table: str, hosts: int = 2) -> None:
        self.lab = lab
        self.hosts = lab.add_underlay(hosts, names=("alpha", "beta", "gamma")[:hosts])
        self.guests = [lab.add_guest(host) for host in self.hosts]
        self.peers_file = lab.write_peers_toml()
        self.file = lab.folder / "alpha.toml"
        self.write(table)

    @property
    def alpha(self) -> Host:
        return self.hosts[0]

    def write(self, table: str) -> None:
        self.file.write_text(self.peers_file.read_text() + table)

    def start(self) -> NodeProcess:
        """All nodes; returns the one that filters."""
        node = self.lab.start_node(self.alpha, peers_file=self.file)
        for host in self.hosts[1:]:
            self.lab.start_node(host)
        self.lab.wait_ready()
        return node

    def rules(self) -> str:
        """Everything of both families and of nftables."""
        run = self.alpha.run
        return (
            run(["iptables-save"]).stdout
            + run(["ip6tables-save"]).stdout
            + run(["nft", "list", "ruleset"]).stdout
        )

    def snapshot(self) -> tuple[Snapshot, str]:
        said = re.sub(
            r"^#.*\n|\[\d+:\d+\]|counter packets \d+ bytes \d+", "", self.rules(), flags=re.MULTILINE
        )
        return self.lab.snapshot(self.alpha), said


def assert_equal(before: tuple[Snapshot, str], after: tuple[Snapshot, str]) -> None:
    assert differences(before[0], after[0]) == []
    assert before[1] == after[1]


def counted(node: NodeProcess, label: str, family: str) -> int:
    (rule,) = (r for r in node.ask("filter")["rules"] if r["label"] == label and r["direction"] == "in")
    return int(rule[family]["frames"])


def test_default_deny_refuses_what_remote_guests_open_and_lets_replies_pass_in_both_families(
    lab: OpenLab,
) -> None:
    net = Filtered(lab(), DENY_IN)
    node = net.start()
    g1, g2 = net.guests
    with serve(g1, 80), serve(g2, 80):
        for family, one, two in (("ipv4", g1.ipv4, g2.ipv4), ("ipv6", g1.ipv6, g2.ipv6)):
            assert not refuses(g1, two, 80), family
            dropped = counted(node, "default in", family)
            assert refuses(g2, one, 80), family
            assert counted(node, "default in", family) > dropped
            assert counted(node, "established", family) > 0
            assert counted(node, "neighbour discovery", "ipv6") > 0 or family == "ipv4"
    assert status_filter(node)["dropped"].keys() <= {"in: default in"}


def test_a_rule_on_a_peer_follows_its_stations_and_no_frame_is_judged_as_another_peers(lab: OpenLab) -> None:
    """The station of g2 moves from beta to gamma and back; only beta may."""
    table = DENY_IN + '[[filter.rules]]\ndirection = "in"\naction = "accept"\nsource = "beta"\n'
    net = Filtered(lab(), table, hosts=3)
    node = net.start()
    g1, g2, g3 = net.guests
    assert net.lab.ping(g2, g1.ipv4, count=3, wait=2).lost == 0
    with net.lab.capture(g1, "eth0", f"icmp and ether src {g2.mac}") as capture:
        impersonate(g3, g2)
        assert net.lab.ping(g3, g1.ipv4, count=10, interval=0.02, wait=0.3).received == 0
    assert capture.frames() == []  # from its first frame on it was gamma's
    g3.ip("link set eth0 down")
    g2.ip("link set eth0 up")
    first = net.lab.ping(g2, g1.ipv4, count=1, wait=1)
    assert first.received == 1
    assert first.rtt is not None
    assert first.rtt < 0.1, f"the rules followed after {first.rtt:.3f} s"
    assert "moved from beta to gamma" in node.output()


def impersonate(guest: Guest, other: Guest) -> None:
    """`other` vanishes, and turns up with its addresses where `guest` was."""
    other.ip("link set eth0 down")
    guest.ip(
        "link set eth0 down",
        "addr flush dev eth0",
        f"link set eth0 address {other.mac}",
        "link set eth0 up",
        f"addr add {other.ipv4}/24 dev eth0",
    )


def test_a_rule_on_a_station_goes_with_it_wherever_it_moves(lab: OpenLab) -> None:
    table = DENY_IN + '[[filter.rules]]\ndirection = "in"\naction = "accept"\nsource = "52:54:09:00:00:02"\n'
    net = Filtered(lab(), table, hosts=3)
    net.start()
    g1, g2, g3 = net.guests
    assert net.lab.ping(g2, g1.ipv4).lost == 0
    assert net.lab.ping(g3, g1.ipv4, wait=0.3).received == 0
    impersonate(g3, g2)
    assert net.lab.ping(g3, g1.ipv4).lost == 0


def test_a_rule_outward_to_a_peer_stops_what_goes_to_its_stations_only(lab: OpenLab) -> None:
    table = '[filter]\n[[filter.rules]]\ndirection = "out"\naction = "drop"\ndestination = "beta"\nprotocol = "icmp"\n'
    net = Filtered(lab(), table, hosts=3)
    node = net.start()
    g1, g2, g3 = net.guests
    assert net.lab.ping(g1, g2.ipv4, wait=0.3).received == 0
    assert net.lab.ping(g1, g3.ipv4, wait=1).received > 0
    with serve(g2, 80):
        assert not refuses(g1, g2.ipv4, 80)
    assert net.lab.ping(g2, g1.ipv4).lost == 0  # its echo replies belong to a connection that beta opened
    rules = {r["label"]: r for r in node.ask("filter")["rules"] if r["direction"] == "out"}
    assert rules["rule 1"]["ipv4"]["frames"] == 3


def test_frames_for_the_host_itself_meet_the_filter_and_then_the_hosts_own_rules(lab: OpenLab) -> None:
    accept = (
        DENY_IN
        + '[[filter.rules]]\ndirection = "in"\naction = "accept"\nprotocol = "tcp"\nports = [80, 81]\n'
    )
    net = Filtered(lab(), accept)
    net.alpha.ip("addr add 10.9.0.100/24 dev br-lab")
    net.alpha.run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "81", "-j", "DROP"])
    net.start()
    with serve(net.alpha, 80), serve(net.alpha, 81), serve(net.alpha, 82):
        assert [refuses(net.guests[1], "10.9.0.100", port) for port in (80, 81, 82)] == [
            "",
            "timeout",
            "timeout",
        ]


def test_reject_answers_at_once_where_the_host_has_a_route_back(lab: OpenLab) -> None:
    net = Filtered(lab(), '[filter]\ndefault_in = "reject"\n')
    net.start()
    g1, g2 = net.guests
    with serve(g1, 80):
        assert refuses(g2, g1.ipv4, 80) == "timeout"  # no route to 10.9.0.0/24 on the host: as drop
        net.alpha.ip("addr add 10.9.0.100/24 dev br-lab", "addr add fd09::100/64 dev br-lab nodad")
        assert refuses(g2, g1.ipv4, 80) == "refused"
        assert refuses(g2, g1.ipv6, 80) == "refused"


def test_tagged_frames_do_not_pass_the_filter_unseen(lab: OpenLab) -> None:
    net = Filtered(lab(), DENY_IN)
    node = net.start()
    g1, g2 = net.guests
    g2.ip("route add 10.9.9.0/24 dev eth0")
    net.lab.ping(g1, g2.ipv4, count=1)
    # VID 0, which a Linux guest takes as untagged
    frame = bytes.fromhex("525409000001525409000002810000000800") + bytes(46)
    with net.lab.capture(g1, "eth0", f"ether src {g2.mac}") as capture, inside(g2):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for _ in range(3):
                raw.send(frame)
        time.sleep(0.3)
    assert capture.frames() == []
    assert node.ask("status")["drops"]["filter_tagged"] == 3


DOCKER = docker_rules()


@pytest.mark.parametrize("foreign", ["", DOCKER], ids=["empty host", "Docker's chains"])
def test_leaving_restores_every_rule_flag_and_sysctl_also_after_sigkill(lab: OpenLab, foreign: str) -> None:
    net = Filtered(
        lab(), DENY_IN + '[[filter.rules]]\ndirection = "out"\naction = "drop"\nprotocol = "udp"\n'
    )
    if foreign:
        for program in ("iptables-restore", "ip6tables-restore"):
            net.alpha.run([program], stdin=foreign)
    before = net.snapshot()
    node = net.start()
    assert net.lab.ping(net.guests[0], net.guests[1].ipv4).lost == 0  # though Docker's FORWARD drops
    assert "L2O-lab-in" in net.rules()
    assert "DOCKER-USER" in net.rules() or not foreign
    assert node.terminate() == 0
    assert_equal(before, net.snapshot())
    again = net.lab.start_node(net.alpha, peers_file=net.file)
    again.wait_ready()
    again.kill()
    assert "L2O-lab-in" in net.rules()
    third = net.lab.start_node(net.alpha, peers_file=net.file)
    third.wait_ready()
    assert third.ask("filter")["problems"] == []
    assert third.terminate() == 0
    assert_equal(before, net.snapshot())


def test_cleanup_takes_away_what_a_killed_node_left(lab: OpenLab) -> None:
    net = Filtered(lab(), DENY_IN)
    before = net.snapshot()
    node = net.lab.start_node(net.alpha, peers_file=net.file)
    node.wait_ready()
    node.kill()
    said = node.ask("cleanup")
    assert any("remove the filter of lab" in line for lines in said["undone"].values() for line in lines)
    assert_equal(before, net.snapshot())


def test_a_start_without_filter_removes_that_of_a_killed_node(lab: OpenLab) -> None:
    net = Filtered(lab(), DENY_IN)
    killed = net.lab.start_node(net.alpha, peers_file=net.file)
    killed.wait_ready()
    killed.kill()
    net.lab.start_node(net.alpha).wait_ready()
    assert "L2O" not in net.rules()
    assert "nf_call_iptables 0" in net.alpha.run(["ip", "-d", "link", "show", "br-lab"]).stdout


def test_without_filter_no_program_is_run_and_no_rule_or_flag_touched(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), "")
    folder, calls = tool_folder(net.lab.folder / "bin"), net.lab.folder / "calls"
    for program in (
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables-save",
        "ip6tables-restore",
        "nft",
    ):
        (folder / program).write_text(f"#!/bin/sh\necho {program} >> {calls}\n")
        (folder / program).chmod(0o755)
    before = net.snapshot()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    node = net.start()
    assert net.lab.ping(*reversed_pair(net)).lost == 0
    monkeypatch.undo()
    assert before[1] == net.snapshot()[1]
    assert not calls.exists()
    assert "filter" not in node.ask("status")


def reversed_pair(net: Filtered) -> tuple[Guest, str]:
    return net.guests[1], net.guests[0].ipv4


def test_a_lost_hook_a_flush_and_a_hook_pushed_back_are_events_and_are_repaired(lab: OpenLab) -> None:
    net = Filtered(lab(), DENY_IN)
    node = net.start()
    damages = (
        ["iptables", "-D", "FORWARD", "1"],
        ["ip6tables", "-F"],
        ["iptables", "-I", "FORWARD", "1", "-j", "ACCEPT"],
        ["ip", "link", "set", "br-lab", "type", "bridge", "nf_call_iptables", "0"],
    )
    for number, damage in enumerate(damages, 1):
        net.alpha.run(damage)
        wait_until(lambda wanted=number: node.output().count("all rules are in place again") == wanted, 12)  # type: ignore[misc]
        assert node.ask("filter")["problems"] == []
        assert net.lab.ping(*reversed_pair(net), count=1, wait=0.3).received == 0
    assert "filter: iptables: FORWARD has lost our hook" in node.output()
    assert "has our hook behind another rule" in node.output()


def wait_until(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def start_that_fails(net: Filtered) -> tuple[int, str]:
    node = net.lab.start_node(net.alpha, peers_file=net.file)
    return node.process.wait(20), node.output()


def test_without_iptables_the_node_says_so_and_changes_nothing(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), DENY_IN)
    before = net.snapshot()
    monkeypatch.setenv("PATH", str(tool_folder(net.lab.folder / "bin", "ip")))
    code, said = start_that_fails(net)
    monkeypatch.undo()
    assert code == 1
    assert "[filter] needs iptables, which is not installed; apt install iptables, or remove [filter]" in said
    assert_equal(before, net.snapshot())


def test_when_ipv6_is_refused_ipv4_is_undone_and_the_tap_stays_out_of_the_bridge(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), DENY_IN)
    before = net.snapshot()
    folder = tool_folder(net.lab.folder / "bin")
    real, ports = shutil.which("ip6tables-restore"), net.lab.folder / "ports"
    (folder / "ip6tables-restore").write_text(
        f'#!/bin/sh\ncase "$*" in *--test*) exec {real} "$@";; esac\nbridge link > {ports}\n'
        'echo "ip6tables-restore: line 5 failed" >&2\nexit 1\n'
    )
    (folder / "ip6tables-restore").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    code, said = start_that_fails(net)
    monkeypatch.undo()
    assert code == 1
    assert "ip6tables-restore refused the rules of [filter] at `" in said
    assert "tap-lab" not in ports.read_text()
    assert_equal(before, net.snapshot())


def test_a_lock_that_is_held_is_told_after_five_seconds(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the legacy variant has a lock."""
    net = Filtered(lab(), DENY_IN)
    folder, lock = tool_folder(net.lab.folder / "bin"), net.lab.folder / "xtables.lock"
    for family in ("iptables", "ip6tables"):
        for part in ("", "-save", "-restore"):
            (folder / f"{family}{part}").symlink_to(shutil.which(f"{family}-legacy{part}") or "")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, said = start_that_fails(net)
    assert code == 1
    assert "another process has held the xtables lock for 5 s" in said
    assert not net.alpha.has_link("tap-lab")
    assert "L2O" not in net.alpha.run(["iptables-legacy-save"]).stdout


def test_the_legacy_variant_filters_too_and_is_named(lab: OpenLab, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Filtered(lab(), DENY_IN)
    folder = tool_folder(net.lab.folder / "bin")
    for family in ("iptables", "ip6tables"):
        for part in ("", "-save", "-restore"):
            (folder / f"{family}{part}").symlink_to(shutil.which(f"{family}-legacy{part}") or "")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    node = net.start()
    assert node.ask("filter")["variant"] == "legacy"
    assert net.lab.ping(*reversed_pair(net), wait=0.3).received == 0
    assert net.lab.ping(net.guests[0], net.guests[1].ipv4).lost == 0
    assert node.terminate() == 0
    assert "L2O" not in net.alpha.run(["iptables-legacy-save"]).stdout


def test_a_reload_changes_rules_and_leaves_established_connections_alone(lab: OpenLab) -> None:
    net = Filtered(
        lab(), DENY_IN + '[[filter.rules]]\ndirection = "in"\naction = "accept"\nprotocol = "tcp"\n'
    )
    node = net.start()
    g1, g2 = net.guests
    with serve(g1, 80), inside(g2), socket.create_connection((g1.ipv4, 80), timeout=3) as connection:
        net.write(DENY_IN)
        assert node.ask("reload")["changes"] == ["filter: rules changed (1 -> 0)"]
        assert refuses(g2, g1.ipv4, 80)
        for _ in range(3):
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"


def test_a_reload_turns_the_filter_on_and_off_and_off_is_as_before(lab: OpenLab) -> None:
    net = Filtered(lab(), "")
    before = net.snapshot()
    node = net.start()
    for table, change, gets_through in (
        (DENY_IN, "filter: added", False),
        ("", "filter: removed", True),
        (DENY_IN, "filter: added", False),
        ("[filter]\n", "filter: default_in drop -> accept", True),
    ):
        net.write(table)
        assert node.ask("reload")["changes"] == [change]
        assert (net.lab.ping(*reversed_pair(net), wait=0.3).received > 0) is gets_through
    assert net.snapshot()[1] == before[1]
    assert "nf_call_iptables 0" in net.alpha.run(["ip", "-d", "link", "show", "br-lab"]).stdout


def test_a_reload_that_iptables_refuses_keeps_the_old_rules(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), DENY_IN)
    folder = tool_folder(net.lab.folder / "bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    node = net.start()
    (folder / "ip6tables-restore").write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    (folder / "ip6tables-restore").chmod(0o755)
    net.write(DENY_IN + '[[filter.rules]]\ndirection = "in"\naction = "accept"\n')
    argv = [sys.executable, "-m", "l2overlay", "filter", "reload", "--run-dir", str(node.run_dir)]
    said = net.alpha.run(argv, check=False)
    assert said.returncode != 0
    assert "no such luck" in node.output()
    assert net.lab.ping(*reversed_pair(net), wait=0.3).received == 0


def test_guests_of_this_host_talk_as_before_where_docker_drops_forwarded_frames(lab: OpenLab) -> None:
    """bridge_nf is off but for our flag: frames between local ports must not meet rules that they never met."""
    net = Filtered(lab(), DENY_IN)
    neighbour = net.lab.add_guest(net.alpha)
    net.alpha.run(["sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $f; done"])
    net.alpha.run(["iptables-restore"], stdin=DOCKER)
    net.start()
    assert net.lab.ping(neighbour, net.guests[0].ipv4).lost == 0
    assert net.lab.ping(*reversed_pair(net), wait=0.3).received == 0
    assert net.lab.ping(net.guests[0], net.guests[1].ipv4).lost == 0


def test_a_thousand_stations_are_loaded_within_a_second_and_one_that_moves_within_a_tenth(
    lab: OpenLab,
) -> None:
    opened = lab()
    host = opened.add_host()
    config = filter_of(rule("in", "drop", source="beta") + rule("out", "drop", destination="beta"))
    spec = FilterSpec("lab", "tap-lab", "br-lab", "alpha", config)
    stations = {MacAddress(bytes([2, n % 7, 0, 0, n >> 8, n & 255])): "beta" for n in range(1000)}
    with inside(host):
        absent = absent_parts()
        firewall = Firewall("lab")
        began = time.monotonic()
        firewall.install(spec, stations)
        loaded = time.monotonic()
        firewall.move(dict(list(stations.items())[:-1]))
        moved = time.monotonic()
        assert firewall.look()[0] == []
        remove("lab", absent)
    assert loaded - began < 1, f"loading took {loaded - began:.3f} s"
    assert moved - loaded < 0.1, f"moving took {moved - loaded:.3f} s"
    assert host.run(["nft", "list", "ruleset"]).stdout == ""


def test_sigterm_while_the_rules_are_loaded_leaves_nothing(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), DENY_IN)
    before = net.snapshot()
    folder, there = tool_folder(net.lab.folder / "bin"), net.lab.folder / "there"
    real = shutil.which("ip6tables-restore")
    (folder / "ip6tables-restore").write_text(
        f'#!/bin/sh\ncase "$*" in *--test*) ;; *) touch {there}; sleep 0.5;; esac\nexec {real} "$@"\n'
    )
    (folder / "ip6tables-restore").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    node = net.lab.start_node(net.alpha, peers_file=net.file)
    wait_until(there.exists, 20)
    node.process.send_signal(signal.SIGTERM)
    node.process.wait(10)
    monkeypatch.undo()
    assert_equal(before, net.snapshot())


def test_a_look_at_the_rules_that_fails_once_is_an_error_answer_and_the_node_lives(
    lab: OpenLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Filtered(lab(), DENY_IN)
    folder, broken = tool_folder(net.lab.folder / "bin"), net.lab.folder / "broken"
    real = shutil.which("iptables-save")
    (folder / "iptables-save").write_text(
        f'#!/bin/sh\n[ -e {broken} ] && {{ echo "no such luck" >&2; exit 1; }}\nexec {real} "$@"\n'
    )
    (folder / "iptables-save").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    node = net.start()
    broken.touch()
    argv = [sys.executable, "-m", "l2overlay", "filter", "--run-dir", str(node.run_dir)]
    said = net.alpha.run(argv, check=False)
    assert said.returncode != 0
    assert "iptables-save" in said.stderr
    assert "no such luck" in said.stderr
    assert "Traceback" not in said.stderr
    broken.unlink()
    assert node.ask("filter")["problems"] == []
    assert net.lab.ping(*reversed_pair(net), wait=0.3).received == 0
    assert node.terminate() == 0

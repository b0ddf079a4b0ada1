"""Whole nodes on fakes: TAP and UDP beneath the seams, a side that only notes what it is asked, time that jumps.

guest -- FakeTap (node a) FakeUdp -- Network -- FakeUdp (node b) FakeTap -- guest          every -- is a socketpair
"""

import dataclasses
import errno
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from l2overlay import keys
from l2overlay.addresses import Address, MacAddress
from l2overlay.config.read import load_config
from l2overlay.config.types import Config
from l2overlay.control import client
from l2overlay.control.run_dir import RunDir, StampFile
from l2overlay.dataplane.ethernet import PROBE_GROUP
from l2overlay.errors import HostSetupError
from l2overlay.linux.apply import Undone
from l2overlay.linux.changes import AddAddress
from l2overlay.linux.firewall import Firewall
from l2overlay.linux.link_counters import LinkCounters
from l2overlay.linux.links import ChangeKind, LinkChange
from l2overlay.linux.undo import Undo
from l2overlay.node import node as node_module
from l2overlay.node.attachment import HostSide, host_spec
from l2overlay.node.environment import Environment
from l2overlay.node.journal import LineWriter
from l2overlay.node.kernel_losses import KernelLosses
from l2overlay.node.node import Node
from l2overlay.node.progress import Progress
from l2overlay.overlay import Overlay
from tests.stanzas import stanza

from .fakes import FakeTap, FakeUdp

BROADCAST = bytes(10) + b"\xff" * 6 + bytes.fromhex("525400000001") + b"\x08\x00" + b"payload".ljust(46)


class FakeHostSide:
    """`HostSide` without a host: what it was asked to do is in `calls`."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        self.made = Undo()
        self.notes: list[str] = []
        self.troubles: tuple[str, ...] = ()
        self.adopted = False
        self.found_ours = False
        self.lost = 0
        self.losses = KernelLosses(spec.tap, spec.bridge, lambda _: LinkCounters(1, 0, self.lost))
        self.purge = False
        self.kept_for: tuple[str, ...] = ()
        self.ports = (spec.tap,)
        self.calls: list[str] = []
        self.fail: dict[str, str] = {}
        self.to_repair: list[list[str]] = []
        self.fake_tap: FakeTap | None = None
        self.firewall = Firewall(spec.segment)

    @property
    def own_macs(self) -> tuple[MacAddress, ...]:
        return (self.spec.tap_mac, self.spec.bridge_mac)

    @property
    def tap(self) -> Any:
        tap = self.fake_tap
        assert tap is not None
        tap.offloads = ("csum",)  # type: ignore[attr-defined]
        return tap

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise HostSetupError(self.fail[name])

    def open_tap(self) -> None:
        self._called("open_tap")
        self.fake_tap = FakeTap()
        self.made = Undo((AddAddress("x", "192.0.2.1/24"),))

    def set_up_bridge(self) -> None:
        self._called("set_up_bridge")

    def reopen_tap(self) -> Any:
        self._called("reopen_tap")
        self.tap.close()
        self.fake_tap = FakeTap()
        return self.fake_tap

    def forget_stations(self) -> None:
        self._called("forget_stations")

    def repair(self) -> list[str]:
        self._called("repair")
        return self.to_repair.pop(0) if self.to_repair else []

    def take_down(self) -> Undone:
        if self.fake_tap is not None:
            self.fake_tap.close()
        self._called("take_down")
        self.made = Undo()
        return Undone(())


class FakeWatch:
    """Changes that a test tells."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._changes: list[LinkChange] = []

    def tell(self, kind: ChangeKind, link: str, detail: str = "") -> None:
        self._changes.append(LinkChange(kind, link, detail))
        os.write(self._write, b"x")

    def receive_changes(self) -> list[LinkChange]:
        os.read(self._read, 100)
        changes, self._changes = self._changes, []
        return changes

    def ports(self, bridge: str) -> tuple[str, ...]:
        return ("tap-lan", "vm1")

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Network:
    """Carries datagrams between the nodes' sockets by address."""

    def __init__(self) -> None:
        self.sockets: dict[Address, FakeUdp] = {}

    async def carry(self, own: Address, udp: FakeUdp) -> None:
        """Until the node has closed its socket and everything has arrived."""
        with udp.underlay:
            while True:
                await trio.lowlevel.wait_readable(udp.underlay.fileno())
                lines = udp.sent()
                for line in lines:
                    host, port, payload = json.loads(line)
                    target = self.sockets.get(Address(host, port))
                    if target is not None and not target.closed:
                        target.arrive(bytes.fromhex(payload), own)
                if udp.closed and not lines:
                    return


class Stage:
    """A folder with a peers.toml for nodes a and b (192.0.2.1 and .2), and what is needed to run them."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.nursery = nursery
        self.network = Network()
        self.private = {name: keys.generate() for name in "ab"}
        self.peers_file = folder / "peers.toml"
        self.write()
        self.sides: dict[str, FakeHostSide] = {}
        self.watches: dict[str, FakeWatch] = {}
        self.port_taken: set[int] = set()

    def write(
        self,
        extra: str = "",
        *,
        ports: Sequence[int] = (7470, 7470),
        hosts: Sequence[str] = ("192.0.2.1", "192.0.2.2"),
    ) -> None:
        stanzas = [
            stanza(name, keys.public_key(self.private[name]), f'endpoint = "{host}:{port}"')
            for name, host, port in zip("ab", hosts, ports, strict=True)
        ]
        self.peers_file.write_text('[segment]\nname = "lab"\n' + extra + "\n" + "\n".join(stanzas))

    def node(self, name: str) -> Node:
        run_dir = RunDir(self.folder / name)
        run_dir.path.mkdir()
        config = load_config(self.peers_file)
        key = keys.public_key(self.private[name])
        side = self.sides[name] = FakeHostSide(host_spec(config, key))
        watch = self.watches[name] = FakeWatch()
        host = f"192.0.2.{'ab'.index(name) + 1}"
        log = os.open(self.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT)
        writer = LineWriter(log)
        environment = Environment(
            peers_file=self.peers_file,
            control_path=run_dir.socket,
            side=cast(HostSide, side),
            open_udp=lambda port, _host: self._open_udp(Address(host, port)),
            open_watch=lambda: watch,
            stamps=StampFile(run_dir.stamp, "boot"),
            writer=writer,
            progress=Progress(writer.write),
            clock=trio.current_time,
            lookup=self._no_names,
        )
        return Node(config, self.private[name], key, environment)

    def _open_udp(self, address: Address) -> FakeUdp:
        if address.port in self.port_taken:
            raise HostSetupError(f"UDP port {address.port} is in use")
        udp = FakeUdp()
        udp.port = address.port
        self.network.sockets[address] = udp
        self.nursery.start_soon(self.network.carry, address, udp)
        return udp

    async def _no_names(self, host: str, port: int) -> Sequence[Address]:
        raise OSError(errno.ENOENT, "Name or service not known")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[list[Node]]:
        """Nodes that are READY; they are told to leave at the end of the block."""
        async with trio.open_nursery() as nursery:
            nodes = [self.node(name) for name in names]
            for node in nodes:
                nursery.start_soon(node.run)
            for name in names:
                await self.until(name, "READY")
            yield nodes
            for node in nodes:
                node.leave()

    async def until(self, name: str, text: str) -> None:
        """Wait until the node's log says `text`."""
        with trio.fail_after(60):
            while True:
                if text in self.log(name):
                    return
                await trio.sleep(0.05)

    async def ask(self, name: str, request: str, **arguments: Any) -> dict[str, Any]:
        path = self.folder / name / "control.sock"
        ask = client.change if request in {"leave", "reload"} else client.ask
        return await trio.to_thread.run_sync(lambda: ask(path, request, **arguments))


async def received(side: FakeHostSide) -> bytes:
    """The next frame that reaches the guest; the loop guard's probes are nothing to it."""
    with trio.fail_after(60):
        while True:
            try:
                frame: bytes = side.tap.guest.recv(2000)
                if frame[10:16] != PROBE_GROUP:
                    return frame
            except BlockingIOError:
                await trio.sleep(0.01)


@contextmanager
def failing(kind: type[Exception], words: str) -> Iterator[None]:
    """The block ends with this error, somewhere among what trio's nurseries have gathered."""
    try:
        yield
    except BaseExceptionGroup as error:
        found = list(_leaves(error))
        assert any(isinstance(e, kind) and words in str(e) for e in found), found
        return
    pytest.fail(f"no {kind.__name__}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


@pytest.fixture
async def stage(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    autojump_clock.autojump_threshold = 0.001  # threads and sockets are work that trio does not see ...
    # ... meanwhile the clock jumps to the next deadline, so there must be none for a thread that undoes
    monkeypatch.setattr(node_module, "UNDO_TIME", float("inf"))
    return Stage(tmp_path, nursery)


async def test_two_nodes_come_up_carry_a_frame_and_leave(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a", "b"):
        stage.sides["a"].tap.guest.send(BROADCAST)
        assert await received(stage.sides["b"]) == BROADCAST
    for name in "ab":
        assert stage.sides[name].calls == ["open_tap", "set_up_bridge", "take_down"]
        assert "READY segment lab node" in stage.log(name)


async def test_start_says_a_line_a_phase_with_the_time(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a"):
        pass
    words = [line.split()[0] for line in stage.log("a").splitlines()]
    assert words[:5] == ["tap", "bridge", "underlay", "peers", "peer"]
    assert all(line.endswith(" s") for line in stage.log("a").splitlines()[:4])


async def test_silent_peer_delays_ready_by_a_second_and_is_named(
    autojump_clock: MockClock, stage: Stage
) -> None:
    started = trio.current_time()
    async with stage.running("a"):
        assert 0.9 < trio.current_time() - started < 1.5
    assert "peer b (192.0.2.2:7470) is not up:" in stage.log("a")
    assert "next try in" in stage.log("a")


async def test_endpoint_that_does_not_resolve_is_the_reason_given(
    autojump_clock: MockClock, stage: Stage
) -> None:
    stage.write(hosts=("192.0.2.1", "nowhere.example"))
    async with stage.running("a"):
        status = await stage.ask("a", "status")
    assert "peer b (nowhere.example:7470) is not up: nowhere.example does not resolve" in stage.log("a")
    assert status["state"] == "degraded"
    assert "nowhere.example does not resolve" in status["peers"][0]["reason"]
    assert status["peers"][0]["next_try"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_says_goodbye_and_undoes(
    autojump_clock: MockClock, stage: Stage, number: signal.Signals
) -> None:
    async with stage.running("b"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.node("a").run)
            await stage.until("a", "READY")
            started = trio.current_time()
            signal.raise_signal(number)  # both listen: they run in one process here
        assert trio.current_time() - started < 2.0
    assert stage.sides["a"].calls[-1] == "take_down"
    assert f"{number.name}: leaving" in stage.log("a")


async def test_peer_that_left_is_down_at_once(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("b"):
        async with stage.running("a"):
            pass
        left = trio.current_time()
        await stage.until("b", "peer a is down")
        assert trio.current_time() - left < 0.2


async def test_exception_in_the_pump_is_told_with_its_place_and_the_host_is_undone(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Overlay, frames: object, now: float) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Overlay, "receive_frames", broken)
    with failing(ZeroDivisionError, "a bug"):
        async with stage.running("a"):
            stage.sides["a"].tap.guest.send(BROADCAST)
            await trio.sleep(30)
    assert "the pump failed: ZeroDivisionError: a bug (in broken, test_node.py:" in stage.log("a")
    assert stage.sides["a"].calls[-1] == "take_down"


async def test_exception_in_the_timer_ends_the_node_too(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Overlay, now: float) -> None:
        raise ZeroDivisionError("a bug")

    with failing(ZeroDivisionError, "a bug"):
        async with stage.running("a"):
            monkeypatch.setattr(Overlay, "handle_timer", broken)
            await trio.sleep(30)
    assert "the timer failed" in stage.log("a") or "the loop lag failed" in stage.log("a")
    assert stage.sides["a"].calls[-1] == "take_down"


@pytest.mark.parametrize("step", ["open_tap", "set_up_bridge"])
async def test_host_that_refuses_ends_the_start_and_is_undone(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    node = stage.node("a")
    stage.sides["a"].fail[step] = "no"
    with failing(HostSetupError, "no"):
        await node.run()
    assert stage.sides["a"].calls[-1] == "take_down"
    assert "left segment" not in stage.log("a")


async def test_port_in_use_ends_the_start_and_is_undone(autojump_clock: MockClock, stage: Stage) -> None:
    stage.port_taken.add(7470)
    with failing(HostSetupError, "UDP port 7470 is in use"):
        await stage.node("a").run()
    assert stage.sides["a"].calls[-1] == "take_down"
    assert "left segment" not in stage.log("a")


async def test_undo_that_fails_is_told_and_its_notes_are_kept(
    autojump_clock: MockClock, stage: Stage
) -> None:
    with failing(HostSetupError, "bridge is busy"):
        async with stage.running("a"):
            stage.sides["a"].fail["take_down"] = "bridge is busy"
    assert stage.sides["a"].made.changes


# Reload


async def test_frames_lost_in_the_queue_of_the_tap_are_counted_and_told_once(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a"):
        assert (await stage.ask("a", "status"))["drops"]["tap_overflow"] == 0
        stage.sides["a"].lost = 9775
        for _ in range(2):
            assert (await stage.ask("a", "status"))["drops"]["tap_overflow"] == 9775
    assert stage.log("a").count("was full: 9775 frames of this host's side were lost") == 1


async def test_what_the_kernel_lost_is_looked_at_once_a_minute_unasked(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a"):
        stage.sides["a"].lost = 3
        await trio.sleep(61)
        assert "was full: 3 frames" in stage.log("a")


async def test_reload_of_a_broken_file_names_the_places_and_changes_nothing(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b") as (node, _):
        before = node.config
        stage.peers_file.write_text("[segment]\nname = 5\nmtu = 1\n")
        answer = await stage.ask("a", "reload")
        assert [line.split(": ")[0].rsplit("/")[-1] for line in answer["errors"]][:2] == [
            "peers.toml:2:8",
            "peers.toml:3:7",
        ]
        assert node.config is before
        assert (await stage.ask("a", "status"))["peers_up"] == 1
    assert "the old configuration stays in force" in stage.log("a")


async def test_reload_without_own_stanza_is_refused(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a") as (node,):
        before = node.config
        text = stage.peers_file.read_text()
        stage.peers_file.write_text(text[: text.index("[[peers]]")] + text[text.rindex("[[peers]]") :])
        assert "is not in it" in (await stage.ask("a", "reload"))["errors"][0]
        assert node.config is before


async def test_hangup_reloads(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a"):
        stage.write("ageing_time = 60")
        signal.raise_signal(signal.SIGHUP)
        await stage.until("a", "reloaded: 1 change")
    assert "reload: segment: ageing_time 300 s -> 60 s" in stage.log("a")


@pytest.mark.parametrize("is_good", [True, False])
async def test_reload_is_told_to_systemd_whoever_asks(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch, is_good: bool
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(stage.folder / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(stage.folder / "notify"))
        async with stage.running("a"):
            assert systemd.recv(100).startswith(b"READY=1")
            stage.write("" if is_good else "nonsense")
            before = time.monotonic_ns() // 1000
            await stage.ask("a", "reload")
            kind, _, stamp = systemd.recv(100).decode().partition("\nMONOTONIC_USEC=")
            assert (kind, systemd.recv(100)) == ("RELOADING=1", b"READY=1")
            assert before <= int(stamp) <= time.monotonic_ns() // 1000


async def test_reload_whose_host_change_fails_leaves_everything_as_it_was(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b") as (node, _):
        before, spec = node.config, stage.sides["a"].spec
        stage.sides["a"].fail["repair"] = "10.9.0.1/24 is on eth0"
        stage.write('addresses = { a = ["10.9.0.1/24"] }', ports=(7480, 7470))
        assert (await stage.ask("a", "reload"))["errors"] == ["10.9.0.1/24 is on eth0"]
        assert (node.config, stage.sides["a"].spec) == (before, spec)
        assert (await stage.ask("a", "status"))["underlay"]["port"] == 7470
        assert stage.network.sockets[Address("192.0.2.1", 7480)].closed


async def test_reload_that_fails_in_the_overlay_leaves_everything_as_it_was(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.running("a", "b") as (node, _):
        before, spec = node.config, stage.sides["a"].spec
        follow, seen = node.overlay.reconfigure, []

        def fail_once(config: Config, now: float) -> None:
            seen.append(config)
            follow(config, now)
            if len(seen) == 1:
                raise KeyError("a bug")

        monkeypatch.setattr(node.overlay, "reconfigure", fail_once, raising=False)
        stage.write('addresses = { a = ["10.9.0.1/24"] }', ports=(7480, 7470))
        (line,) = (await stage.ask("a", "reload"))["errors"]
        assert "KeyError: 'a bug' (in fail_once, test_node.py:" in line
        assert seen[1:] == [before]
        assert (node.config, stage.sides["a"].spec) == (before, spec)
        assert stage.network.sockets[Address("192.0.2.1", 7480)].closed
        assert (await stage.ask("a", "status"))["peers_up"] == 1
    assert "the old configuration stays in force" in stage.log("a")


async def test_reload_that_fails_while_the_file_is_checked_leaves_everything_as_it_was(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug")

    async with stage.running("a", "b") as (node, _):
        before = node.config
        monkeypatch.setattr("l2overlay.node.follower.read_again", fail)
        (line,) = (await stage.ask("a", "reload"))["errors"]
        assert "peers.toml: cannot be followed: ValueError: a bug (in fail, test_node.py:" in line
        assert node.config is before
        assert (await stage.ask("a", "status"))["peers_up"] == 1


async def test_task_that_fails_inside_a_nursery_is_told_by_its_own_place(
    autojump_clock: MockClock, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def culprit() -> None:
        raise KeyError("a bug")

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(culprit)

    with pytest.raises(ExceptionGroup):
        async with stage.running("a") as (node,):
            await node._watched("pump", in_a_nursery)
    assert "the pump failed: KeyError: 'a bug' (in culprit, test_node.py:" in stage.log("a")


async def test_reload_to_a_port_in_use_leaves_everything_as_it_was(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b") as (node, _):
        before = node.config
        stage.port_taken.add(7480)
        stage.write(ports=(7480, 7470))
        assert (await stage.ask("a", "reload"))["errors"] == ["UDP port 7480 is in use"]
        assert node.config is before
        stage.sides["a"].tap.guest.send(BROADCAST)
        assert await received(stage.sides["b"]) == BROADCAST


async def test_reload_to_another_port_keeps_the_sessions(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a", "b"):
        stage.write(ports=(7480, 7470))
        assert (await stage.ask("a", "reload"))["errors"] == []
        await stage.until("b", "peer a moved from 192.0.2.1:7470 to 192.0.2.1:7480")
        stage.sides["b"].tap.guest.send(BROADCAST)
        assert await received(stage.sides["a"]) == BROADCAST
        assert "is down" not in stage.log("b")


async def test_what_needs_a_restart_stays_as_it_was_and_is_named(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a") as (node,):
        stage.write("mtu = 9000\nageing_time = 60")
        answer = await stage.ask("a", "reload")
        assert answer["restart"] == ["mtu"]
        assert (node.config.segment.mtu, node.config.segment.ageing_time) == (1500, 60.0)


# The host changes under the node


async def test_lost_tap_is_made_again_and_used(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a", "b"):
        stage.sides["a"].tap.gone = True
        stage.sides["a"].tap.guest.send(BROADCAST)
        lost = trio.current_time()
        await stage.until("a", "repaired")
        assert trio.current_time() - lost < 1.0
        stage.sides["a"].tap.guest.send(BROADCAST)
        assert await received(stage.sides["b"]) == BROADCAST
    assert stage.sides["a"].calls[2:-1] == ["reopen_tap", "repair"]


async def test_tap_that_the_kernel_says_is_gone_is_made_again(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a"):
        stage.watches["a"].tell(ChangeKind.LINK_GONE, "tap-lab")
        await stage.until("a", "make the TAP tap-lab again")


async def test_what_cannot_be_repaired_is_a_trouble_until_it_can(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b"):
        stage.sides["a"].fail["repair"] = "the bridge br-lab was removed"
        stage.watches["a"].tell(ChangeKind.LINK_GONE, "br-lab")
        await stage.until("a", "degraded: the bridge br-lab was removed")
        assert (await stage.ask("a", "status"))["degraded"] == ["the bridge br-lab was removed"]
        await trio.sleep(30)
        assert stage.log("a").count("degraded") == 1  # tried again, and not told again
        assert stage.sides["a"].calls.count("repair") > 3
        stage.sides["a"].fail.clear()
        await stage.until("a", "repaired: all is as it should be again")
        assert (await stage.ask("a", "status"))["state"] == "ok"


async def test_repairs_that_have_to_be_repeated_become_rarer(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a"):
        stage.sides["a"].to_repair = [["put tap-lab into br-lab"]] * 1000
        started = trio.current_time()
        while trio.current_time() - started < 60:
            stage.watches["a"].tell(ChangeKind.MASTER_CHANGED, "tap-lab")
            await trio.sleep(0.1)
        assert 5 < stage.sides["a"].calls.count("repair") < 20


async def test_repairs_some_seconds_apart_are_each_made_within_a_second(
    autojump_clock: MockClock, stage: Stage
) -> None:
    """One fault can take several repairs in a row; the next fault does not wait for that."""
    async with stage.running("a"):
        calls = stage.sides["a"].calls
        for _ in range(6):
            stage.sides["a"].to_repair = [["put tap-lab into br-lab"]] * 3
            for _ in range(3):
                before = calls.count("repair")
                stage.watches["a"].tell(ChangeKind.MASTER_CHANGED, "tap-lab")
                await trio.sleep(0.9)
                assert calls.count("repair") == before + 1
            await trio.sleep(4.0)


async def test_change_of_a_link_that_carries_no_peer_is_ignored(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b"):
        stage.watches["a"].tell(ChangeKind.LINK_UP, "veth1234")
        await trio.sleep(3)
    assert "underlay changed" not in stage.log("a")
    assert "repair" not in stage.sides["a"].calls


async def test_lost_news_of_the_kernel_lead_to_a_look_at_everything(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b"):
        stage.watches["a"].tell(ChangeKind.LOST, "")
        await stage.until("a", "underlay changed")
        with trio.fail_after(60):
            while stage.sides["a"].calls[2:] != ["repair"]:
                await trio.lowlevel.checkpoint()


# Looking in


async def test_answers_have_their_schemas(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a", "b"):
        for request in ("status", "peers", "fdb"):
            assert (await stage.ask("a", request))["schema"] == f"l2overlay.{request}/1"


async def test_events_are_told_to_followers_from_the_first_on(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a"):
        stream = await trio.open_unix_socket(str(stage.folder / "a" / "control.sock"))
        async with stream, stage.running("b"):
            await stream.send_all(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            with trio.fail_after(60):
                while b'"peer_up"' not in got:
                    more = await stream.receive_some()
                    assert more, got
                    got += more
    told = [line.removeprefix(b"data: ") for line in got.splitlines() if line.startswith(b"data: ")]
    assert {json.loads(line)["schema"] for line in told} == {"l2overlay.event/1"}


async def test_leave_by_the_control_socket_ends_the_node_after_the_answer(
    autojump_clock: MockClock, stage: Stage
) -> None:
    node = stage.node("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await stage.until("a", "READY")
        assert (await stage.ask("a", "leave"))["segment"] == "lab"
    assert stage.sides["a"].calls[-1] == "take_down"


async def test_stamp_is_noted_before_the_first_handshake(autojump_clock: MockClock, stage: Stage) -> None:
    async with stage.running("a") as (node,):
        assert StampFile(stage.folder / "a" / "stamp", "boot").read(0.0) >= node.overlay.stamp - 2_000_000
        assert node.overlay.stamp > 0


async def test_status_says_how_far_the_clock_is_behind_the_stamps(
    autojump_clock: MockClock, stage: Stage
) -> None:
    async with stage.running("a", "b") as (node, _):
        assert (await stage.ask("a", "status"))["stamp_lead"] < 60
        node.environment = dataclasses.replace(node.environment, wall_clock=lambda: time.time() - 86_400)
        assert (await stage.ask("a", "status"))["stamp_lead"] == pytest.approx(86_400, abs=60)

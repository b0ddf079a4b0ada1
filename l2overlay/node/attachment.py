"""The host's side of a node: its TAP and bridge, made, kept in order, and taken away again.

    plan -> note in the run directory -> open the TAP -> apply           (and the same again to repair)

All methods are synchronous and run in a thread, one at a time: pyroute2 wants that. What has been changed is in `made`
and on disk before it happens, so that the next start or `l2overlay cleanup` can undo what a killed node left.
"""

import contextlib
import os
from dataclasses import replace

from l2overlay.addresses import MacAddress, PeerKey, derive_macs, format_mac, parse_mac
from l2overlay.config.types import Config
from l2overlay.control.run_dir import RunDir
from l2overlay.errors import HostSetupError
from l2overlay.linux import apply, bridge, firewall, host
from l2overlay.linux.apply import Undone
from l2overlay.linux.changes import Change
from l2overlay.linux.descriptors import Reserve
from l2overlay.linux.feature import HostSpec
from l2overlay.linux.features.gateway import NatUplink
from l2overlay.linux.features.netfilter import RemoveFilter, SetBridgeFlag
from l2overlay.linux.firewall import Firewall
from l2overlay.linux.iptables import FilterSpec
from l2overlay.linux.link_counters import read_link_counters
from l2overlay.linux.rtnetlink import station_port
from l2overlay.linux.state import HostState
from l2overlay.linux.tap import LinuxTap
from l2overlay.linux.undo import Undo
from l2overlay.node.kernel_losses import KernelLosses

STATE_SCHEMA = "l2overlay.state/1"


def host_spec(config: Config, key: PeerKey) -> HostSpec:
    """What the configuration asks of this host."""
    segment, own, macs = config.segment, config.peer(key), derive_macs(key)
    return HostSpec(
        segment=segment.name,
        tap=segment.tap,
        bridge=segment.bridge,
        mtu=segment.mtu,
        tap_mac=macs.tap,
        bridge_mac=macs.bridge,
        addresses=segment.addresses.get(own.name, ()) if own is not None else (),
        filter=filter_spec(config, key),
        extras=(NatUplink(own.uplink.nat),) if own is not None and own.uplink is not None else (),
    )


def filter_spec(config: Config, key: PeerKey) -> FilterSpec | None:
    """What the configuration asks of this host's iptables; None when nothing could be refused."""
    segment, own = config.segment, config.peer(key)
    if config.filter is None or own is None:
        return None
    fixed = tuple((mac, peer.name) for peer in config.peers for mac in peer.macs if peer is not own)
    spec = FilterSpec(segment.name, segment.tap, segment.bridge, own.name, config.filter, fixed=fixed)
    return spec if spec.directions else None


class HostSide:
    """One TAP in one bridge."""

    def __init__(self, spec: HostSpec, run_dir: RunDir, *, offload: bool) -> None:
        self.spec = spec
        self.made = Undo()
        """What takes back all that was changed so far, earlier runs that were killed included."""
        self.notes: list[str] = []
        """What a person should know of an adopted bridge."""
        self.troubles: tuple[str, ...] = ()
        """What this host does not let us have, as last seen."""
        self.adopted = False
        """The bridge was there before us; when it goes away its owner decides whether it comes back."""
        self.found_ours = False
        """The bridge is one that an earlier run made, and left in place."""
        self.purge = False
        """At the end a bridge of ours goes even if others have ports in it."""
        self.bridge_mac = spec.bridge_mac
        self.ports: tuple[str, ...] = ()
        """Of the bridge, as last seen; the keeper follows what comes and goes."""
        self.firewall = Firewall(spec.segment)
        self._filter: FilterSpec | None = None
        """What `firewall` was last told, as the configuration has it."""
        self._run_dir = run_dir
        self._offload = offload
        self._tap: LinuxTap | None = None
        self._planned: list[Change] = []
        self._noted: Undo | None = None
        self.losses = KernelLosses(spec.tap, spec.bridge, read_link_counters)
        self._reserve = Reserve()
        self._damage: list[str] = []
        """Why what an earlier run noted is not used."""

    def forget_stations(self) -> None:
        """The bridge learns anew who is behind the TAP. Raises HostSetupError. Needs no thread: it is one message."""
        bridge.forget_stations(self.spec.tap)

    def port_of(self, mac: MacAddress) -> str:
        """The port of the bridge behind which it has learned this station; "" when it has not, or behind the TAP."""
        try:
            port = station_port(self.spec.bridge, mac)
        except OSError:
            return ""
        return "" if port == self.spec.tap else port

    @property
    def tap(self) -> LinuxTap:
        """The open TAP."""
        if self._tap is None:
            raise HostSetupError(f"the TAP {self.spec.tap} is not open")
        return self._tap

    @property
    def own_macs(self) -> tuple[MacAddress, ...]:
        """Addresses of this host's TAP and bridge."""
        return (self.spec.tap_mac, self.bridge_mac)

    def open_tap(self) -> None:
        """The first half: plan everything, note it, open the TAP. Raises HostSetupError."""
        state = host.observe_host(self.spec)
        self.made = self._left_by_killed_node(state)
        filter_undo = self._look_at_filter()
        self.notes = [*self._damage, *host.host_notes(self.spec, state)]
        self.troubles = tuple(host.host_troubles(self.spec, state))
        self.adopted = state.bridge is not None and not self.spec.is_ours(state.bridge)
        self.found_ours = state.bridge is not None and not self.adopted
        if self.adopted and state.bridge is not None:
            with contextlib.suppress(ValueError):
                self.bridge_mac = parse_mac(state.bridge.mac)
        self._planned = host.plan_host(self.spec, state, made=self.made)
        self._note(Undo.of(self._planned).after(filter_undo.after(self.made)))
        self._tap = LinuxTap.open(self.spec.tap, offload=self._offload)

    def set_up_bridge(self) -> None:
        """The second half: make what was planned. Raises HostSetupError.

        The filter comes first: without its rules the TAP stays out of the bridge.
        """
        planned, self._planned = self._planned, []
        if self.spec.filter is not None:
            self._install_filter(self.spec.filter, host.observe_host(self.spec))
        apply.apply_changes(planned)
        self.made = Undo.of(planned).after(self.made.without(planned))
        self.ports = tuple(host.bridge_ports(self.spec.bridge))
        self.losses.start()

    def reopen_tap(self) -> LinuxTap:
        """The TAP is gone: make it again, same name; `repair` then puts it back where it was."""
        self.close_tap()
        with self._reserve.lent():
            self._tap = LinuxTap.open(self.spec.tap, offload=self._offload)
        return self._tap

    def close_tap(self) -> None:
        """Let the TAP go; the kernel removes it."""
        if self._tap is not None:
            self._tap.close()
            self._tap = None

    def repair(self) -> list[str]:
        """Bring the host back to what `spec` says; returns what had to be done. Raises HostSetupError."""
        with self._reserve.lent():
            return self._repair_or_explain()

    def _repair_or_explain(self) -> list[str]:
        state = host.observe_host(self.spec)
        if self.adopted and state.bridge is None:
            raise HostSetupError(
                f"the bridge {self.spec.bridge} was removed by whoever made it; {self.spec.tap} joins it when it is back"
            )
        before = self._filter
        self._follow_filter(self.spec.filter, state)
        try:
            return self._repair(state)
        except HostSetupError:
            if self._filter != before:
                with contextlib.suppress(HostSetupError):  # the first failure is the one to tell
                    self._follow_filter(before, state)
            raise

    def _repair(self, state: HostState) -> list[str]:
        self.troubles = tuple(host.host_troubles(self.spec, state))
        changes = host.plan_host(self.spec, state, tap_open=True, made=self.made)
        if changes:
            self._note(Undo.of(changes).after(self.made))
            apply.apply_changes(changes)
            self.made = Undo.of(changes).after(self.made.without(changes))
            self._note(self.made)
        return [change.line for change in changes]

    @property
    def kept_for(self) -> tuple[str, ...]:
        """The ports of others, as last seen, that keep a bridge of ours in place when we go."""
        return () if self.adopted or self.purge else tuple(p for p in self.ports if p != self.spec.tap)

    def take_down(self) -> Undone:
        """Close the TAP and undo all changes. Raises HostSetupError when something could not be undone.

        A bridge of ours that others have ports in stays, unless `purge` is set. Its alias marks it for the next start.
        """
        self.close_tap()
        self._reserve.close()
        undone = apply.undo(self.made, keep_used=not self.purge)
        self.made = Undo()
        self.firewall.forget()
        self._filter = None
        return undone

    def _look_at_filter(self) -> Undo:
        """What will take the filter away again. Raises HostSetupError when this host cannot filter."""
        if self.spec.filter is None:
            self._remove_filter()  # of a killed node whose peers.toml had one
            return Undo()
        firewall.bridge_nf_was_on()
        return Undo((RemoveFilter(self.spec.bridge, self.spec.segment, firewall.absent_parts()),))

    def _follow_filter(self, wanted: FilterSpec | None, state: HostState) -> None:
        """Make the kernel's rules what is wanted; on a failure the old ones stay. Raises HostSetupError."""
        if wanted is None and self._filter is not None:
            self._remove_filter()
        elif wanted is not None and wanted != self._filter:
            self._note(self._look_at_filter().after(self.made))
            self._install_filter(wanted, state)

    def _install_filter(self, wanted: FilterSpec, state: HostState) -> None:
        undo = self._look_at_filter().after(self.made)
        try:
            self.firewall.install(replace(wanted, only_ours=self._is_bridge_nf_ours(state)))
        except HostSetupError:
            if self._filter is None:  # iptables-nft has made tables by then
                with contextlib.suppress(HostSetupError):  # the first failure is the one to tell
                    apply.undo(Undo(tuple(c for c in undo.changes if isinstance(c, RemoveFilter))))
            raise
        self.made, self._filter = undo, wanted
        other = firewall.other_variant_note(self.firewall.variant)
        if other is not None and other not in self.notes:
            self.notes.append(other)

    def _is_bridge_nf_ours(self, state: HostState) -> bool:
        """Whether nobody but us lets this bridge's frames meet iptables."""
        ours = {c.flag for c in self.made.changes if isinstance(c, SetBridgeFlag) and not c.on}
        others = (state.bridge.nf_call if state.bridge is not None else frozenset()) - ours
        return not others and not firewall.bridge_nf_was_on()

    def _remove_filter(self) -> None:
        parts = tuple(c for c in self.made.changes if isinstance(c, SetBridgeFlag | RemoveFilter))
        if parts:
            apply.undo(Undo(parts))
            shared = (
                self.spec.extras
            )  # they may use what iptables-nft made for the filter: it goes after them
            gone = parts if not shared else tuple(c for c in parts if not isinstance(c, RemoveFilter))
            self.made = Undo(tuple(c for c in self.made.changes if c not in gone))
        self.firewall.forget()
        self._filter = None

    def _left_by_killed_node(self, state: HostState) -> Undo:
        try:
            earlier = load_undo(self._run_dir)
        except HostSetupError as error:
            earlier, self._damage = None, [str(error)]
        return earlier if earlier is not None and earlier.changes else host.leftovers(self.spec, state)

    def _note(self, undo: Undo) -> None:
        """On disk before it is done. A disk that is full costs the undo after a SIGKILL, not the node."""
        if undo == self._noted:
            return
        with contextlib.suppress(OSError):
            self._run_dir.write_state(
                {
                    "schema": STATE_SCHEMA,
                    "segment": self.spec.segment,
                    "pid": os.getpid(),
                    "tap": self.spec.tap,
                    "tap_mac": format_mac(self.spec.tap_mac),
                    "bridge": self.spec.bridge,
                    "undo": undo.to_json(),
                }
            )
            self._noted = undo


def load_undo(run_dir: RunDir) -> Undo | None:
    """What the last node of this run directory noted; None when it noted nothing.

    Raises HostSetupError, with the file and what is wrong with it, for what is no note of ours.
    """
    state = run_dir.load_state()
    if state is None:
        return None
    try:
        return Undo.from_json(state.get("undo"))
    except HostSetupError as error:
        raise HostSetupError(f"{run_dir.state} is not used: {error}") from None

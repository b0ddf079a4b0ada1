"""What a node has on its host: a look at it, a pure plan, and what a person should know. Every function asks all features.

    observe_host(spec)        ->  HostState    reads
    plan_host(spec, state)    ->  [Change]     pure; empty when all is as it should be, so the same plan also repairs
    Undo.of(changes)          ->  Undo         pure; goes to the run directory before ...
    apply.apply_changes(changes)               ... this, which takes everything back when one change fails
    apply.undo(...)                            passes over what is gone already

`LinuxTap.open` makes the TAP, because the node needs its descriptor: between plan and apply, or before both to repair.
These functions block: the node calls them in a thread.
"""

from l2overlay.linux import observe
from l2overlay.linux.changes import Change
from l2overlay.linux.feature import ALIAS_PREFIX, HostSpec
from l2overlay.linux.features import FEATURES
from l2overlay.linux.features.bridge import RemoveBridge
from l2overlay.linux.state import HostState
from l2overlay.linux.undo import Undo


def observe_host(spec: HostSpec) -> HostState:
    """Read what the features look at. Raises HostSetupError."""
    names = dict.fromkeys(name for feature in FEATURES for name in feature.links(spec))
    paths = dict.fromkeys(path for feature in FEATURES for path in feature.sysctls(spec))
    with observe.netlink() as ipr:
        links = {name: link for name in names if (link := observe.read_link(ipr, name)) is not None}
        bridge = links.get(spec.bridge)
        ports = observe.read_ports(ipr, bridge.index) if bridge is not None else ()
        addresses = observe.named_addresses(ipr)
    sysctls = {path: value for path in paths if (value := observe.read_sysctl(path)) is not None}
    facts = tuple(fact for feature in FEATURES if (fact := feature.observe(spec)) is not None)
    return HostState(
        tap=links.get(spec.tap),
        bridge=bridge,
        ports=ports,
        addresses=addresses,
        sysctls=sysctls,
        has_ipv6=observe.has_ipv6(),
        links=links,
        facts=facts,
    )


def plan_host(
    spec: HostSpec, state: HostState, *, tap_open: bool = False, made: Undo | None = None
) -> list[Change]:
    """The changes that lead from `state` to `spec`, in order. Raises HostSetupError when they must not be made.

    `tap_open`: this process holds the TAP already. `made`: what undoes our changes so far; what `spec` no longer asks for
    is taken away if it is among them.
    """
    for feature in FEATURES:
        feature.refuse(spec, state, tap_open=tap_open)
    so_far = made.changes if made is not None else ()
    return [change for feature in FEATURES for change in feature.plan(spec, state, so_far)]


def host_notes(spec: HostSpec, state: HostState) -> list[str]:
    """What a person should know before the first change."""
    return [note for feature in FEATURES for note in feature.notes(spec, state)]


def host_troubles(spec: HostSpec, state: HostState) -> list[str]:
    """What of `spec` this host does not let us have."""
    return [trouble for feature in FEATURES for trouble in feature.troubles(spec, state)]


def leftovers(spec: HostSpec, state: HostState) -> Undo:
    """What an earlier run left that is ours beyond doubt, for when its own Undo is lost."""
    return Undo(tuple(change for feature in reversed(FEATURES) for change in feature.leftovers(spec, state)))


def bridge_ports(bridge: str) -> list[str]:
    """The names of a bridge's ports; empty when there is no such bridge. Raises HostSetupError."""
    with observe.netlink() as ipr:
        link = observe.read_link(ipr, bridge)
        return sorted(p.name for p in observe.read_ports(ipr, link.index)) if link is not None else []


def marked_bridges() -> list[RemoveBridge]:
    """What removes each bridge that a node made, by the mark on it; whether that node runs is not looked at."""
    with observe.netlink() as ipr:
        marked = [b for b in observe.read_bridges(ipr) if b.alias.startswith(ALIAS_PREFIX)]
    return [RemoveBridge(b.name, b.mac, b.alias, index=b.index) for b in marked]

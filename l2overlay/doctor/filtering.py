"""Checks: who drops frames on their way through the bridge, or the node's own datagrams.

The probe is the first segment of a TCP connection between two stations; what is dropped of that is trouble, what is
dropped of invalid or odd traffic may be meant. What depends on conditions that the probe leaves open (an address, a mark)
is a finding only when its counter grows while we look.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from l2overlay.doctor.finding import Command, Finding, Severity
from l2overlay.doctor.rulesets import OURS, Loss, Probe, Ruleset, losses
from l2overlay.doctor.saved_rules import split_rule
from l2overlay.doctor.view import HostView

CHECKED_HOOKS = ("prerouting", "forward", "postrouting")
NFPROTO = {"ip": "ipv4", "ip6": "ipv6"}
PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
ETHERTYPES = ("IPv4", "IPv6", "ARP")
OWNERS = (
    ("DOCKER", "Docker"),
    ("ufw", "ufw"),
    ("FWD", "firewalld"),
    ("IN_", "firewalld"),
    ("KUBE-", "Kubernetes"),
)
"""Firewalls by how the names of their chains begin."""


def check_bridged_ip(view: HostView) -> Iterator[Finding]:
    """Rules of iptables (or of nft's ip and inet tables) that drop bridged frames, which bridge_nf sends there."""
    for family in ("ip", "ip6"):
        switch = view.bridge_nf(family)
        if switch is None:
            continue
        for loss in _lost(view, _bridged_losses(view, family)):
            yield _bridged_finding(view, family, switch, loss)


def check_bridged_arp(view: HostView) -> Iterator[Finding]:
    """The same for ARP and arptables, which sees the ports, not the bridge."""
    switch = view.bridge_nf("arp")
    if switch is None:
        return
    found = [
        loss
        for source, target in view.ways()
        for loss in losses(view.rulesets, ("arp",), "forward", {"in": source, "out": target})
    ]
    for loss in _lost(view, found):
        yield Finding(
            cause="bridge-nf-arp",
            severity=_severity(loss),
            text=f"arptables drops ARP that crosses {view.segment.bridge}: stations do not find each other",
            proof=(switch, *_proof(view, loss)),
            fix=(_removal(loss),),
        )


def check_bridge_rules(view: HostView) -> Iterator[Finding]:
    """Rules of ebtables, and of nft's families bridge and netdev, which see frames as they are."""
    found: dict[tuple[str, ...], tuple[Loss, list[str]]] = {}
    for ethertype in ETHERTYPES:
        for loss in _lost(view, _bridge_family_losses(view, ethertype)):
            found.setdefault(loss.place, (loss, []))[1].append(ethertype)
    for loss, ethertypes in found.values():
        yield Finding(
            cause="bridge-rule",
            severity=_severity(loss),
            text=f"{_tool_name(loss)} drops {_listed(ethertypes)} that crosses {view.segment.bridge}, in {_way(loss)}",
            proof=_proof(view, loss),
            fix=(_removal(loss),),
            advice="somebody wrote this rule: ask them before you remove it" if not loss.is_policy else "",
        )


def check_bridge_input(view: HostView) -> Iterator[Finding]:
    """INPUT of ebtables: frames for this host itself. They matter only if the bridge has an address."""
    bridge = view.bridge
    if bridge is None or not any(not a.ip.is_link_local for a in bridge.addresses):
        return
    found = []
    for ethertype in ETHERTYPES:
        for port in view.ports:
            probe = {"in": port.name, "logical_in": bridge.name, "ethertype": ethertype}
            found += losses(view.rulesets, ("bridge",), "input", probe)
    for loss in _lost(view, found):
        yield Finding(
            cause="bridge-rule",
            severity=_severity(loss),
            text=f"{_tool_name(loss)} drops frames for this host itself ({bridge.addresses[0]} on {bridge.name})",
            proof=_proof(view, loss),
            fix=(_removal(loss),),
        )


def check_underlay_firewall(view: HostView) -> Iterator[Finding]:
    """Rules that drop the node's own datagrams, to its UDP port and from it. A peer without an endpoint is never called: it
    comes up only if its datagrams come in unasked."""
    port = view.segment.port
    if port is None:
        return
    waits = view.waits_for_calls
    for family, incoming in _underlay_ways(view):
        for loss in _lost(view, _underlay_losses(view, family, port, incoming=incoming)):
            answers_pass = incoming and loss.passes_established and not waits
            if not (view.all_peers_up and (loss.passes_established or not loss.certain)):
                yield _underlay_finding(view, port, loss, incoming=incoming, answers_pass=answers_pass)


def needs_second_look(view: HostView) -> bool:
    """Whether growing counters would decide about a loss, or prove it better."""
    bridged = (
        loss
        for family in NFPROTO
        for loss in (_bridged_losses(view, family) if view.bridge_nf(family) else ())
    )
    port = view.segment.port
    own = (
        loss
        for family, incoming in (_underlay_ways(view) if port is not None else ())
        for loss in _underlay_losses(view, family, port or 0, incoming=incoming)
    )
    bridge = (loss for ethertype in ETHERTYPES for loss in _bridge_family_losses(view, ethertype))
    return any(True for losses_of in (bridged, own, bridge) for _ in losses_of)


def _bridged_losses(view: HostView, family: str) -> list[Loss]:
    """The IP hooks of netfilter see the bridge as the interface, in and out, and the ports as physdev."""
    bridge = view.segment.bridge
    known = {"bridged": "1", "proto": "tcp", "state": "NEW", "nfproto": NFPROTO[family]}
    found = []
    for source, target in view.ways():
        before = {**known, "in": bridge, "physin": source}
        after = {**known, "out": bridge, "physin": source, "physout": target}
        for hook, probe in zip(CHECKED_HOOKS, (before, {**before, **after}, after), strict=True):
            found += losses(view.rulesets, (family, "inet"), hook, probe)
    return found


def _bridge_family_losses(view: HostView, ethertype: str) -> list[Loss]:
    bridge = view.segment.bridge
    found = []
    for source, target in view.ways():
        known = {"ethertype": ethertype, "proto": "tcp", "state": "NEW"}
        before = {**known, "in": source, "logical_in": bridge}
        after = {**known, "out": target, "logical_out": bridge}
        for hook, probe in zip(CHECKED_HOOKS, (before, {**before, **after}, after), strict=True):
            found += losses(view.rulesets, ("bridge",), hook, probe)
        found += losses(view.rulesets, ("netdev",), "ingress", before)
    return found


def _underlay_ways(view: HostView) -> Iterator[tuple[str, bool]]:
    """Per family, the way in (True) and the way out."""
    return ((family, incoming) for family in _peer_families(view) for incoming in (True, False))


def _underlay_losses(view: HostView, family: str, port: int, *, incoming: bool) -> list[Loss]:
    """Where datagrams between the node's port and the peers are lost."""
    own, other, link_key = ("dport", "sport", "in") if incoming else ("sport", "dport", "out")
    known = {"proto": "udp", "state": "NEW", "nfproto": NFPROTO[family], "bridged": "0", own: str(port)}
    hooks = ("prerouting", "input") if incoming else ("output", "postrouting")

    def lost(**more: str) -> list[Loss]:
        probe: Probe = {**known, **more}
        return [loss for hook in hooks for loss in losses(view.rulesets, (family, "inet"), hook, probe)]

    links = {route.host: route.link for route in view.routes}
    found: list[Loss] = []
    for peer in view.segment.peers:
        if peer.host is not None and _family_of(peer.host) == family:
            link = {link_key: links[peer.host]} if peer.host in links else {}
            found += lost(**{other: str(peer.port)}, **link)
    if view.waits_for_calls:  # nobody knows by which link: what is lost by each of them is lost
        by_link = [lost(**{link_key: name}) for name in view.outside_links(_version_of(family))]
        found += _in_all(by_link) if by_link else lost()
    return found


def _in_all(found: Sequence[list[Loss]]) -> list[Loss]:
    places = set.intersection(*({loss.place for loss in part} for part in found))
    return [loss for part in found for loss in part if loss.place in places]


def _lost(view: HostView, found: Iterable[Loss]) -> list[Loss]:
    """Each place once, the certain reading first. A loss that is neither certain nor growing is left out."""
    places: dict[tuple[str, ...], Loss] = {}
    for loss in found:
        known = places.get(loss.place)
        if known is None or (loss.certain and not known.certain):
            places[loss.place] = loss
    return [loss for loss in places.values() if loss.certain or growth(view, loss)]


def growth(view: HostView, loss: Loss) -> int:
    """How many frames the place has dropped between the two looks."""
    later = _packets(view.later, loss)
    return 0 if later is None or loss.packets is None else max(0, later - loss.packets)


def _packets(rulesets: Iterable[Ruleset], loss: Loss) -> int | None:
    for ruleset in rulesets:
        if _is_of(ruleset, loss):
            chain = ruleset.chain(loss.path[-1])
            if chain is None:
                return None
            if loss.rule is None:
                return chain.packets
            return next((r.packets for r in chain.rules if _same(r.text, loss.text)), None)
    return None


def _same(text: str, other: str) -> bool:
    """Whether two rules differ at most in their counters, which nft prints within the text."""
    return [w for w in text.split() if not w.isdigit()] == [w for w in other.split() if not w.isdigit()]


def _bridged_finding(view: HostView, family: str, switch: str, loss: Loss) -> Finding:
    bridge, owner = view.segment.bridge, owner_of(view, loss)
    whose = f" ({owner})" if owner else ""
    kind = "IPv4" if family == "ip" else "IPv6"
    fix, undo, is_safe = _opening(view, family, loss, owner)
    return Finding(
        cause="bridge-nf",
        severity=_severity(loss),
        text=f"bridged {kind} passes {_tool_name(loss)}{whose}, which drops it in {_way(loss)}"
        + (
            f": new connections through {bridge} fail"
            if loss.passes_established
            else f": unicast through {bridge} is lost while ARP works"
        ),
        proof=(switch, *_proof(view, loss)),
        fix=(fix,),
        undo=(undo,) if undo else (),
        is_safe=is_safe,
        advice=_lasting(bridge, owner),
    )


def _opening(view: HostView, family: str, loss: Loss, owner: str) -> tuple[Command, Command, bool]:
    """The command that lets the bridge's frames pass, the one that undoes it, and whether it is safe."""
    bridge = view.segment.bridge
    match = ("-i", bridge, "-o", bridge, "-j", "ACCEPT")
    if loss.tool == "nft":
        if owner == "firewalld":
            zone = ("firewall-cmd", "--zone=trusted")
            return (*zone, f"--add-interface={bridge}"), (*zone, f"--remove-interface={bridge}"), False
        if loss.rule is None and loss.hook == "forward":
            where = (loss.family, loss.table, loss.path[0])
            return (
                ("nft", "insert", "rule", *where, "iifname", bridge, "oifname", bridge, "accept"),
                (),
                False,
            )
        return _removal(loss), (), False
    if loss.table != "filter" or loss.hook != "forward":
        return _removal(loss), (), False
    place, is_behind_ours = _place_for_accept(view, loss)
    meant = loss.rule is not None and (not owner or loss.rule.names(bridge, *(p.name for p in view.ports)))
    is_safe = is_behind_ours and not meant
    return (loss.tool, "-w", "-I", *place, *match), (loss.tool, "-w", "-D", place[0], *match), is_safe


def _place_for_accept(view: HostView, loss: Loss) -> tuple[Command, bool]:
    """The chain and the position for a rule that accepts before the loss, and whether the rule leaves every chain of
    `[filter]` in force. Docker keeps DOCKER-USER first in FORWARD, and never touches what is in it."""
    rules = next(
        (c.rules for r in view.rulesets if _is_of(r, loss) for c in r.chains if c.name == loss.path[0]), ()
    )
    ours = [position for position, rule in enumerate(rules, 1) if rule.target.startswith(OURS)]
    lead = next((n for n, rule in enumerate(rules) if not rule.target.startswith(OURS)), len(rules))
    after = rules[lead].target if lead < len(rules) else ""
    place: Command = (loss.path[0], str(lead + 1)) if lead else (loss.path[0],)
    if after == "DOCKER-USER" and "DOCKER-USER" not in loss.path:
        place = ("DOCKER-USER",)
    return place, all(position <= lead for position in ours)


def _is_of(ruleset: Ruleset, loss: Loss) -> bool:
    return (ruleset.tool, ruleset.family, ruleset.table) == (loss.tool, loss.family, loss.table)


def owner_of(view: HostView, loss: Loss) -> str:
    """Whose firewall it is, by the names of its chains; empty if they do not tell."""
    names = [loss.table, *reversed(loss.path)]
    for ruleset in view.rulesets:
        if _is_of(ruleset, loss):
            names += [chain.name for chain in ruleset.chains]
    if "firewalld" in names:
        return "firewalld"
    return next((owner for name in names for begin, owner in OWNERS if name.startswith(begin)), "")


def _lasting(bridge: str, owner: str) -> str:
    match owner:
        case "ufw":
            return f"to keep it over a reload of ufw: ufw route allow in on {bridge} out on {bridge}"
        case "firewalld":
            return f"to keep it: firewall-cmd --permanent --zone=trusted --add-interface={bridge}"
        case "Docker":
            return "Docker leaves DOCKER-USER alone; after a reboot it is empty: put the command where the bridge is set up"
    return (
        "it lasts until the next reboot or reload of the firewall: write it into the firewall's own files too"
    )


def _underlay_finding(
    view: HostView, port: int, loss: Loss, *, incoming: bool, answers_pass: bool
) -> Finding:
    what = f"datagrams {'to' if incoming else 'from'} the node's own UDP port {port}"
    match = ("-p", "udp", "--dport" if incoming else "--sport", str(port), "-j", "ACCEPT")
    chain = loss.path[0]
    place, is_behind_ours = _place_for_accept(view, loss)
    fix: Command = (loss.tool, "-w", "-I", *place, *match)
    undo: tuple[Command, ...] = ((loss.tool, "-w", "-D", chain, *match),)
    if loss.tool == "nft":
        keyword = "dport" if incoming else "sport"
        fix = ("nft", "insert", "rule", loss.family, loss.table, chain, "udp", keyword, str(port), "accept")
        undo = ()
    elif loss.table != "filter":
        fix, undo = _removal(loss), ()
    meant = loss.rule is not None and loss.rule.names(str(port), "udp")
    return Finding(
        cause="underlay-firewall",
        severity=Severity.WARNING if answers_pass else _severity(loss),
        text=f"{_tool_name(loss)} drops {what}, in {_way(loss)}" + _who_is_cut_off(view, loss, incoming),
        proof=_proof(view, loss),
        fix=(fix,),
        undo=undo,
        is_safe=bool(undo) and loss.table == "filter" and is_behind_ours and not meant,
        advice=_lasting_port(port, owner_of(view, loss)),
    )


def _who_is_cut_off(view: HostView, loss: Loss, incoming: bool) -> str:
    if not incoming:
        return ""
    uncalled = [peer.name for peer in view.segment.peers if peer.host is None and not peer.up]
    callers = (
        f"{', '.join(uncalled[:8])} cannot call us, and {'has' if len(uncalled) == 1 else 'have'} no endpoint"
    )
    if loss.passes_established:
        return "; only answers to our own calls pass" + (f": {callers}" if uncalled else "")
    return f": {callers}" if uncalled else ""


def _lasting_port(port: int, owner: str) -> str:
    match owner:
        case "ufw":
            return f"to keep it over a reload of ufw: ufw allow {port}/udp"
        case "firewalld":
            return f"to keep it: firewall-cmd --permanent --add-port={port}/udp"
    return ""


def _removal(loss: Loss) -> Command:
    """The command that deletes exactly this rule, or sets the policy to ACCEPT."""
    if loss.tool == "nft":
        where = (loss.family, loss.table, loss.path[-1])
        if loss.rule is None or loss.rule.handle is None:
            return ("nft", "add", "chain", *where, "{ policy accept; }")
        return ("nft", "delete", "rule", *where, "handle", str(loss.rule.handle))
    tool = (loss.tool, "-t", loss.table)
    if loss.rule is None:
        return (*tool, "-P", loss.path[-1], "ACCEPT")
    return (*tool, "-D", *split_rule(loss.text)[1:])


def _proof(view: HostView, loss: Loss) -> tuple[str, ...]:
    lines = [f"{_tool_name(loss)} -t {loss.table}: {loss.text}"]
    if len(loss.path) > 1:
        lines[0] += f" (by {' -> '.join(loss.path)})"
    if loss.packets is not None:
        grown = growth(view, loss)
        lines[0] += f" [{loss.packets} dropped" + (f", {grown} more while we looked]" if grown else "]")
    return tuple(lines)


def _tool_name(loss: Loss) -> str:
    return f"nft {loss.family}" if loss.tool == "nft" else loss.tool


def _way(loss: Loss) -> str:
    return f"{loss.path[-1]}{' by its policy' if loss.is_policy else ''}"


def _severity(loss: Loss) -> Severity:
    return Severity.ERROR if loss.certain else Severity.WARNING


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _peer_families(view: HostView) -> list[str]:
    """The IP versions of the peers' addresses. A peer without an address may use any that this host has outside."""
    found = {_family_of(peer.host) for peer in view.segment.peers if peer.host}
    if view.waits_for_calls:
        found |= {family for family in NFPROTO if view.outside_links(_version_of(family))}
    return [family for family in NFPROTO if family in found]


def _version_of(family: str) -> int:
    return 6 if family == "ip6" else 4


def _family_of(host: str) -> str:
    try:
        return "ip6" if ip_address(host.partition("%")[0]).version == 6 else "ip"
    except ValueError:
        return ""

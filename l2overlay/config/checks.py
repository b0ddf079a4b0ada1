"""How the values of peers.toml must fit together: nothing twice, no unknown names, interface names short enough.

Works on what tomllib read, so that one run reports everything; what is malformed is skipped here, because
`config.tables` reports it. To add a check, write a generator of `Fault` and add it to `CROSS_CHECKS`.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface

from l2overlay.addresses import parse_mac
from l2overlay.config.document import Document, Fault, table, tables, texts
from l2overlay.config.limits import MAX_INTERFACE_NAME, MAX_STATIC_MACS
from l2overlay.config.positions import Path
from l2overlay.config.values import interface_address, public_key_text, segment_name, split_endpoint
from l2overlay.suggestion import Hints

Interface = IPv4Interface | IPv6Interface


def cross_faults(document: Document) -> list[Fault]:
    """The faults that all `CROSS_CHECKS` find."""
    return [fault for check in CROSS_CHECKS for fault in check(document)]


def _repeated_names(document: Document) -> Iterator[Fault]:
    names = [(name, path, f"the name {name!r} is already taken") for path, name in _values(document, "name")]
    return _repeats(names)


def _repeated_keys(document: Document) -> Iterator[Fault]:
    keys = [
        (key, path, f"peer {_peer_label(document, path)} has the public key of another peer")
        for path, key in _values(document, "public_key")
        if _accepts(public_key_text, key)
    ]
    return _repeats(keys)


def _repeated_endpoints(document: Document) -> Iterator[Fault]:
    endpoints = [
        (split_endpoint(text), path, f"the endpoint {text!r} already belongs to another peer")
        for path, text in _values(document, "endpoint")
        if _accepts(split_endpoint, text)
    ]
    return _repeats(endpoints)


def _repeated_macs(document: Document) -> Iterator[Fault]:
    macs = [
        (parse_mac(text), path, f"the station {text!r} is already listed")
        for path, text in _listed_macs(document)
        if _accepts(parse_mac, text)
    ]
    yield from _repeats(macs)
    if len(macs) > MAX_STATIC_MACS:
        _, path, _ = macs[MAX_STATIC_MACS]
        yield Fault(
            path, f"more than {MAX_STATIC_MACS} static stations leave too little room in the FDB for learning"
        )


def _interfaces_that_do_not_fit(document: Document) -> Iterator[Fault]:
    """Names of interfaces, made from the segment's name, that are too long; and two interfaces of one name."""
    segment = table(document, "segment")
    name = segment.get("name")
    if not isinstance(name, str) or not _accepts(segment_name, name):
        return
    for key, prefix in (("tap", "tap-"), ("bridge", "br-")):
        default = prefix + name
        if key not in segment and len(default) > MAX_INTERFACE_NAME:
            yield Fault(
                ("segment", "name"),
                f"{default!r} would be {len(default)} bytes long, but an interface's name has at most {MAX_INTERFACE_NAME}: "
                f'shorten the name to {MAX_INTERFACE_NAME - len(prefix)} or set {key} = "..."',
            )
    tap, bridge = segment.get("tap", f"tap-{name}"), segment.get("bridge", f"br-{name}")
    if tap == bridge:
        yield Fault(
            ("segment", "tap" if "tap" in segment else "bridge"),
            "tap and bridge must be different interfaces",
        )


def _addresses_of_unknown_nodes(document: Document) -> Iterator[Fault]:
    names, hints = {name: None for _, name in _values(document, "name")}, Hints()
    for node in table(table(document, "segment"), "addresses"):
        if node not in names:
            message = f"no peer is named {node!r}{hints.of(node, names)}"
            yield Fault(("segment", "addresses", node), message, at_key=True)


def _repeated_addresses(document: Document) -> Iterator[Fault]:
    addresses = [
        (
            interface_address(text).ip,
            ("segment", "addresses", node, i),
            f"the address {text!r} is already taken",
        )
        for node, listed in table(table(document, "segment"), "addresses").items()
        for i, text in texts(listed)
        if _accepts(interface_address, text)
    ]
    return _repeats(addresses)


def _uplinks_that_lead_nowhere(document: Document) -> Iterator[Fault]:
    segment = table(document, "segment")
    name = segment.get("name")
    own = (segment.get("tap", f"tap-{name}"), segment.get("bridge", f"br-{name}"))
    for path, interface in _nat_uplinks(document):
        if interface in own:
            yield Fault(path, f"{interface!r} belongs to the segment itself, and leads nowhere else")
        if not _node_addresses(document, path):
            label = _peer_label(document, path)
            yield Fault(
                path, f"the gateway {label} needs an address in the segment: add it to addresses in [segment]"
            )


def _second_gateways(document: Document) -> Iterator[Fault]:
    """Stations have one default route a family, so one gateway each."""
    first: dict[int, Path] = {}
    for path, _ in _nat_uplinks(document):
        versions = {address.version for address in _node_addresses(document, path)}
        if taken := sorted(versions & set(first)):
            before = first[taken[0]]
            one, two = _peer_label(document, before), _peer_label(document, path)
            yield Fault(
                path,
                f"{one} is the gateway for IPv{taken[0]} already: remove uplink from the stanza of {one} or of {two}",
                first=before,
            )
        first = {**dict.fromkeys(versions, path), **first}


def _node_addresses(document: Document, path: Path) -> list[Interface]:
    """Those that `[segment]` gives to the peer of this path."""
    addresses, name = table(table(document, "segment"), "addresses"), document["peers"][path[1]].get("name")
    listed = addresses.get(name) if isinstance(name, str) else None
    return [interface_address(text) for _, text in texts(listed) if _accepts(interface_address, text)]


def _nat_uplinks(document: Document) -> Iterator[tuple[Path, str]]:
    for i, peer in tables(document.get("peers")):
        interface = table(peer, "uplink").get("nat")
        if isinstance(interface, str):
            yield ("peers", i, "uplink", "nat"), interface


CROSS_CHECKS: list[Callable[[Document], Iterator[Fault]]] = [
    _repeated_names,
    _repeated_keys,
    _repeated_endpoints,
    _repeated_macs,
    _interfaces_that_do_not_fit,
    _addresses_of_unknown_nodes,
    _repeated_addresses,
    _uplinks_that_lead_nowhere,
    _second_gateways,
]


def _repeats(entries: Iterable[tuple[Hashable, Path, str]]) -> Iterator[Fault]:
    """A fault for each thing that appears again."""
    first: dict[Hashable, Path] = {}
    for thing, path, message in entries:
        if thing in first:
            yield Fault(path, message, first=first[thing])
        else:
            first[thing] = path


def _values(document: Document, key: str) -> Iterator[tuple[Path, str]]:
    """The text under `key` of every peer."""
    for i, peer in tables(document.get("peers")):
        if isinstance(peer.get(key), str):
            yield ("peers", i, key), peer[key]


def _listed_macs(document: Document) -> Iterator[tuple[Path, str]]:
    for i, peer in tables(document.get("peers")):
        for j, text in texts(peer.get("macs")):
            yield ("peers", i, "macs", j), text


def _peer_label(document: Document, path: Path) -> str:
    name = document["peers"][path[1]].get("name")
    return repr(name) if isinstance(name, str) else f"number {int(path[1]) + 1}"


def _accepts(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except ValueError:
        return False
    return True

"""The difference between two configurations. A reload prints it, and changes nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from l2overlay.addresses import format_mac
from l2overlay.config.types import Config, PeerConfig, ProtectConfig, SegmentConfig, Suite
from l2overlay.filter.model import FilterConfig

RESTART_FIELDS = frozenset({"name", "bridge", "tap", "mtu", "suite", "psk", "listen_address"})
"""Fields of `[segment]` that need a restart: interfaces with other names are other interfaces, no session outlives its
suite or psk, and the overlay sizes its frames and fragments once."""


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A peer with the same key and a different stanza."""

    old: PeerConfig
    new: PeerConfig
    fields: tuple[str, ...]
    """Names of the fields of `PeerConfig` that differ, in their order."""


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """From `old` to `new`. A key identifies a peer: a new key under the same name is one peer removed and one added."""

    old: Config
    new: Config
    added: tuple[PeerConfig, ...]
    removed: tuple[PeerConfig, ...]
    changed: tuple[PeerChange, ...]
    segment: tuple[str, ...]
    """Fields of `SegmentConfig` that differ, in their order."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.segment or self.filter or self.protect)

    @property
    def filter(self) -> bool:
        """True if the meaning of `[filter]` changed."""
        return self.old.filter != self.new.filter

    @property
    def protect(self) -> tuple[str, ...]:
        """Fields of `ProtectConfig` that differ, in their order."""
        return _differing(self.old.protect or ProtectConfig(), self.new.protect or ProtectConfig())

    @property
    def restart(self) -> tuple[str, ...]:
        """The changes of the segment that need a restart of the node."""
        return tuple(name for name in self.segment if name in RESTART_FIELDS)

    def lines(self) -> list[str]:
        """The differences as text, one per line, without secrets."""
        return [
            *(
                f"segment: {_change(self.old.segment, self.new.segment, f)}{_restart(f)}"
                for f in self.segment
            ),
            *(f"- peer {peer.name}" for peer in self.removed),
            *(f"+ peer {peer.name}{_at_endpoint(peer)}" for peer in self.added),
            *(f"peer {c.old.name}: {_change(c.old, c.new, f)}" for c in self.changed for f in c.fields),
            *_filter_lines(self.old.filter, self.new.filter),
            *(f"protect: {name} changed" for name in self.protect),
        ]


def diff_configs(old: Config, new: Config) -> ConfigDiff:
    """Compare two configurations. The result is in the order of their files."""
    before = {peer.public_key: peer for peer in old.peers}
    after = {peer.public_key: peer for peer in new.peers}
    return ConfigDiff(
        old,
        new,
        added=tuple(peer for peer in new.peers if peer.public_key not in before),
        removed=tuple(peer for peer in old.peers if peer.public_key not in after),
        changed=tuple(_peer_changes(before, new.peers)),
        segment=_differing(old.segment, new.segment),
    )


def _peer_changes(before: dict[Any, PeerConfig], peers: tuple[PeerConfig, ...]) -> Iterator[PeerChange]:
    for peer in peers:
        old = before.get(peer.public_key)
        if old is not None and old != peer:
            yield PeerChange(old, peer, _differing(old, peer))


def _filter_lines(old: FilterConfig | None, new: FilterConfig | None) -> Iterator[str]:
    if old == new:
        return
    if old is None or new is None:
        yield "filter: added" if new is not None else "filter: removed"
        return
    for name in ("default_in", "default_out", "tagged"):
        if getattr(old, name) != getattr(new, name):
            yield f"filter: {name} {getattr(old, name)} -> {getattr(new, name)}"
    if old.rules != new.rules:
        yield f"filter: rules changed ({len(old.rules)} -> {len(new.rules)})"
    before, after = ({g.name: g for g in config.security_groups} for config in (old, new))
    yield from (f"filter: - security group {name}" for name in before if name not in after)
    yield from (f"filter: + security group {name}" for name in after if name not in before)
    yield from (f"filter: security group {n} changed" for n in after if n in before and before[n] != after[n])


def _differing(old: Any, new: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(old) if getattr(old, f.name) != getattr(new, f.name))


def _change(old: PeerConfig | SegmentConfig, new: PeerConfig | SegmentConfig, name: str) -> str:
    if name == "psk":
        return "psk changed"
    return f"{name} {_words(getattr(old, name))} -> {_words(getattr(new, name))}"


def _words(value: object) -> str:
    if value is None or value in ((), {}):
        return "none"
    match value:
        case Suite():
            return value.name
        case bytes():
            return format_mac(value)
        case float():
            return f"{value:g} s"
        case tuple():
            return ", ".join(map(_words, value))
        case dict():
            return "; ".join(f"{key} {_words(part)}" for key, part in value.items())
    return str(value)


def _restart(name: str) -> str:
    return " (needs a restart)" if name in RESTART_FIELDS else ""


def _at_endpoint(peer: PeerConfig) -> str:
    return f" at {peer.endpoint}" if peer.endpoint else ""

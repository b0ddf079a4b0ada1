"""Where a node runs, and what a reload may replace while it does."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from l2overlay.addresses import PeerKey
from l2overlay.config.types import Config, Endpoint
from l2overlay.control.run_dir import StampFile
from l2overlay.node.attachment import HostSide
from l2overlay.node.journal import LineWriter
from l2overlay.node.keeper import Watch
from l2overlay.node.progress import Progress
from l2overlay.node.resolver import Lookup, system_lookup
from l2overlay.node.timer import boot_time
from l2overlay.seams import Underlay


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a node runs: the real thing, or fakes."""

    peers_file: Path
    control_path: Path
    side: HostSide
    open_udp: Callable[[int, str], Underlay]
    open_watch: Callable[[], Watch]
    stamps: StampFile
    writer: LineWriter
    progress: Progress
    clock: Callable[[], float] = boot_time
    wall_clock: Callable[[], float] = time.time
    lookup: Lookup = system_lookup
    linger: float = 0.0
    """Seconds of rehearsals after a lone frame; 0 is none, as fakes have no use for them."""


@dataclass(slots=True)
class Current:
    """What is in force now: the configuration and the socket."""

    key: PeerKey
    config: Config
    socket: Underlay | None = None
    """None until the host is set up."""
    names: dict[PeerKey, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = names_in(self.config)

    @property
    def udp(self) -> Underlay:
        """The underlay's socket."""
        assert self.socket is not None
        return self.socket

    def name_of(self, peer: PeerKey) -> str:
        """For a person."""
        return self.names.get(peer, "?")


def names_in(config: Config) -> dict[PeerKey, str]:
    """The names of all stanzas by their key."""
    return {peer.public_key: peer.name for peer in config.peers}


def listen_endpoint(config: Config, key: PeerKey) -> Endpoint:
    """What a node binds: the address and port of `listen`; without an address, the port of our own stanza's endpoint, where
    the others look for us; else the port of `listen`."""
    segment, own = config.segment, config.peer(key)
    if segment.listen_address or own is None or own.endpoint is None:
        return Endpoint(segment.listen_address, segment.listen)
    return Endpoint("", own.endpoint.port)

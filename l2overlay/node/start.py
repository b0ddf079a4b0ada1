"""From the options of `join` to a running node. What can be refused is refused before the host is touched.

Order: privileges, peers.toml, key, own stanza, run directory and segment; then trio is imported and the node runs.
"""

import gc
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from l2overlay import keys
from l2overlay.addresses import PeerKey
from l2overlay.config.read import load_config, require_own
from l2overlay.config.types import Config
from l2overlay.control.run_dir import LASTING_ROOT, Hold, RunDir, StampFile, boot_id, default_run_dir
from l2overlay.linux.memory import keep_freed_memory
from l2overlay.linux.tap import check_privileges
from l2overlay.node.progress import Progress

if TYPE_CHECKING:
    from l2overlay.node.environment import Environment
    from l2overlay.node.journal import LineWriter


@dataclass(frozen=True, slots=True)
class Options:
    """Of `l2overlay join`."""

    peers_file: Path
    key_file: Path | None = None
    """Default /etc/l2overlay/SEGMENT.key."""
    run_dir: Path | None = None
    """Default /run/l2overlay/SEGMENT."""
    offload: bool = True
    linger: float = 0.0
    """Seconds after a lone frame in which the next one is to be quick."""


def run_node(options: Options) -> None:
    """Join, live and leave. Raises L2OverlayError for what a person did wrong or the host refused."""
    import trio  # before the host is touched: it takes longer than all that is before it

    from l2overlay.node.journal import LineWriter
    from l2overlay.node.node import HELD_SIGNALS, Node
    from l2overlay.node.stray import stray_lines

    writer = LineWriter()
    progress = Progress(writer.write)
    check_privileges()
    config, private_key, key = _read_files(options, progress)
    segment = config.segment.name
    run_dir = RunDir(options.run_dir.absolute()) if options.run_dir else default_run_dir(segment)
    environment = _environment(options, config, key, run_dir, writer, progress)
    node = Node(config, private_key, key, environment)
    calm_garbage_collector()
    keep_freed_memory()
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    hold = Hold(run_dir, segment)
    try:
        with stray_lines(writer.write):
            trio.run(node.run)
    finally:
        hold.release(keep_stamp=node.ahead_of_clock, keep_state=bool(environment.side.made.changes))


def _lasting_stamp(options: Options, config: Config) -> Path | None:
    """None with a run directory of one's own: whoever chose it decides whether it outlives the boot."""
    return None if options.run_dir else LASTING_ROOT / f"{config.segment.name}.stamp"


def calm_garbage_collector() -> None:
    """The path makes no reference cycles, but many short-lived lists, and each 700 of them ask for a collection: 3.5 % of
    the receiving node at full TCP load (perf). What is loaded by now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _read_files(options: Options, progress: Progress) -> tuple[Config, bytes, PeerKey]:
    """peers.toml first: it names the segment, and the key's default place is named after that."""
    config = load_config(options.peers_file)
    count = len(config.peers)
    stanzas = f"{count} stanza{'s' * (count != 1)}"
    progress.phase("config", f"{options.peers_file}: segment {config.segment.name}, {stanzas}")
    key_file = options.key_file or keys.default_key_path(config.segment.name)
    private_key = keys.load(key_file)
    key = keys.public_key(private_key)
    own = require_own(config, key, source=str(options.peers_file), name=socket.gethostname().split(".")[0])
    progress.phase("keys", f"{key_file}: this is {own.name}")
    return config, private_key, key


def _environment(
    options: Options, config: Config, key: PeerKey, run_dir: RunDir, writer: "LineWriter", progress: Progress
) -> "Environment":
    from l2overlay.linux.links import LinkWatch
    from l2overlay.linux.udp import LinuxUdp
    from l2overlay.node.attachment import HostSide, host_spec
    from l2overlay.node.environment import Environment

    return Environment(
        peers_file=options.peers_file.absolute(),
        control_path=run_dir.socket,
        side=HostSide(host_spec(config, key), run_dir, offload=options.offload),
        open_udp=LinuxUdp.open,
        open_watch=LinkWatch,
        stamps=StampFile(run_dir.stamp, boot_id(), _lasting_stamp(options, config)),
        writer=writer,
        progress=progress,
        linger=options.linger,
    )

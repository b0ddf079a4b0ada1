"""`python -m tests.bench.siege --init`: what established peers lose while INITs with forged sources come.

    guest a --- host a ====== host b --- guest b      512-byte frames from a to b, at half of what passes in this run
                  stranger --/                        INITs, each from another address: right mac1, or wrong

The stranger shares the two hosts' processors. So there is a control: the same datagrams to a socket of host b that nobody
reads. The last figure is what host b's node uses of a core meanwhile.
"""

import argparse
import socket
import tempfile
from contextlib import nullcontext
from pathlib import Path

from l2overlay import keys

from .contestants import PORT, L2Overlay
from .forged import SOURCES, Answers, Flood, forged_init, frames, let_forged_in, link_mac
from .intervals import Variant
from .measures import running
from .topology import UNDERLAY_ADDRESS, inside
from .traffic import SENDERS, FrameCounter, cpu_seconds, median, run_trial

SINK_PORT = 9999
FRAME_SIZE = 512
SECONDS = 6.0
HALF = 0.5
PROBE_RATE = 120_000.0
"""Frames a second that are offered to see how many pass."""
KINDS = ("calm", "sink", "mac1", "bad mac1")

Result = tuple[float, float]
"""Share of frames lost, and of a core that host b's node used."""


def measure(contestant: L2Overlay, rate: float) -> dict[str, Result]:
    """Every kind once, on one start of the contestant."""
    found = {}
    public_key = keys.public_key(keys.load(contestant.folder / "b.key"))
    with running(contestant, "offload") as topology:
        a, b = topology.hosts
        let_forged_in(b, "under0", UNDERLAY_ADDRESS[0])
        answers = Answers(a, "under0")
        sink = inside(b, _open_sink)
        counter = FrameCounter(topology.guests[1])
        sender = SENDERS["packet"](topology.guests[0], FRAME_SIZE)
        macs = link_mac(b, "under0"), link_mac(a, "under0")
        passes = max(run_trial(sender, counter, PROBE_RATE, 2.0).rate for _ in range(2))
        for kind in KINDS:
            datagram = forged_init(public_key, L2Overlay.SEGMENT, mac1=kind != "bad mac1")
            target = UNDERLAY_ADDRESS[1], SINK_PORT if kind == "sink" else PORT
            made = [] if kind == "calm" else frames(datagram, macs, target, SOURCES)
            flood = Flood(a, "under0", made, rate) if made else nullcontext()
            before, used = answers.read(), cpu_seconds([contestant.pids[1]])
            with flood:
                trial = run_trial(sender, counter, passes * HALF, SECONDS)
            share = (cpu_seconds([contestant.pids[1]]) - used) / trial.elapsed
            packets, size = (now - then for now, then in zip(answers.read(), before, strict=True))
            found[kind] = trial.loss, share
            print(
                f"{contestant.name:10}{kind:10}{trial.offered / trial.elapsed / 1000:6.1f} kpps of {passes / 1000:.1f}"
                f"  lost {trial.loss:8.3%}  node b {share:4.0%} of a core"
                f"  answers {packets} of {size / max(packets, 1):.0f} B",
                flush=True,
            )
        sink.close()
        sender.close()
    return found


def _open_sink() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind(("", SINK_PORT))
    return sock


def run(arguments: argparse.Namespace) -> int:
    """All rounds, then medians. `--checkout` adds another version, in turn."""
    found: dict[tuple[str, str], list[Result]] = {}
    with tempfile.TemporaryDirectory(prefix="l2siege-") as folder:
        contestants = [Variant(Path(folder, "now"), "now", (), None)]
        for text in arguments.checkout:
            name, _, checkout = text.partition("=")
            contestants.append(Variant(Path(folder, name), name, (), Path(checkout).resolve()))
        for contestant in contestants:
            contestant.folder.mkdir()
            contestant.prepare()
        for number in range(arguments.repeat):
            for contestant in contestants[::-1] if number % 2 else contestants:
                for kind, result in measure(contestant, arguments.rate).items():
                    found.setdefault((contestant.name, kind), []).append(result)
    for (name, kind), results in found.items():
        lost, used = (median([result[which] for result in results]) for which in (0, 1))
        print(f"{name:10}{kind:10} lost {lost:8.3%}  node b {used:4.0%} of a core")
    return 0

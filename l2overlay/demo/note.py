"""Keeps a note about each running demo in NOTES. If the demo's process is gone, `demo --stop` ends what the note lists.

A note holds each process with its start time, so that `demo --stop` spares another process that has got the same pid. Only
root can write to the folder, because `stop_noted` ends what it finds there.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from l2overlay.testing.lab import Lab
from l2overlay.testing.namespace import Namespace, end_known_processes, existing_namespaces, start_time_of

NOTES = Path(os.environ.get("L2OVERLAY_DEMO_NOTES", "/run/l2overlay-demo"))
"""Tests set the variable, so that they do not stop a demo that somebody keeps running beside them."""


class Note:
    """The note about one lab."""

    def __init__(self, lab: Lab) -> None:
        self.path = NOTES / f"{lab.prefix}.json"
        self._lab = lab
        self._kept = False

    def write(self) -> None:
        """Write a note of what runs now."""
        processes = [process.pid for namespace in self._lab.namespaces() for process in namespace.processes()]
        content = {
            "prefix": self._lab.prefix,
            "folder": str(self._lab.folder),
            "owner": None if self._kept else (os.getpid(), start_time_of(os.getpid())),
            "processes": [(pid, start_time_of(pid)) for pid in processes],
        }
        NOTES.mkdir(mode=0o700, exist_ok=True)
        self.path.write_text(json.dumps(content))

    def keep(self) -> None:
        """Leave the lab and the note behind when this process ends."""
        self._kept = True
        self.write()
        self._lab.abandon()

    def remove(self) -> None:
        """Remove the note, unless the lab is kept."""
        if not self._kept:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                NOTES.rmdir()


@contextlib.contextmanager
def noted(lab: Lab) -> Iterator[Note]:
    """Keep a note about the lab while the block runs."""
    note = Note(lab)
    note.write()
    try:
        yield note
    finally:
        note.remove()


def stop_noted() -> list[str]:
    """End the demos that were kept, or whose process was killed. Returns their names. Spares demos that still run."""
    stopped = []
    for path in sorted(NOTES.glob("*.json")):
        content = json.loads(path.read_text())
        owner = content["owner"]
        if owner and start_time_of(owner[0]) == owner[1]:
            continue
        end_known_processes([(pid, started) for pid, started in content["processes"]])
        for name in existing_namespaces():
            if name.startswith(f"{content['prefix']}-"):
                Namespace(name).delete()
        shutil.rmtree(content["folder"], ignore_errors=True)
        path.unlink()
        stopped.append(content["prefix"])
    with contextlib.suppress(OSError):
        NOTES.rmdir()
    return stopped

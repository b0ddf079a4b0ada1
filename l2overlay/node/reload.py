"""A new peers.toml for a running node: all of it, or nothing and every mistake in it.

What a running node cannot follow stays as it was and is said so; the rest is taken.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from l2overlay.addresses import PeerKey
from l2overlay.config.diff import RESTART_FIELDS, diff_configs
from l2overlay.config.read import load_config, require_own
from l2overlay.config.types import Config


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload comes to."""

    config: Config
    """To be in force from now on."""
    changes: list[str]
    """From the old configuration to the file, for people, including what needs a restart."""
    restart: list[str]
    """Fields of `[segment]` that stay as they were until the node is started again."""


def read_again(path: Path, old: Config, key: PeerKey) -> Reload:
    """Read the file. Raises ConfigError, with everything that is wrong, and then `old` stays."""
    config = load_config(path)
    own = old.peer(key)
    require_own(config, key, source=str(path), name=own.name if own is not None else "this-host")
    diff = diff_configs(old, config)
    kept = {name: getattr(old.segment, name) for name in RESTART_FIELDS}
    return Reload(replace(config, segment=replace(config.segment, **kept)), diff.lines(), list(diff.restart))

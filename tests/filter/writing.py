"""`[filter]` tables for tests: three peers, of which alpha is this host."""

from l2overlay.config.read import parse_config
from l2overlay.filter.model import FilterConfig
from tests.stanzas import peers_named

OWN = "alpha"
PEERS = ("alpha", "beta", "gamma")
HEAD = peers_named(*PEERS)


def filter_of(text: str) -> FilterConfig:
    """The frozen form of a `[filter]` table given as TOML."""
    filtering = parse_config(HEAD + text, "p", base_dir=None).filter
    assert filtering is not None
    return filtering


def rule(direction: str, action: str, **keys: object) -> str:
    """A `[[filter.rules]]` stanza."""
    lines = ["[[filter.rules]]", f'direction = "{direction}"', f'action = "{action}"']
    lines += [f"{key} = {value!r}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"

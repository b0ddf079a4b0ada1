"""`[[peers]]` stanzas for tests that write a peers.toml."""

from l2overlay.addresses import PeerKey, format_key

SEGMENT = '[segment]\nname = "lab"\n'


def stanza(name: str, key: bytes, *lines: str) -> str:
    """One stanza, with `lines` behind its name and key."""
    return "\n".join(
        ("[[peers]]", f'name = "{name}"', f'public_key = "{format_key(PeerKey(key))}"', *lines, "")
    )


def example_key(number: int) -> bytes:
    """A good public key whose private key nobody knows; another one for each number below 256."""
    return bytes([9, *[number] * 30, 64])


def peers_named(*names: str) -> str:
    """A whole file: the segment and its peers, with their names only."""
    return SEGMENT + "".join(stanza(name, example_key(number)) for number, name in enumerate(names, 1))

"""Handshakes that failed, in words: for the log, for `status` and for the doctor."""

from collections.abc import Sequence
from typing import Any

from l2overlay.addresses import Address, PeerKey, format_key
from l2overlay.config.types import Config
from l2overlay.controlplane.events import Cause
from l2overlay.controlplane.refusals import Refusal

_UNNAMED = {
    Cause.WRONG_KEY: "calls with another public key than this node's: correct this node's public_key over there",
    Cause.OTHER_SUITE: "calls with another suite: make suite equal in both peers.toml",
    Cause.OTHER_SEGMENT: "calls for another segment name, or with another protocol version: "
    "make the segment's name equal in both peers.toml",
}
_NAMED = {
    Cause.STALE_STAMP: "calls with stamps older than its last: its clock went back, or its stamp file is lost; "
    "this node calls it back",
    Cause.OTHER_PSK: "answers, and the answer cannot be read: is the psk equal on both hosts?",
    Cause.UNUSED_ANSWER: "calls again and again and uses no answer: is the psk equal on both hosts, and do answers "
    "reach it (a firewall, a NAT)?",
}


def refusal_text(cause: Cause, address: Address, name: str, key: PeerKey | None) -> str:
    """One line: who, what, and what to do. `name` is the name of a known peer, or empty."""
    if cause is Cause.UNKNOWN_KEY and key is not None:
        shown = format_key(key)
        return (
            f"{address} calls with the key {shown}, which no stanza of peers.toml has; "
            f"to let it in: l2overlay peers add NAME {shown}"
        )
    if cause in _NAMED:
        return f"peer {name} ({address}) {_NAMED[cause]}"
    return f"{address} {_UNNAMED[cause]}"


def stanza(cause: Cause, key: PeerKey | None) -> str:
    """The stanza to paste into peers.toml for an unknown key; empty for a known one."""
    if cause is not Cause.UNKNOWN_KEY or key is None:
        return ""
    return f'[[peers]]\nname = "NAME"\npublic_key = "{format_key(key)}"\n'


def refused_data(config: Config, refusals: Sequence[Refusal], now: float) -> list[dict[str, Any]]:
    """The part of `status`. Keys that have a stanza by now are left out."""
    return [
        _refused(config, refusal, now)
        for refusal in refusals
        if refusal.cause is not Cause.UNKNOWN_KEY or (refusal.peer and config.peer(refusal.peer) is None)
    ]


def _refused(config: Config, refusal: Refusal, now: float) -> dict[str, Any]:
    peer = None if refusal.peer is None else config.peer(refusal.peer)
    name = "" if peer is None else peer.name
    return {
        "cause": refusal.cause.value,
        "address": str(refusal.address),
        "peer": name or None,
        "public_key": None if refusal.peer is None else format_key(refusal.peer),
        "age": round(now - refusal.time, 3),
        "text": refusal_text(refusal.cause, refusal.address, name, refusal.peer),
        "stanza": stanza(refusal.cause, refusal.peer),
    }

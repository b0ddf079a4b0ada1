"""Base chains and tables of nftables, as far as iptables-nft leaves them behind.

The nf_tables variant of iptables makes the table `filter` and its base chains when it first needs them, and never removes
them: an empty table would stay behind. So a node looks before its first rule (`table_chains`), and at the end removes what
was not there and is still empty (`remove_empty`). NLM_F_NONREC lets the kernel refuse if somebody else uses it by now.

    nfnetlink (linux/netfilter/nfnetlink.h)    struct nfgenmsg  family u8 | version u8 | resource u16 (big-endian)
    a change stands between BATCH_BEGIN and BATCH_END, and happens as a whole or not at all
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence

from l2overlay.linux.rtnetlink import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSGHDR, attributes, messages

NETLINK_NETFILTER = 12
NFGENMSG = struct.Struct(">BBH")
NLM_F_ACK = 0x4
NLM_F_NONREC = 0x100
NLMSG_ERROR = 2
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 1, 2
NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN = 4, 5
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME = 1, 3
NFPROTO = {4: 2, 6: 10}
FILTER = "filter"
TIMEOUT = 2.0


def table_chains(version: int, table: str = FILTER) -> frozenset[str] | None:
    """The chains of a table of iptables-nft; None when there is no such table."""
    tables = {_text(found.get(NFTA_TABLE_NAME)) for found in _dump(NFT_MSG_GETTABLE, version)}
    if table not in tables:
        return None
    chains = (
        found for found in _dump(NFT_MSG_GETCHAIN, version) if _text(found.get(NFTA_CHAIN_TABLE)) == table
    )
    return frozenset(_text(found.get(NFTA_CHAIN_NAME)) for found in chains)


def remove_empty(version: int, chains: Sequence[str], *, table: bool, of: str = FILTER) -> bool:
    """Remove these chains of the table `of`, and with `table` itself, if all are empty. Returns whether they were."""
    name = _attribute(NFTA_CHAIN_TABLE, of)
    changes = [(NFT_MSG_DELCHAIN, name + _attribute(NFTA_CHAIN_NAME, chain)) for chain in chains]
    if table:
        changes.append((NFT_MSG_DELTABLE, _attribute(NFTA_TABLE_NAME, of)))
    return _change(version, changes) if changes else True


def _dump(question: int, version: int) -> list[dict[int, bytes]]:
    """Yield the attributes of each object; none if the kernel has no nf_tables."""
    kind = NFNL_SUBSYS_NFTABLES << 8 | question
    found: list[dict[int, bytes]] = []
    with _socket() as netlink:
        netlink.send(_message(kind, NLM_F_REQUEST | NLM_F_DUMP, version, b""))
        while True:
            for answer, body in messages(netlink.recv(1 << 17)):
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                found.append(attributes(body[NFGENMSG.size :]))


def _change(version: int, changes: Sequence[tuple[int, bytes]]) -> bool:
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_NONREC
    batch = _message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, b"", NFNL_SUBSYS_NFTABLES)
    for question, body in changes:
        batch += _message(NFNL_SUBSYS_NFTABLES << 8 | question, flags, version, body)
    batch += _message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 0, b"", NFNL_SUBSYS_NFTABLES)
    with _socket() as netlink:
        netlink.send(batch)
        codes: list[int] = []
        while len(codes) < len(changes):
            try:
                data = netlink.recv(1 << 17)
            except TimeoutError:
                break
            codes += [
                int.from_bytes(body[:4], "little", signed=True)
                for kind, body in messages(data)
                if kind == NLMSG_ERROR
            ]
            if any(codes):
                break
    failed = next((-code for code in codes if code), 0)
    if failed in (0, errno.ENOENT):
        return failed == 0
    if failed == errno.EBUSY:
        return False
    raise OSError(failed, os.strerror(failed))


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.settimeout(TIMEOUT)
    netlink.bind((0, 0))
    return netlink


def _message(kind: int, flags: int, version: int, body: bytes, resource: int = 0) -> bytes:
    payload = NFGENMSG.pack(NFPROTO.get(version, 0), 0, resource) + body
    return NLMSGHDR.pack(NLMSGHDR.size + len(payload), kind, flags, 0, 0) + payload


def _attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")

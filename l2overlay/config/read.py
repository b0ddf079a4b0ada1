"""peers.toml as typed, frozen data: one file, the same on every host of a segment.

Order of `parse_config`: size and encoding, positions, tomllib; then, all in one run, the values by themselves
(`config.tables`), how they fit together (`config.checks`, `config.filter_checks`, `config.protect`) and the psk's file.
Only a document without a fault becomes a `Config`. Every mistake is a `Problem` with its line and column.
"""

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2overlay.addresses import PeerKey, format_key, parse_key, parse_mac
from l2overlay.config.checks import cross_faults
from l2overlay.config.document import Document, Fault
from l2overlay.config.limits import MAX_FILE_SIZE
from l2overlay.config.positions import NestingError, Positions, positions
from l2overlay.config.types import (
    Config,
    Endpoint,
    Learn,
    PeerConfig,
    SegmentConfig,
    Suite,
    Tos,
    UplinkConfig,
)
from l2overlay.config.values import interface_address, split_endpoint, split_listen
from l2overlay.errors import ConfigError, L2OverlayError, Problem
from l2overlay.files import read_regular
from l2overlay.keys import is_private_key_of, own_stanza, read_secret
from l2overlay.suggestion import suggestion

if TYPE_CHECKING:
    from l2overlay.config.tables import PeerTable, SegmentTable

_SUITES = {"aes-gcm": Suite.AESGCM, "chacha20-poly1305": Suite.CHACHAPOLY}


def load_config(path: Path) -> Config:
    """Read and check a peers.toml. Raises ConfigError with every mistake, in the order of the file."""
    return parse_config(_read_file(path), str(path), base_dir=path.parent)


def parse_config(text: str | bytes, source: str, *, base_dir: Path | None) -> Config:
    """Check the text of a peers.toml. `source` names it in messages; a relative psk_file is looked up in `base_dir`.

    Raises ConfigError with every mistake, in the order of the file.
    """
    from l2overlay.config.filter import build_filter
    from l2overlay.config.filter_checks import filter_faults
    from l2overlay.config.protect import build_protect, protect_faults
    from l2overlay.config.table_faults import check_tables

    clean = _decode(text, source)
    places, document = _parse_toml(clean, source)
    tables, faults = check_tables(document)
    psk, psk_faults = _read_psk(document, base_dir)
    faults += [*cross_faults(document), *filter_faults(document), *protect_faults(document), *psk_faults]
    if faults or tables is None:
        raise ConfigError(source, _problems(faults, places))
    peers = tuple(_peer(peer) for peer in tables.peers)
    filtering = build_filter(tables.filter, (peer.name for peer in peers))
    protection = build_protect(tables.protect, {peer.name: peer.public_key for peer in peers})
    return Config(_segment(tables.segment, psk), peers, filtering, protection)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of peers.toml, made from the models that `parse_config` checks with."""
    from l2overlay.config import tables

    return tables.json_schema()


def require_own(
    config: Config, key: PeerKey, *, source: str, name: str = "this-host", endpoint: str | None = None
) -> PeerConfig:
    """This node's own stanza. If there is none, raises ConfigError with the stanza to paste."""
    own = config.peer(key)
    if own is None:
        betrayed = next((p for p in config.peers if is_private_key_of(p.public_key, key)), None)
        if betrayed is not None:
            raise _whole_file(
                source,
                f"peer {betrayed.name!r} has this host's PRIVATE key as its public_key, so the key is no longer secret; "
                "make a new one (l2overlay keygen) and write the public key that it prints",
            )
        namesake = next((p for p in config.peers if p.name == name), None)
        message = (
            f"this host's public key {format_key(key)} is not in it; "
            + (f"peer {name!r} has another key: replace it, or " if namesake else "")
            + "add this stanza on every host:\n\n"
            + own_stanza(f"{name}-2" if namesake else name, key, endpoint).rstrip()
        )
        raise ConfigError(source, (Problem(0, 0, message),))
    return own


def _read_file(path: Path) -> bytes:
    """Reads at most one byte more than is allowed; `_decode` refuses a file that long."""
    try:
        return read_regular(path, MAX_FILE_SIZE + 1)[0]
    except IsADirectoryError:
        raise _whole_file(str(path), "is a directory; name the peers.toml in it") from None
    except FileNotFoundError as error:
        near = suggestion(path.name, (other.name for other in path.parent.glob("*.toml")))
        hint = "'l2overlay init SEGMENT' makes a first one; on further hosts, copy it from another host"
        raise _whole_file(str(path), f"cannot be read: {error.strerror}{near}; {hint}") from None
    except OSError as error:
        raise _whole_file(str(path), f"cannot be read: {error.strerror}") from None


def _decode(text: str | bytes, source: str) -> str:
    """The text of the file. Raises ConfigError if it is not text."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_FILE_SIZE:
        raise _whole_file(source, f"larger than {MAX_FILE_SIZE >> 20} MiB; this is not a peers.toml")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _whole_file(source, "encoded in UTF-16; save it as UTF-8")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(
            source, (Problem(1, 1, "begins with a byte order mark (BOM); save it as UTF-8 without one"),)
        )
    try:
        clean = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        raise _at_offset(source, before, f"not UTF-8: byte 0x{raw[error.start]:02x}") from None
    if "\0" in clean:
        raise _at_offset(source, clean[: clean.index("\0")], "a NUL byte; this is not a text file")
    return clean


def _parse_toml(text: str, source: str) -> tuple[Positions, Document]:
    try:
        places = positions(text)
        return places, tomllib.loads(text)
    except NestingError as error:
        raise ConfigError(source, (Problem(error.line, error.column, str(error)),)) from None
    except RecursionError:
        raise _whole_file(source, "nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and int() of more than 4300 digits
        raise ConfigError(source, (_syntax_problem(str(error), places),)) from None


def _syntax_problem(message: str, places: Positions) -> Problem:
    """tomllib puts the position at the end of its message, and reports a repeated key as overwriting."""
    if re.match(r"Cannot (overwrite|declare|mutate)|Duplicate", message) and places.repeated:
        path, again = places.repeated[0]
        first, _ = places.key(path)
        name = ".".join(str(part) for part in path if isinstance(part, str))
        line, column = places.line_and_column(again.key)
        return Problem(line, column, f"{name!r} appears a second time (first at line {first})")
    line, column = places.line_and_column(len(places.text))
    if at := re.search(r" \(at line (\d+), column (\d+)\)$", message):
        line, column = int(at[1]), int(at[2])
    what = re.sub(r" \(at (line \d+, column \d+|end of document)\)$", "", message)
    return Problem(line, column, f"not TOML: {' '.join(what.split())}")


def _read_psk(document: Document, base_dir: Path | None) -> tuple[bytes | None, list[Fault]]:
    segment = document.get("segment")
    name = segment.get("psk_file") if isinstance(segment, dict) else None
    if not isinstance(name, str) or not name:
        return None, []
    at = ("segment", "psk_file")
    if base_dir is None and not Path(name).is_absolute():
        return None, [
            Fault(at, f"{name!r} is relative, but this text is in no directory; write an absolute path")
        ]
    try:
        return read_secret((base_dir or Path()) / name, "psk"), []
    except L2OverlayError as error:
        return None, [Fault(at, str(error))]


def _problems(faults: list[Fault], places: Positions) -> tuple[Problem, ...]:
    found = []
    for fault in faults:
        line, column = places.key(fault.path) if fault.at_key else places.value(fault.path)
        where = f" (first at line {places.value(fault.first)[0]})" if fault.first else ""
        found.append(Problem(line, column, fault.message + where))
    return tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


def _segment(table: "SegmentTable", psk: bytes | None) -> SegmentConfig:
    listen_address, listen = split_listen(table.listen)
    return SegmentConfig(
        name=table.name,
        bridge=table.bridge or f"br-{table.name}",
        tap=table.tap or f"tap-{table.name}",
        mtu=table.mtu,
        ageing_time=float(table.ageing_time),
        listen=listen,
        listen_address=listen_address,
        tos=Tos(table.tos),
        suite=_SUITES[table.suite],
        psk=psk,
        addresses={node: tuple(map(interface_address, listed)) for node, listed in table.addresses.items()},
    )


def _peer(table: "PeerTable") -> PeerConfig:
    return PeerConfig(
        name=table.name,
        public_key=parse_key(table.public_key),
        endpoint=Endpoint(*split_endpoint(table.endpoint)) if table.endpoint else None,
        macs=tuple(map(parse_mac, table.macs)),
        learn=Learn(table.learn),
        max_macs=table.max_macs,
        persistent_keepalive=float(table.persistent_keepalive),
        uplink=UplinkConfig(table.uplink.nat) if table.uplink else None,
    )


def _whole_file(source: str, message: str) -> ConfigError:
    return ConfigError(source, (Problem(0, 0, message),))


def _at_offset(source: str, before: str, message: str) -> ConfigError:
    """An error at the end of `before`, which is the text up to the mistake."""
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return ConfigError(source, (Problem(line, column, message),))

"""A node's X25519 key pair (RFC 7748) and the files that hold secrets.

A secret is in a regular file that only its owner can read: 32 bytes in base64, the format of `wg`. Such a file is created
atomically and never overwritten, because after the loss of a private key every host needs a new stanza.
"""

import os
import shlex
import stat
from pathlib import Path

from l2overlay.addresses import PeerKey, format_key, parse_key
from l2overlay.errors import ConfigError, HostPermissionError, Problem
from l2overlay.files import read_regular, write_new

CONFIGURATION_DIR = Path("/etc/l2overlay")

MAX_SECRET_SIZE = 4096
"""Most bytes that are read of a secret's file; 45 are needed."""

_FIELD_PRIME = 2**255 - 19
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
"""u-coordinates of the points of order 1, 2, 4 and 8, which make any shared secret zero (https://cr.yp.to/ecdh.html)."""


def generate() -> bytes:
    """A new private key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> PeerKey:
    """The public key of a private one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return PeerKey(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def public_key_weakness(key: bytes) -> str | None:
    """Why no honest node has this public key, or None if it is good."""
    number = int.from_bytes(key, "little")
    if (number & (2**255 - 1)) % _FIELD_PRIME in _SMALL_ORDER:  # X25519 ignores the top bit
        return "a key of low order (with it every shared secret is zero)"
    if number >= _FIELD_PRIME:
        return "not a canonical X25519 key (RFC 7748, section 5)"
    return None


def is_private_key_of(key: bytes, public: PeerKey) -> bool:
    """Whether `key`, given as a public key, is really the private key that belongs to `public`."""
    return public_key(key) == public


def default_key_path(segment: str) -> Path:
    """The file with the private key of this host, unless `--key` names another."""
    return CONFIGURATION_DIR / f"{segment}.key"


def load(path: Path) -> bytes:
    """The private key in `path`. Raises HostPermissionError (unreadable, or readable by others) or ConfigError."""
    return read_secret(path, "private key")


def save(path: Path, private: bytes) -> None:
    """Write a new key file with mode 0600, whole or not at all. Raises UsageError if `path` exists."""
    write_new(path, f"{format_key(private)}\n", 0o600)


def own_stanza(name: str, key: bytes, endpoint: str | None = None) -> str:
    """The `[[peers]]` stanza of one host, to paste into peers.toml."""
    import toml

    peer = {"name": name, "public_key": format_key(key)} | ({"endpoint": endpoint} if endpoint else {})
    return f"{toml.dumps({'peers': [peer]}).strip()}\n"


def read_secret(path: Path, what: str) -> bytes:
    """Read 32 bytes in base64 from a file that only its owner can read. Raises like `load`; no error shows the content."""
    try:
        content, status = read_regular(path, MAX_SECRET_SIZE + 1)
    except PermissionError:
        raise HostPermissionError(
            f"{path}: this user may not read the {what}; run the command with sudo"
        ) from None
    except OSError as error:
        message = f"no {what} here ({error.strerror}); 'l2overlay init' or 'keygen' makes one"
        raise _bad_secret(path, message) from None
    if status.st_uid not in (0, os.geteuid(), _invoking_user()):
        raise HostPermissionError(
            f"{path}: this {what} belongs to another user (uid {status.st_uid}); "
            f"run: chown {os.geteuid()} {shlex.quote(str(path))}"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise HostPermissionError(
            f"{path}: others can read this {what} (mode {mode:04o}); run: chmod 600 {shlex.quote(str(path))}"
        )
    return parse_secret(content, str(path), what)


def _invoking_user() -> int:
    """The user who runs this with sudo. A key file of this user is accepted like one of root."""
    said = os.environ.get("SUDO_UID", "")
    return int(said) if said.isdecimal() else os.geteuid()


def parse_secret(content: bytes, source: str, what: str) -> bytes:
    """The 32 bytes in `content`, which may have white space around them. Raises ConfigError."""
    try:
        return parse_key(content.decode("ascii"))
    except ValueError:
        message = f"not a {what}: 32 bytes in base64 are expected, 44 characters that end in '='"
        raise _bad_secret(Path(source), message) from None


def _bad_secret(path: Path, message: str) -> ConfigError:
    return ConfigError(str(path), (Problem(0, 0, message),))

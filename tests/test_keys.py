"""Key pairs and the files that hold secrets."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.config.read import parse_config
from l2overlay.errors import ConfigError, ExitCode, HostPermissionError, HostSetupError, UsageError

# RFC 7748, section 6.1: https://www.rfc-editor.org/rfc/rfc7748#section-6.1
PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_public_key_is_the_rfc_7748_one() -> None:
    assert keys.public_key(PRIVATE) == PUBLIC


def test_generated_keys_are_good_and_never_alike() -> None:
    made = {keys.generate() for _ in range(20)}
    assert len(made) == 20
    assert {keys.public_key_weakness(keys.public_key(private)) for private in made} == {None}


@pytest.mark.parametrize("point", sorted(keys._SMALL_ORDER))
def test_points_called_weak_are_those_that_x25519_refuses(point: int) -> None:
    encoded = point.to_bytes(32, "little")
    assert "low order" in str(keys.public_key_weakness(encoded))
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(encoded))


def test_saved_key_is_for_its_owner_alone_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "lan.key"
    keys.save(path, PRIVATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"{format_key(PRIVATE)}\n"
    assert keys.load(path) == PRIVATE
    assert names_in(tmp_path) == ["lan.key"]


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lan.key"
    keys.save(path, PRIVATE)
    with pytest.raises(UsageError, match="never overwritten"):
        keys.save(path, keys.generate())
    assert keys.load(path) == PRIVATE
    assert names_in(tmp_path) == ["lan.key"]


def test_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "lan.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        keys.save(tmp_path / "lan.key", PRIVATE)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o777])
def test_key_file_that_others_may_read_is_refused_with_the_command_to_run(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a key"
    keys.save(path, PRIVATE)
    path.chmod(mode)
    with pytest.raises(HostPermissionError) as caught:
        keys.load(path)
    assert str(caught.value).endswith(f"run: chmod 600 '{path}'")
    assert caught.value.exit_code == ExitCode.PERMISSION


@pytest.mark.parametrize(
    "content", ["", "x", format_key(PRIVATE)[:-1], format_key(PRIVATE) * 2, "é" * 44, "A" * 9999]
)
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lan.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        keys.load(path)
    (line,) = caught.value.lines()
    assert line.startswith(f"{path}: not a private key")
    assert not content or content not in line.replace("lan.key", "").replace("x", "", 1)


def test_missing_key_directory_and_fifo_are_one_clear_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path, words in {
        tmp_path / "none": "No such file",
        tmp_path / "fifo": "not a regular file",
        tmp_path: "is a directory",
        Path("nul\0"): "a NUL in its name",
    }.items():
        with pytest.raises(ConfigError, match=words):
            keys.load(path)


def test_key_in_a_missing_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostSetupError, match="No such file or directory"):
        keys.save(tmp_path / "none" / "lan.key", PRIVATE)


def test_default_key_is_named_after_the_segment() -> None:
    assert keys.default_key_path("lan") == Path("/etc/l2overlay/lan.key")


@pytest.mark.parametrize("endpoint", [None, "[2001:db8::1]:7470"])
def test_own_stanza_can_be_pasted(endpoint: str | None) -> None:
    stanza = keys.own_stanza("alpha", PUBLIC, endpoint)
    config = parse_config(f'[segment]\nname = "lan"\n{stanza}', "peers.toml", base_dir=None)
    (peer,) = config.peers
    assert (peer.name, peer.public_key) == ("alpha", PUBLIC)
    assert (str(peer.endpoint) if peer.endpoint else None) == endpoint

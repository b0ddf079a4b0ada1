"""init, keygen, pubkey, check, schema, and `peers add` and `peers remove`: files in a directory, no node."""

import io
import json
import socket
import stat
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.addresses import format_key
from l2overlay.cli import init, peers_edit
from l2overlay.config.read import load_config, parse_config
from l2overlay.config.values import interface_address
from l2overlay.errors import UsageError
from tests.cli.calling import Call


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def public_text() -> str:
    return format_key(keys.public_key(keys.generate()))


def test_init_makes_a_key_and_a_file_that_is_good(call: Call, tmp_path: Path) -> None:
    code, out, _ = call(
        "init", "lan", "--dir", tmp_path / "new", "--name", "alpha", "--endpoint", "192.0.2.1:7470"
    )
    key, file = tmp_path / "new/lan.key", tmp_path / "new/lan.toml"
    assert code == 0
    assert f"l2overlay join --peers {file} --key {key}" in out
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o600, 0o644)
    (peer,) = load_config(file).peers
    assert (peer.name, str(peer.endpoint), peer.public_key) == (
        "alpha",
        "192.0.2.1:7470",
        keys.public_key(keys.load(key)),
    )
    assert call("check", file, "--key", key)[:2] == (
        0,
        f"{file}: good: segment lan, 1 peer; this host is alpha\n",
    )


def test_init_overwrites_nothing(call: Call, tmp_path: Path) -> None:
    call("init", "lan", "--dir", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert call("init", "lan", "--dir", tmp_path)[0] == 2
    (tmp_path / "lan.toml").unlink()
    assert call("init", "lan", "--dir", tmp_path)[0] == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"lan.key": before["lan.key"]}


def test_init_of_a_name_that_fits_no_interface_leaves_nothing(call: Call, tmp_path: Path) -> None:
    code, _, err = call("init", "abcdefghijkl", "--dir", tmp_path)
    assert (code, names_in(tmp_path)) == (78, [])
    assert "shorten the name to 11" in err


@pytest.mark.parametrize(
    "words",
    [
        ["LAN"],
        ["lan", "--name", "a b"],
        ["lan", "--endpoint", "192.0.2.1"],
        ["lan", "--address", "10.9.0.1"],
        ["lan", "--address", "10.9.0.255/24"],
    ],
)
def test_init_refuses_bad_words_in_one_line(call: Call, tmp_path: Path, words: list[str]) -> None:
    code, _, err = call("init", *words, "--dir", tmp_path)
    assert (code, len(err.splitlines()), names_in(tmp_path)) == (2, 1, [])


@pytest.mark.parametrize("name", ["alpha", "a.b"])
def test_every_line_that_init_comments_out_is_good_when_it_is_not(tmp_path: Path, name: str) -> None:
    text = init.peers_file("lan", name, keys.public_key(keys.generate()), "h:1", tmp_path / "lan.toml")
    keys.save(tmp_path / "lan.psk", keys.generate())
    enabled = "\n".join(
        line[2:] if " = " in line and line.startswith("# ") else line for line in text.split("\n")
    )
    segment = parse_config(enabled, "peers.toml", base_dir=tmp_path).segment
    assert segment.psk is not None
    assert list(segment.addresses) == [name]
    assert segment.bridge == "br-lan"


def test_init_writes_the_address_and_ends_in_a_ping_of_the_next_one(call: Call, tmp_path: Path) -> None:
    words = ("--name", "a.b", "--address", "10.9.0.1/24", "--address", "fd09::1/64")
    code, out, _ = call("init", "lan", "--dir", tmp_path, *words)
    assert code == 0
    assert list(map(str, load_config(tmp_path / "lan.toml").segment.addresses["a.b"])) == [words[3], words[5]]
    assert "peers add beta KEY --address 10.9.0.2/24 --address fd09::2/64" in out
    assert "ping -c 3 10.9.0.2" in out.splitlines()[-1]


def test_init_without_an_address_says_that_the_host_is_not_on_the_lan(call: Call, tmp_path: Path) -> None:
    out = call("init", "lan", "--dir", tmp_path)[1]
    assert "Without --address, this host itself has no address on the LAN" in out
    assert "ping" not in out


@pytest.mark.parametrize(
    ("address", "next_one"), [("10.9.0.254/24", "10.9.0.253/24"), ("10.9.0.0/31", "10.9.0.1/31")]
)
def test_address_of_the_next_host_is_one_that_a_host_can_have(address: str, next_one: str) -> None:
    assert str(init.neighbour(interface_address(address))) == next_one


def test_second_segment_gets_a_port_that_the_first_one_has_not(call: Call, tmp_path: Path) -> None:
    for name in ("lan", "dmz", "san"):
        assert call("init", name, "--dir", tmp_path)[0] == 0
    configs = [load_config(tmp_path / f"{name}.toml") for name in ("lan", "dmz", "san")]
    ports = [(c.segment.listen, c.peers[0].endpoint and c.peers[0].endpoint.port) for c in configs]
    first = ports[0][0]
    assert [listen for listen, _ in ports] == [first, first + 1, first + 2]
    assert all(endpoint in (None, listen) for listen, endpoint in ports)


def test_init_proposes_no_port_that_a_program_on_this_host_has(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        free = init.free_port(tmp_path)
        other.bind(("", free))
        assert init.free_port(tmp_path) > free


def test_keygen_makes_the_directory_of_the_key(call: Call, tmp_path: Path) -> None:
    assert call("keygen", tmp_path / "etc/l2overlay/lan.key")[0] == 0


def test_check_takes_the_name_of_a_segment(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_edit, "CONFIGURATION_DIR", tmp_path)
    (tmp_path / "lan").mkdir()
    monkeypatch.chdir(tmp_path)
    call("init", "lan", "--dir", tmp_path)
    assert call("check", "lan")[:2] == (0, f"{tmp_path}/lan.toml: good: segment lan, 1 peer\n")


def test_own_name_can_name_a_peer_whatever_the_host_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for host_name, name in {
        "Web_1.example.org": "web-1",
        "": "node",
        "--": "node",
        "x" * 99: "x" * 63,
    }.items():
        monkeypatch.setattr(socket, "gethostname", lambda found=host_name: found)
        assert init.own_name() == name


def test_keygen_and_pubkey_work_in_a_pipe(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _, private, _ = call("keygen")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(private.encode())))
    _, public, _ = call("pubkey")
    assert public.strip() == format_key(keys.public_key(keys.parse_secret(private.encode(), "", "")))


def test_keygen_into_a_file_prints_the_public_key_only(call: Call, tmp_path: Path) -> None:
    _, public, _ = call("keygen", tmp_path / "k")
    assert call("pubkey", tmp_path / "k")[1] == public
    assert (tmp_path / "k").read_text() != public
    assert call("keygen", tmp_path / "k")[0] == 2


def test_key_file_that_others_may_read_is_refused_with_exit_5(call: Call, tmp_path: Path) -> None:
    call("keygen", tmp_path / "k")
    (tmp_path / "k").chmod(0o644)
    code, out, err = call("pubkey", tmp_path / "k")
    assert (code, out) == (5, "")
    assert f"chmod 600 {tmp_path}/k" in err


def test_json_of_the_key_verbs(call: Call, tmp_path: Path) -> None:
    made = json.loads(call("keygen", "--json")[1])
    assert made["schema"] == "l2overlay.keygen/1"
    assert made["public_key"] == format_key(
        keys.public_key(keys.parse_secret(made["private_key"].encode(), "", ""))
    )
    kept = json.loads(call("keygen", tmp_path / "k", "--json")[1])
    assert "private_key" not in kept
    shown = json.loads(call("pubkey", tmp_path / "k", "--json")[1])
    assert shown == {"schema": "l2overlay.pubkey/1", "public_key": kept["public_key"]}
    started = json.loads(call("init", "lan", "--dir", tmp_path, "--json")[1])
    assert started["file"] == str(tmp_path / "lan.toml")


def test_check_prints_seven_mistakes_and_exits_78(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(
        '[segment]\nname = "Lan"\nmtu = 100\nsuit = "aes-gcm"\n'
        '[[peers]]\nname = "a"\npublic_key = "AAAA"\nendpoint = "h"\nmacs = ["x"]\n'
        f'[[peers]]\nname = "a"\npublic_key = "{public_text()}"\n'
    )
    code, out, err = call("check", file)
    assert (code, out) == (78, "")
    places = [line.removeprefix(f"{file}:").split(": ")[0] for line in err.splitlines()]
    assert places == ["2:8", "3:7", "4:1", "7:14", "8:12", "9:9", "11:8"]
    code, out, err = call("check", file, "--json")
    assert (code, err) == (78, "")
    problems = json.loads(out)["problems"]
    assert [f"{p['line']}:{p['column']}" for p in problems] == places


def test_check_with_a_foreign_key_prints_the_stanza_to_paste(call: Call, tmp_path: Path) -> None:
    call("init", "lan", "--dir", tmp_path)
    _, public, _ = call("keygen", tmp_path / "other.key")
    code, _, err = call("check", tmp_path / "lan.toml", "--key", tmp_path / "other.key")
    assert code == 78
    assert f'[[peers]]\nname = "{init.own_name()}-2"\npublic_key = "{public.strip()}"\n' in err


def test_a_file_that_is_not_there_is_told_with_what_makes_one(call: Call, tmp_path: Path) -> None:
    for words in (["check", tmp_path / "lan.toml"], ["peers", "list", "--file", tmp_path / "lan.toml"]):
        code, _, err = call(*words)
        assert (code, "'l2overlay init SEGMENT' makes a first one" in err) == (78, True)


def test_schema_is_a_json_schema(call: Call) -> None:
    assert json.loads(call("schema")[1])["$schema"].startswith("https://json-schema.org/")


FILE = """\
# head
[segment]
name = "lan"

# first
[[peers]]
name = "alpha" # keep me
public_key = "{a}"

# second, that goes
# with its stanza
[[peers]]
name = "beta"
public_key = "{b}"
macs = [
  "52:54:00:00:00:01", # inside
] # tail

# third
[[peers]]
name = "gamma"
public_key = "{c}"
# foot
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lan.toml"
    path.write_text(FILE.format(a=public_text(), b=public_text(), c=public_text()))
    path.chmod(0o640)
    return path


def test_added_peer_is_appended_and_all_else_stays(call: Call, file: Path) -> None:
    before, key = file.read_text(), public_text()
    code, out, _ = call("peers", "add", "delta", key, "--endpoint", "[2001:db8::4]:7470", "--file", file)
    assert (code, out.count("added delta")) == (0, 1)
    stanza = f'\n[[peers]]\nname = "delta"\npublic_key = "{key}"\nendpoint = "[2001:db8::4]:7470"\n'
    assert file.read_text() == before + stanza
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert names_in(file.parent) == [file.name]


def test_added_then_removed_peer_leaves_the_file_as_it_was(call: Call, file: Path) -> None:
    before, key = file.read_bytes(), public_text()
    assert call("peers", "add", "delta", key, "--file", file)[0] == 0
    assert call("peers", "remove", key, "--file", file)[0] == 0
    assert file.read_bytes() == before


def test_removed_peer_takes_its_own_comments_along_and_no_others(call: Call, file: Path) -> None:
    before = file.read_text()
    assert call("peers", "remove", "beta", "--file", file)[0] == 0
    start, end = before.index("# second"), before.index("# third")
    assert file.read_text() == before[:start] + before[end:]


def test_last_peer_can_be_removed(call: Call, file: Path) -> None:
    before = file.read_text()
    assert call("peers", "remove", "gamma", "--file", file)[0] == 0
    assert file.read_text() == before[: before.index("# third")] + "# foot\n"


def test_file_without_final_newline_and_with_windows_lines_can_be_edited(call: Call, file: Path) -> None:
    file.write_bytes(file.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n"))
    assert call("peers", "add", "delta", public_text(), "--file", file)[0] == 0
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n")
    assert call("peers", "remove", "beta", "--file", file)[0] == 0
    assert [peer.name for peer in load_config(file).peers] == ["alpha", "gamma", "delta"]


def test_link_to_the_file_stays_a_link(call: Call, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert call("peers", "remove", "beta", "--file", link)[0] == 0
    assert link.is_symlink()
    assert len(load_config(file).peers) == 2


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["add", "alpha", "KEY"], 78, "the name 'alpha' is already taken (first at line 7)"),
        (["add", "a b", "KEY"], 2, "cannot name a peer"),
        (["add", "delta", "AAAA"], 2, "not a key"),
        (["add", "delta", "KEY", "--endpoint", "h"], 2, "has no port"),
        (["add", "delta", "KEY", "--address", "10.9.0.4"], 2, "with its prefix length"),
        (["add", "delta", "KEY", "--address", "10.9.0.0/24"], 2, "is the network itself"),
        (["add", "delta", "KEY", *["--address", "10.9.0.4/24"] * 2], 78, "'10.9.0.4/24' is already taken"),
        (["remove", "bata"], 2, "did you mean 'beta'?"),
    ],
)
def test_refused_edit_leaves_the_file_as_it_was(
    call: Call, file: Path, argv: list[str], code: int, words: str
) -> None:
    before = file.read_bytes()
    found, out, err = call("peers", *[public_text() if a == "KEY" else a for a in argv], "--file", file)
    assert (found, out) == (code, "")
    assert words in err
    assert file.read_bytes() == before


NO_ADDRESSES = 'name = "lan"'
WAYS_TO_WRITE_ADDRESSES = {
    "none": NO_ADDRESSES,
    "value": f'{NO_ADDRESSES}\naddresses = {{ alpha = ["10.9.0.1/24"] }} # who',
    "empty value": f"{NO_ADDRESSES}\naddresses = {{}}",
    "table": f'{NO_ADDRESSES}\n\n[segment.addresses] # who\nalpha = [\n  "10.9.0.1/24",\n] # tail',
    "empty table": f"{NO_ADDRESSES}\n[segment.addresses]",
    "dotted": f'{NO_ADDRESSES}\naddresses.alpha = ["10.9.0.1/24"]\nmtu = 1400',
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE_ADDRESSES)
def test_address_of_an_added_peer_stands_with_those_of_the_others(call: Call, file: Path, way: str) -> None:
    file.write_text(file.read_text().replace(NO_ADDRESSES, WAYS_TO_WRITE_ADDRESSES[way]))
    before = load_config(file)
    two = ("--address", "10.9.0.4/24", "--address", "fd09::4/64")
    code, out, _ = call("peers", "add", "delta", public_text(), *two, "--file", file)
    assert (code, out.splitlines()[-1].rpartition("Then: ")[2]) == (0, "ping -c 3 10.9.0.4")
    assert f"'l2overlay join --peers {file}'" in out
    after = load_config(file)
    assert list(map(str, after.segment.addresses["delta"])) == ["10.9.0.4/24", "fd09::4/64"]
    assert {k: v for k, v in after.segment.addresses.items() if k != "delta"} == before.segment.addresses
    assert after.segment.mtu == before.segment.mtu
    assert call("peers", "remove", "delta", "--file", file)[0] == 0
    assert load_config(file) == before


@pytest.mark.parametrize("way", ["value", "table", "dotted"])
def test_removed_peer_takes_its_addresses_along(call: Call, file: Path, way: str) -> None:
    file.write_text(file.read_text().replace(NO_ADDRESSES, WAYS_TO_WRITE_ADDRESSES[way]))
    assert call("peers", "remove", "alpha", "--file", file)[0] == 0
    config = load_config(file)
    assert ([peer.name for peer in config.peers], config.segment.addresses) == (["beta", "gamma"], {})


def test_peer_that_a_filter_names_cannot_be_removed(call: Call, file: Path) -> None:
    text = (
        file.read_text()
        + '\n[filter]\n[[filter.rules]]\ndirection = "in"\nsource = "beta"\naction = "drop"\n'
    )
    file.write_text(text)
    code, _, err = call("peers", "remove", "beta", "--file", file)
    assert (code, file.read_text()) == (78, text)
    assert "without beta:" in err


def test_a_private_key_is_not_added_as_a_public_one(call: Call, tmp_path: Path) -> None:
    call("init", "lan", "--dir", tmp_path)
    file, before = tmp_path / "lan.toml", (tmp_path / "lan.toml").read_text()
    own = (tmp_path / "lan.key").read_text().strip()
    code, out, err = call("peers", "add", "gamma", own, "--file", file)
    assert (code, out, own in err) == (2, "", False)
    assert f"this is the PRIVATE key of {init.own_name()}; KEY is the public key" in err
    call("keygen", tmp_path / "next.key")
    code, _, err = call("peers", "add", "gamma", (tmp_path / "next.key").read_text().strip(), "--file", file)
    assert (code, f"this is the PRIVATE key in {tmp_path}/next.key" in err) == (2, True)
    code, _, err = call("peers", "add", "gamma", tmp_path / "next.key", "--file", file)
    assert (code, f"KEY is what 'l2overlay pubkey {tmp_path}/next.key' prints" in err) == (2, True)
    assert file.read_text() == before


def test_peers_in_one_list_are_left_to_an_editor(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "lan.toml"
    path.write_text(f'peers = [{{ name = "a", public_key = "{public_text()}" }}]\n[segment]\nname = "lan"\n')
    before = path.read_bytes()
    assert call("peers", "remove", "a", "--file", path)[0] == 2
    assert call("peers", "add", "b", public_text(), "--file", path)[0] == 78
    assert path.read_bytes() == before


def test_broken_file_is_not_edited(call: Call, file: Path) -> None:
    file.write_text(file.read_text() + "\nbroken")
    assert call("peers", "add", "delta", public_text(), "--file", file)[0] == 78


def test_file_is_found_here_by_segment_or_alone_in_etc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    monkeypatch.setattr(peers_edit, "CONFIGURATION_DIR", etc)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no segment"):
        peers_edit.find_file(None)
    (etc / "lan.toml").touch()
    assert peers_edit.find_file(None) == etc / "lan.toml"
    (etc / "wan.toml").touch()
    with pytest.raises(UsageError, match="lan, wan"):
        peers_edit.find_file(None)
    (tmp_path / "peers.toml").touch()
    assert peers_edit.find_file(None) == Path("peers.toml")
    assert peers_edit.find_file("wan") == etc / "wan.toml"
    assert peers_edit.find_file("x/y.toml") == Path("x/y.toml")
    with pytest.raises(UsageError, match="cannot name a segment"):
        peers_edit.find_file("W")

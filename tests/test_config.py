"""peers.toml: every mistake at once, each with its place; and what a good file becomes."""

import base64
import json
import os
import re
import time
from ipaddress import ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay import keys
from l2overlay.addresses import PeerKey, format_key, parse_mac
from l2overlay.config.limits import DEFAULT_PORT, MAX_FILE_SIZE, MAX_PEERS, MAX_STATIC_MACS
from l2overlay.config.read import json_schema, load_config, parse_config, require_own
from l2overlay.config.types import Config, Endpoint, Suite, UplinkConfig
from l2overlay.errors import ConfigError, ExitCode, Problem


def key_text(number: int) -> str:
    """A good public key, another one for each number."""
    private = (number << 3).to_bytes(
        32, "little"
    )  # X25519 ignores the lowest three bits (RFC 7748, section 5)
    return format_key(keys.public_key(private))


A, B, C = key_text(1), key_text(2), key_text(3)

GOOD = f"""\
[segment]
name = "lan"
addresses = {{ alpha = ["10.9.0.1/24", "fd00:9::1/64"] }}

[[peers]]
name = "alpha"
public_key = "{A}"
endpoint = "192.0.2.1:7471"
macs = ["52:54:00:00:00:01"]

[[peers]]
name = "beta"
public_key = "{B}"
endpoint = "[2001:DB8::0:1]:7470"
persistent_keepalive = 0
"""


def parse(text: str | bytes) -> Config:
    return parse_config(text, "peers.toml", base_dir=None)


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.lines()


def problems_of(text: str) -> tuple[Problem, ...]:
    try:
        parse(text)
    except ConfigError as error:
        return error.problems
    return ()


def only_mistake(text: str | bytes) -> str:
    (line,) = mistakes(text)
    return line


def test_good_file_becomes_frozen_data_with_defaults() -> None:
    config = parse(GOOD)
    segment = config.segment
    assert (segment.name, segment.bridge, segment.tap) == ("lan", "br-lan", "tap-lan")
    assert (segment.mtu, segment.ageing_time, segment.listen) == (1500, 300.0, DEFAULT_PORT)
    assert (segment.suite, segment.psk) == (Suite.AESGCM, None)
    assert segment.addresses == {"alpha": (ip_interface("10.9.0.1/24"), ip_interface("fd00:9::1/64"))}
    alpha, beta = config.peers
    assert alpha.macs == (parse_mac("52:54:00:00:00:01"),)
    assert alpha.endpoint == Endpoint("192.0.2.1", 7471)
    assert beta.endpoint == Endpoint("2001:db8::1", 7470)
    assert (alpha.persistent_keepalive, beta.persistent_keepalive) == (20.0, 0.0)


def test_every_key_of_the_segment_is_taken() -> None:
    segment = parse(
        '[segment]\nname = "lan"\nbridge = "br0"\ntap = "tap.0"\nmtu = 9000\nageing_time = 10\nlisten = 1\n'
        'suite = "chacha20-poly1305"\n'
    ).segment
    assert (segment.bridge, segment.tap, segment.mtu, segment.ageing_time) == ("br0", "tap.0", 9000, 10.0)
    assert (segment.listen, segment.suite) == (1, Suite.CHACHAPOLY)


def test_seven_different_mistakes_are_seven_lines_with_their_places() -> None:
    text = f"""\
[segment]
name = "lan"
mtu = "1500"            # 1: a text
  ageing_tme = 300      # 2: no such key
addresses = {{ gamma = [
    "10.9.0.1/24",      # 3: no such node, at its key
] }}
[[peers]]
name = "alpha"
public_key = "{format_key(bytes(32))}" # 4: low order
endpoint = "192.0.2.1"  # 5: no port
[[peers]]
name = "beta"
public_key = "{B}"
macs = ["52:54:00:00:00:01",
        "33:33:00:00:00:01"] # 6: a group
[[peers]]
name = "beta"           # 7: twice
public_key = "{C}"
"""
    lines = mistakes(text)
    assert [line.split(": ")[0] for line in lines] == [
        "peers.toml:3:7",
        "peers.toml:4:3",
        "peers.toml:5:15",
        "peers.toml:10:14",
        "peers.toml:11:12",
        "peers.toml:16:9",
        "peers.toml:18:8",
    ]
    assert "did you mean 'ageing_time'?" in lines[1]
    assert "low order" in lines[3]
    assert "192.0.2.1:7470" in lines[4]
    assert "first at line 13" in lines[6]


@pytest.mark.parametrize(
    ("was", "becomes", "place", "words"),
    [
        ('name = "lan"', 'name = "LAN"', "2:8", "cannot name a segment"),
        ('name = "lan"', 'name = "abcdefghijkl"', "2:8", "'tap-abcdefghijkl' would be 16 bytes long"),
        ('name = "lan"', 'name = "lan"\nbridge = "a-very-long-bridge"', "3:10", "18 bytes long"),
        ('name = "lan"', 'name = "lan"\ntap = "tap%d"', "3:7", "cannot name an interface"),
        ('name = "lan"', 'name = "lan"\ntap = "br-lan"', "3:7", "tap and bridge must be different"),
        ('name = "lan"', 'name = "lan"\nmtu = 1279', "3:7", "mtu must be at least 1280, not 1279"),
        ('name = "lan"', 'name = "lan"\nmtu = 9217', "3:7", "mtu must be at most 9216"),
        ('name = "lan"', 'name = "lan"\nmtu = true', "3:7", "mtu must be a whole number, not true"),
        ('name = "lan"', 'name = "lan"\nageing_time = 9.9', "3:15", "at least 10"),
        ('name = "lan"', 'name = "lan"\nageing_time = 1_000_001', "3:15", "at most 1000000"),
        ('name = "lan"', 'name = "lan"\nageing_time = nan', "3:15", "ageing_time must be"),
        ('name = "lan"', 'name = "lan"\ntos = "ecn"', "3:7", "tos must be"),
        ('name = "lan"', 'name = "lan"\nlisten = 0', "3:10", "listen must be at least 1"),
        ('name = "lan"', 'name = "lan"\nlisten = 65536', "3:10", "at most 65535"),
        (
            'name = "lan"',
            'name = "lan"\nlisten = "lan.example:7470"',
            "3:10",
            "a numeric address, not a name",
        ),
        ('name = "lan"', 'name = "lan"\nlisten = "192.0.2.1"', "3:10", "has no port"),
        ('name = "lan"', 'name = "lan"\nlisten = true', "3:10", "listen must be a port, or an address"),
        ('name = "lan"', 'name = "lan"\nlisten = "[fe80::1]:7470"', "3:10", "link-local: name the interface"),
        ('name = "lan"', 'name = "lan"\nsuite = "none"', "3:9", "'aes-gcm' or 'chacha20-poly1305'"),
        ('name = "lan"', 'name = "lan"\nsuite = 1', "3:9", "not 1"),
        ('name = "lan"', 'name = "lan"\npsk_file = "lan.psk"', "3:12", "relative"),
        ('name = "lan"', 'name = "lan"\npsk_file = ""', "3:12", "psk_file must have at least 1 characters"),
        ('name = "lan"\n', "", "1:1", "the key 'name' is missing here"),
        ('name = "lan"', "name = 1979-05-27", "2:8", "name must be text in quotes, not a date"),
        ("alpha = [", "alhpa = [", "3:15", "no peer is named 'alhpa' (did you mean 'alpha'?)"),
        ('"10.9.0.1/24"', '"10.9.0.1"', "3:24", "prefix length"),
        ('"10.9.0.1/24"', '"10.9.0.0/24"', "3:24", "the network itself"),
        ('"10.9.0.1/24"', '"10.9.0.255/24"', "3:24", "broadcast"),
        ('"10.9.0.1/24"', '"127.0.0.1/8"', "3:24", "cannot be the address"),
        ('"10.9.0.1/24"', '"fd00:9::1/48"', "3:40", "already taken (first at line 3)"),
        ('name = "beta"', 'name = "-"', "12:8", "cannot name a peer"),
        ('name = "alpha"', 'name = "alpha"\nend = "x"', "7:1", "unknown key 'end'"),
        (A, A[:-2] + "=", "7:14", "44 characters"),
        (A, B, "13:14", "public key of another peer (first at line 7)"),
        ("192.0.2.1:7471", "192.0.2.300:7471", "8:12", "cannot be reached"),
        ("192.0.2.1:7471", "host_:0", "8:12", "the port after the last ':' must be 1 to 65535"),
        ("192.0.2.1:7471", "a host:7470", "8:12", "neither an IP address nor a host name"),
        ("192.0.2.1:7471", "0.0.0.0:7470", "8:12", "not the address of a single host"),
        ("192.0.2.1:7471", "2001:db8::2", "8:12", "write an IPv6 endpoint as [2001:db8::1]:7470"),
        ("192.0.2.1:7471", "[fe80::1]:7471", "8:12", "name the interface, as [fe80::1%eth0]:7471"),
        ("192.0.2.1:7471", "[2001:db8::1%eth0]:7471", "8:12", "only a link-local address takes an interface"),
        ("192.0.2.1:7471", "[192.0.2.1]:7470", "8:12", "cannot be reached"),
        (
            "192.0.2.1:7471",
            "[2001:db8::1]:7470",
            "14:12",
            "already belongs to another peer (first at line 8)",
        ),
        ('["52:54:00:00:00:01"]', '"52:54:00:00:00:01"', "9:8", "macs must be a list in [ ], not the text"),
        ("52:54:00:00:00:01", "00:00:00:00:00:00", "9:9", "not the address of a station"),
        ("52:54:00:00:00:01", "52:54:00:00:00", "9:9", "not a MAC address"),
        ("persistent_keepalive = 0", "persistent_keepalive = -1", "15:24", "at least 0"),
        (
            "persistent_keepalive = 0",
            'macs = ["52-54-00-00-00-01"]',
            "15:9",
            "is already listed (first at line 9)",
        ),
    ],
)
def test_a_mistake_is_named_at_its_place(was: str, becomes: str, place: str, words: str) -> None:
    assert was in GOOD
    line = only_mistake(GOOD.replace(was, becomes, 1))
    assert line.startswith(f"peers.toml:{place}: ")
    assert words in line


GATEWAY = '"52:54:00:00:00:01"]\nuplink = { nat = "eth0" }'
SECOND = 'persistent_keepalive = 0\nuplink = { nat = "eth1" }'


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        (
            {
                '"52:54:00:00:00:01"]': GATEWAY,
                "persistent_keepalive = 0": SECOND,
                "addresses = { ": 'addresses = { beta = ["10.9.0.2/24"], ',
            },
            "17:18",
            "'alpha' is the gateway for IPv4 already: remove uplink from the stanza of 'alpha' or of 'beta' (first",
        ),
        (
            {'"52:54:00:00:00:01"]': GATEWAY, "alpha = [": "beta = ["},
            "10:18",
            "the gateway 'alpha' needs an address in the segment: add it to addresses in [segment]",
        ),
        (
            {'"52:54:00:00:00:01"]': GATEWAY.replace("eth0", "br-lan")},
            "10:18",
            "'br-lan' belongs to the segment itself",
        ),
        ({'"52:54:00:00:00:01"]': GATEWAY.replace("nat", "nta")}, "10:12", "unknown key 'nta'"),
        ({'"52:54:00:00:00:01"]': GATEWAY.replace("eth0", "e/0")}, "10:18", "e/0"),
    ],
)
def test_an_uplink_that_cannot_be_is_named_at_its_place(
    changes: dict[str, str], place: str, words: str
) -> None:
    text = GOOD
    for was, becomes in changes.items():
        assert was in text
        text = text.replace(was, becomes, 1)
    assert [line for line in mistakes(text) if line.startswith(f"peers.toml:{place}: ") and words in line]


def test_two_gateways_are_good_when_one_is_for_ipv4_and_one_for_ipv6() -> None:
    text = GOOD.replace('"52:54:00:00:00:01"]', GATEWAY).replace("persistent_keepalive = 0", SECOND)
    config = parse(
        re.sub("addresses = .*", 'addresses = { alpha = ["10.9.0.1/24"], beta = ["fd00:9::1/64"] }', text)
    )
    assert [peer.uplink for peer in config.peers] == [UplinkConfig("eth0"), UplinkConfig("eth1")]


def test_long_segment_name_is_good_with_interfaces_of_its_own() -> None:
    config = parse('[segment]\nname = "abcdefghijklmno"\ntap = "t0"\nbridge = "b0"\n')
    assert config.segment.name == "abcdefghijklmno"


@pytest.mark.parametrize(
    "number", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255, 2**255 + 1, 2**256 - 1]
)
def test_weak_and_uncanonical_keys_are_refused(number: int) -> None:
    key = format_key(number.to_bytes(32, "little"))
    assert any(word in only_mistake(GOOD.replace(A, key)) for word in ("low order", "not a canonical"))


def test_host_names_are_compared_without_case_and_final_dot() -> None:
    text = GOOD.replace("192.0.2.1:7471", "Host.example.org.:7470").replace(
        "[2001:DB8::0:1]", "host.example.ORG"
    )
    assert "first at line 8" in only_mistake(text)


def test_repeated_toml_key_says_where_the_first_stands() -> None:
    line = only_mistake('[segment]\nname = "lan"\nmtu = 1500\n  name = "wan"\n')
    assert line == "peers.toml:4:3: 'segment.name' appears a second time (first at line 2)"


def test_repeated_table_says_where_the_first_stands() -> None:
    line = only_mistake('[segment]\nname = "lan"\n\n[segment]\nmtu = 1500\n')
    assert line == "peers.toml:4:1: 'segment' appears a second time (first at line 1)"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[segment\nname = "lan"\n', "1:9"),
        ('[segment]\nname = "lan', "2:12"),
        ("[segment]\nname = \n", "2:8"),
    ],
)
def test_syntax_error_is_one_line_with_its_place(text: str, place: str) -> None:
    assert only_mistake(text).startswith(f"peers.toml:{place}: not TOML: ")


def test_empty_file_lacks_its_segment() -> None:
    assert mistakes("") == ["peers.toml: the table [segment] is missing"]


def test_tables_where_others_belong_are_refused() -> None:
    assert only_mistake("segment = 4\n").startswith("peers.toml:1:11: segment must be a table, not 4")
    assert only_mistake('peers = [5]\n[segment]\nname = "lan"\n').startswith(
        "peers.toml:1:10: peers must be a table"
    )
    assert only_mistake('[segment]\nname="lan"\n[peers]\n').startswith("peers.toml:3:1: peers must be a list")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[segment]\nna\0me", "peers.toml:2:3: a NUL byte"),
        (b"\xef\xbb\xbf[segment]\n", "peers.toml:1:1: begins with a byte order mark"),
        ("[segment]\n".encode("utf-16"), "peers.toml: encoded in UTF-16"),
        ("# Grüße\n[segment]".encode("latin-1"), "peers.toml:1:5: not UTF-8: byte 0xfc"),
        (b"#" * (MAX_FILE_SIZE + 1), "peers.toml: larger than 1 MiB"),
        ("\ud800", "peers.toml:1:1: not UTF-8"),
        ("a=" + "[" * 5000, "nested deeper"),
        (".".join("a" * 5000) + " = 1", "nested deeper"),
        ("a = " + "1" * 5000, "peers.toml:1:"),
    ],
)
def test_what_is_no_text_of_ours_is_one_clear_line(content: bytes | str, words: str) -> None:
    line = only_mistake(content)
    assert words in line
    assert len(line) < 250


def test_directory_missing_file_and_device_are_one_clear_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    expected = {
        tmp_path: "is a directory",
        tmp_path / "none": "No such file",
        tmp_path / "fifo": "not a regular file",
    }
    for path, words in expected.items():
        with pytest.raises(ConfigError, match=words):
            load_config(path)


def test_ten_megabyte_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    big = tmp_path / "big.toml"
    with big.open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_config(big)


def test_too_many_peers_and_stations_are_refused() -> None:
    stanzas = "".join(f'[[peers]]\nname="p{i}"\npublic_key="{A}"\n' for i in range(MAX_PEERS + 1))
    assert any(
        f"peers must have at most {MAX_PEERS} entries" in line
        for line in mistakes(f'[segment]\nname="lan"\n{stanzas}')
    )
    macs = ", ".join(f'"52:54:00:00:{i >> 8:02x}:{i & 255:02x}"' for i in range(MAX_STATIC_MACS + 1))
    line = only_mistake(f'[segment]\nname="lan"\n[[peers]]\nname="a"\npublic_key="{A}"\nmacs=[{macs}]\n')
    assert f"more than {MAX_STATIC_MACS} static stations" in line


def with_psk(directory: Path, content: str, mode: int = 0o600) -> Path:
    psk, file = directory / "lan.psk", directory / "lan.toml"
    psk.write_text(content)
    psk.chmod(mode)
    file.write_text(GOOD.replace('name = "lan"', 'name = "lan"\npsk_file = "lan.psk"'))
    return file


def test_psk_is_read_beside_the_file_and_never_shown(tmp_path: Path) -> None:
    config = load_config(with_psk(tmp_path, f"{C}\n"))
    assert config.segment.psk == base64.b64decode(C)
    assert C not in repr(config)
    assert str(base64.b64decode(C)) not in repr(config)


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [(A, 0o640, "chmod 600"), ("short", 0o600, "32 bytes in base64"), ("ü", 0o600, "32 bytes in base64")],
)
def test_bad_psk_file_is_a_mistake_at_its_key(tmp_path: Path, content: str, mode: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(with_psk(tmp_path, content, mode))
    (line,) = caught.value.lines()
    assert line.startswith(f"{tmp_path}/lan.toml:3:12: ")
    assert words in line
    assert content not in line.replace(words, "")


def test_host_without_stanza_is_told_what_to_paste() -> None:
    config, key = parse(GOOD), PeerKey(base64.b64decode(C))
    with pytest.raises(ConfigError) as caught:
        require_own(config, key, source="peers.toml", name="gamma", endpoint="192.0.2.3:7470")
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    stanza = str(caught.value).split("\n\n")[1]
    assert parse(f"{GOOD}\n{stanza}\n").peers[2].name == "gamma"
    assert require_own(config, config.peers[1].public_key, source="peers.toml").name == "beta"


def test_host_whose_private_key_stands_in_the_file_is_told_so_without_showing_it() -> None:
    private = keys.generate()
    config = parse(GOOD.replace(B, format_key(PeerKey(private))))
    with pytest.raises(ConfigError, match="peer 'beta' has this host's PRIVATE key") as caught:
        require_own(config, keys.public_key(private), source="peers.toml")
    assert format_key(PeerKey(private)) not in str(caught.value)


def test_host_whose_name_has_another_key_gets_a_stanza_that_fits() -> None:
    with pytest.raises(ConfigError, match="peer 'beta' has another key") as caught:
        require_own(parse(GOOD), PeerKey(base64.b64decode(C)), source="peers.toml", name="beta")
    assert len(parse(f"{GOOD}\n{str(caught.value).split(chr(10) * 2)[1]}\n").peers) == 3


def test_thousand_peers_are_read_in_well_under_a_second() -> None:
    stanzas = "".join(
        f'[[peers]]\nname="p{i}"\npublic_key="{key_text(i + 1)}"\nendpoint="10.0.{i >> 8}.{i & 255}:7470"\n'
        for i in range(1000)
    )
    start = time.process_time()  # of this process: other tests may share the machine
    assert len(parse(f'[segment]\nname="lan"\n{stanzas}').peers) == 1000
    assert time.process_time() - start < 0.9


@pytest.mark.parametrize(
    ("listen", "address", "port"),
    [
        ("7471", "", 7471),
        ('"192.0.2.7:7471"', "192.0.2.7", 7471),
        ('"[2001:DB8::7]:7471"', "2001:db8::7", 7471),
        ('"[fe80::7%eth0]:7471"', "fe80::7%eth0", 7471),
    ],
)
def test_listen_is_a_port_or_an_address_with_a_port(listen: str, address: str, port: int) -> None:
    segment = parse(f'[segment]\nname = "lan"\nlisten = {listen}\n').segment
    assert (segment.listen_address, segment.listen) == (address, port)


def test_schema_comes_from_the_model_that_checks() -> None:
    schema = json.loads(json.dumps(json_schema()))
    segment, peer = schema["$defs"]["SegmentTable"], schema["$defs"]["PeerTable"]
    assert schema["required"] == ["segment"]
    assert segment["additionalProperties"] is False
    assert (segment["properties"]["mtu"]["minimum"], segment["properties"]["mtu"]["maximum"]) == (1280, 9216)
    assert peer["required"] == ["name", "public_key"]
    assert all("description" in p for table in (segment, peer) for p in table["properties"].values())
    assert "null" not in json.dumps(schema)


DOCUMENT = Path(__file__).parents[1] / "docs" / "peers.toml.md"


def test_documented_file_is_good() -> None:
    assert len(parse(DOCUMENT.read_text().split("```toml\n")[1].split("```")[0]).peers) == 2


def test_every_key_is_documented_with_an_example_that_is_good(tmp_path: Path) -> None:
    keys.save(tmp_path / "lan.psk", keys.generate())
    segment, peer = [
        re.findall(r"^`((\w+) = .*)`$", part, re.MULTILINE)
        for part in DOCUMENT.read_text().split("## `[[peers]]`")
    ]
    for table, examples in {"SegmentTable": segment, "PeerTable": peer}.items():
        assert [key for _, key in examples] == list(json_schema()["$defs"][table]["properties"])
    lines = ["[segment]", *(line for line, _ in segment), "[[peers]]", *(line for line, _ in peer)]
    beta = f'[[peers]]\nname = "beta"\npublic_key = "{B}"\n'
    parse_config("\n".join([*lines, beta]), "docs", base_dir=tmp_path)


@given(st.text() | st.binary())
def test_any_text_raises_nothing_but_config_error(text: str | bytes) -> None:
    assert mistakes(text)


VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([A, "52:54:00:00:00:01", "h:1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["name", "public_key", "endpoint", "macs", "mtu", "suite", "addresses", "psk_file", "bridge", "x"]
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


def toml_value(value: object) -> str:
    """Any value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value)


@given(TABLES | VALUES, st.lists(TABLES | VALUES, max_size=3) | VALUES)
def test_any_document_raises_nothing_but_config_error(segment: object, peers: object) -> None:
    found = problems_of(f"segment = {toml_value(segment)}\npeers = {toml_value(peers)}\n")
    assert all(problem.line in (0, 1, 2) for problem in found)


@given(st.integers(0, len(GOOD) - 1), st.characters(exclude_categories=["Cs"]))
def test_one_wrong_character_raises_nothing_but_config_error(at: int, character: str) -> None:
    text = GOOD[:at] + character + GOOD[at + 1 :]
    assert all(problem.line <= text.count("\n") + 1 for problem in problems_of(text))

"""The `[protect]` table: what a good one becomes, and what is wrong with others, each with its place."""

import json
import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from l2overlay import keys
from l2overlay.addresses import PeerKey, parse_mac
from l2overlay.config.diff import diff_configs
from l2overlay.config.protect_values import RESERVED_NAMES
from l2overlay.config.read import json_schema, parse_config
from l2overlay.config.types import Config, Learn, Party, ProtectConfig, StormConfig, StormLimit
from l2overlay.dataplane.reserved import RESERVED_PROTOCOLS
from l2overlay.errors import ConfigError
from tests.stanzas import stanza

A, B = (keys.public_key((n << 3).to_bytes(32, "little")) for n in (1, 2))
PEERS = '[segment]\nname = "lan"\n' + stanza("alpha", A) + stanza("beta", B)
MAC = "52:54:00:00:00:01"
ON = 'arp_spoof_guard = "on"\n[protect.bindings]\n'


def parse(text: str) -> Config:
    return parse_config(PEERS + text, "peers.toml", base_dir=None)


def protect(text: str) -> ProtectConfig:
    found = parse("[protect]\n" + text).protect
    assert found is not None
    return found


def complaints(text: str) -> list[str]:
    """`LINE:COLUMN: message`, the line counted from the first of `text`."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    first = PEERS.count("\n")
    return [f"{p.line - first}:{p.column}: {p.message}" for p in caught.value.problems]


def test_a_file_without_the_table_has_storm_control_and_the_loop_guard_and_no_guard() -> None:
    assert parse("").protect == ProtectConfig()
    assert ProtectConfig().storm == StormConfig()
    assert ProtectConfig().loop_guard
    assert ProtectConfig().dhcp_servers is None


def test_names_become_keys_and_addresses_become_stations() -> None:
    found = protect(
        f'dhcp_servers = ["alpha", "{MAC}"]\nrouter_advertisements = []\nisolation = ["alpha", "beta"]\n'
    )
    assert found.dhcp_servers == Party(frozenset({A}), frozenset({parse_mac(MAC)}))
    assert found.router_advertisements == Party()
    assert found.isolation == Party(peers=frozenset({A, B}))


def test_bindings_ethertypes_and_policies_are_read() -> None:
    found = protect(
        'arp_spoof_guard = "on"\nbpdu = "drop"\nlldp = "pass"\nloop_guard = "off"\nstorm_control = "off"\n'
        f'ethertypes_allow = ["ipv4", 0x88CC, "0x1234", "llc"]\n[protect.bindings]\n"{MAC}" = ["10.9.0.1", "fd00::1"]\n'
    )
    assert found.arp_spoof_guard
    assert found.bindings == {parse_mac(MAC): (ip_address("10.9.0.1"), ip_address("fd00::1"))}
    assert found.ethertypes_allow == frozenset({0x0800, 0x88CC, 0x1234, 0})
    assert found.reserved_passes == {"lldp"}
    assert (found.bpdu_passes, found.loop_guard, found.storm) == (False, False, None)


def test_a_storm_limit_keeps_the_defaults_of_what_it_does_not_name() -> None:
    storm = protect("[protect.storm]\nbroadcast = { frames = 10, burst = 0.5 }\n").storm
    assert storm is not None
    assert storm.broadcast == StormLimit(10.0, StormConfig().broadcast.byte_rate, 0.5)
    assert storm.multicast == StormConfig().multicast


def test_learn_and_max_macs_belong_to_a_peer() -> None:
    beta = parse(f'learn = "locked"\nmax_macs = 3\nmacs = ["{MAC}"]\n').peers[1]
    assert (beta.learn, beta.max_macs) == (Learn.LOCKED, 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('dhcp_servers = ["alfa"]', "2:17: 'alfa' is neither a peer nor a station's MAC address (did you"),
        (
            'isolation = ["alpha"]',
            "2:13: isolation separates the entries of the list from each other: a single entry",
        ),
        ('isolation = ["33:33:00:00:00:01", "beta"]', "2:14: '33:33:00:00:00:01' is a group address"),
        ('bpdu = "no"', "2:8: bpdu must be 'pass' or 'drop', not the text 'no'"),
        ('ethertypes_deny = ["ipv5"]', "2:20: 'ipv5' is not an EtherType; write a name or 0x88cc"),
        ('reserved = ["lacpp"]', "2:13: 'lacpp' is not a known protocol (did you mean 'lacp'?)"),
        ("reserved = [3]", "2:13: '3' is not a known protocol; the known ones are lldp, eapol, ptp, lacp"),
        ("ethertypes_deny = [5]", '2:20: an EtherType is a name ("ipv4"), or 0x0600 to 0xffff'),
        ("ethertypes_deny = [0x8100]", "2:20: the switch looks behind tags: list the EtherTypes"),
        ("ethertypes_allow = []", "2:20: an empty list lets nothing pass at all"),
        (
            'ethertypes_allow = ["arp"]\nethertypes_deny = ["ipv4"]',
            "3:1: ethertypes_allow already says everything that passes",
        ),
        (f'[protect.bindings]\n"{MAC}" = []', "2:1: bindings do nothing while arp_spoof_guard is off"),
        (f'{ON}"{MAC}" = ["10.9.0.1/24"]', "4:24: '10.9.0.1/24' is not an IP address"),
        (f'{ON}"{MAC}" = ["224.0.0.1"]', "4:24: '224.0.0.1' cannot be a station's address"),
        (
            f'{ON}"{MAC}" = []\n"52-54-00-00-00-01" = []',
            "5:1: '52-54-00-00-00-01' is already in this table (first",
        ),
        ("[protect.storm]\nbroadcast = { frames = 0 }", "3:24: frames must be at least 1, not 0"),
        ("[protect.storm]\nbroadcast = { burst = 0 }", "3:23: burst must be more than 0, not 0"),
        (
            "[protect.storm]\nbrodcast = { frames = 1 }",
            "3:1: unknown key 'brodcast' (did you mean 'broadcast'?)",
        ),
    ],
)
def test_a_mistake_is_named_at_its_place(text: str, complaint: str) -> None:
    assert any(found.startswith(complaint) for found in complaints(f"[protect]\n{text}"))


@pytest.mark.parametrize(
    ("stanza", "complaint"),
    [
        ('learn = "off"', '1:9: with learn = "off" and no macs, nothing that this peer sends passes'),
        (
            f'max_macs = 1\nmacs = ["{MAC}", "52:54:00:00:00:02"]',
            "1:12: max_macs is 1, but macs has 2 entries",
        ),
    ],
)
def test_a_mistake_of_a_peer_is_named_at_its_place(stanza: str, complaint: str) -> None:
    assert complaints(stanza) == [complaint]


def test_a_changed_table_is_a_difference_that_is_told() -> None:
    old, new = parse(""), parse('[protect]\nbpdu = "drop"\narp_spoof_guard = "on"\n')
    assert diff_configs(old, new)
    assert diff_configs(old, new).lines() == [
        "protect: arp_spoof_guard changed",
        "protect: bpdu_passes changed",
    ]
    assert not diff_configs(old, parse("[protect]\n"))


def test_the_documented_table_is_good_and_names_every_key() -> None:
    text = (Path(__file__).parents[1] / "docs" / "peers.toml.md").read_text().split("## `[protect]`")[1]
    text = text.split("\n## ")[0]
    example = text.split("```toml\n")[1].split("```")[0].replace("gamma", "alpha")
    parse(example)
    documented = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert documented == list(json.loads(json.dumps(json_schema()))["$defs"]["ProtectTable"]["properties"])


def test_two_spellings_of_one_key_are_one_station() -> None:
    assert PeerKey(A) in protect(f'dhcp_servers = ["alpha", "{MAC.replace(":", "-")}"]').dhcp_servers.peers  # type: ignore[union-attr]


def test_every_reserved_protocol_that_a_file_may_name_is_known_to_the_switch() -> None:
    assert set(RESERVED_NAMES) == set(RESERVED_PROTOCOLS)


def test_lldp_pass_is_the_same_as_lldp_among_the_reserved() -> None:
    found = protect('reserved = ["eapol", "ptp"]\nlldp = "pass"\n')
    assert found.reserved_passes == {"eapol", "ptp", "lldp"}

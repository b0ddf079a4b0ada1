"""`[filter]`: every mistake at its place, and what a good table becomes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2overlay.addresses import parse_mac
from l2overlay.config.diff import diff_configs
from l2overlay.config.filter_checks import filter_faults
from l2overlay.config.read import json_schema, parse_config
from l2overlay.config.types import Config
from l2overlay.errors import ConfigError
from l2overlay.filter.model import Action, FilterConfig, Rate
from tests.filter.writing import HEAD
from tests.filter.writing import filter_of as parse

RULE = '[[filter.rules]]\ndirection = "in"\naction = "drop"\n'


def whole(text: str) -> Config:
    return parse_config(HEAD + text, "p", base_dir=None)


def faults(text: str) -> list[str]:
    """`LINE:COLUMN: message`, lines counted in `text`."""
    with pytest.raises(ConfigError) as caught:
        whole(text)
    before = HEAD.count("\n")
    return [f"{p.line - before}:{p.column}: {p.message}" for p in caught.value.problems]


def test_no_table_is_no_filter() -> None:
    assert whole("").filter is None


def test_an_empty_table_accepts_all_but_tagged_frames() -> None:
    assert parse("[filter]\n") == FilterConfig()
    assert parse("[filter]\n").tagged is Action.DROP


def test_groups_are_expanded_into_networks_stations_and_peers() -> None:
    filtering = parse(
        '[filter.groups]\nservers = ["10.9.0.0/28", "fd09::1", "52:54:00:12:34:56", "beta"]\n'
        + RULE
        + 'source = ["@servers", "gamma"]\n'
    )
    source = filtering.rules[0].source
    assert source is not None
    assert [str(network) for network in source.networks] == ["10.9.0.0/28", "fd09::1/128"]
    assert source.macs == (parse_mac("52:54:00:12:34:56"),)
    assert source.peers == ("beta", "gamma")
    assert source.words == ("@servers", "gamma")


def test_ports_in_any_spelling_are_joined_and_sorted() -> None:
    rule = parse(RULE + 'protocol = "tcp"\nports = ["80-90", 22, "91", 85]\n').rules[0]
    assert rule.ports == ((22, 22), (80, 91))


def test_a_log_rule_has_a_rate_whether_one_is_given_or_not() -> None:
    assert parse('[[filter.rules]]\ndirection = "in"\naction = "log"\n').rules[0].rate == Rate(5, "s", 10)


def test_remote_of_a_security_group_is_the_source_in_and_the_destination_out() -> None:
    group = parse(
        '[[filter.security_groups]]\nname = "web"\nstations = ["52:54:00:00:00:01"]\n'
        '[[filter.security_groups.rules]]\nremote = "beta"\n'
        '[[filter.security_groups.rules]]\ndirection = "out"\nremote = "@web"\n'
    ).security_groups[0]
    inward, outward = group.rules
    assert inward.source is not None
    assert inward.source.peers == ("beta",)
    assert inward.destination is None
    assert outward.destination is not None
    assert outward.destination.macs == group.stations
    assert (group.default_in, group.default_out) == (Action.DROP, Action.ACCEPT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[filter]\ndefault_in = "deny"\n', "2:14: default_in must be 'accept' or 'drop' or 'reject', not"),
        ("[filter]\ndefualt_in = 1\n", "2:1: unknown key 'defualt_in' (did you mean 'default_in'?)"),
        (RULE + 'source = "@servrs"\n[filter.groups]\nservers = ["beta"]\n', "4:10: no group is named 'servrs' (did"),
        (RULE + 'source = ["gamma", "beat"]\n', "4:20: no peer is named 'beat' (did you mean 'beta'?)"),
        (RULE + 'source = "10.9.0.1/24"\n', "4:10: '10.9.0.1/24' has bits set after its prefix; write 10.9.0.0/24"),
        (RULE + 'source = "10.9.0.300"\n', "4:10: '10.9.0.300' is neither an address nor a network"),
        (RULE + 'source = "01:00:5e:00:00:01"\n', "4:10: '01:00:5e:00:00:01' is a group address"),
        (RULE + 'source = "224.0.0.0/4"\n', "4:10: '224.0.0.0/4' is a multicast address, which is never a source"),
        (RULE + "source = []\n", "4:10: an empty source can never match"),
        (RULE + 'protocol = "tcp"\nports = [22, "90-80"]\n', '5:14: the range 90-80 runs backwards; write "80-90"'),
        (RULE + 'protocol = "tcp"\nports = 70000\n', "5:9: 70000: a port is at most 65535"),
        (RULE + "ports = 80\n", "4:9: ports without protocol can never match"),
        (RULE + 'protocol = "icmp"\nports = 80\n', '5:9: ports with protocol = "icmp" can never match'),
        (RULE + 'protocol = "tpc"\n', "4:12: protocol must be one of any, tcp"),
        (RULE + "protocol = 58\n", '4:12: protocol 58: write "icmp"'),
        (RULE + "protocol = 44\n", "4:12: protocol 44 is an IPv6 extension header"),
        (RULE + 'icmp_types = "echo-request"\n', "4:14: icmp_types can never match without"),
        (RULE + 'protocol = "icmp"\nicmp_types = ["echo-reqest"]\n', "5:15: 'echo-reqest' is not a known ICMP type (did"),
        (RULE + 'state = "established"\n', "4:9: state 'established' can never match"),
        (RULE + 'rate = "10/day"\n', "4:8: '10/day' is not a rate; write 10/s"),
        (RULE + "burst = 5\n", "4:9: burst does nothing without rate"),
        (RULE + 'source = "10.0.0.0/8"\ndestination = "fd00::/8"\n', "4:10: '10.0.0.0/8' can never match: it is IPv4 and"),
        (
            RULE + 'source = ["10.0.0.0/8", "fd01::/16"]\ndestination = "fd00::/8"\n',
            "4:11: '10.0.0.0/8' can never match: it is IPv4 and destination is IPv6",
        ),
        (
            RULE + 'protocol = "icmp"\nicmp_types = "packet-too-big"\nsource = "10.0.0.0/8"\n',
            "6:10: '10.0.0.0/8' can never match: these icmp_types are IPv6 only",
        ),
        (RULE + 'source = "beta"\ndestination = "beta"\n', "5:15: can never match: frames from beta to beta"),
        ("[filter.groups]\ninner = ['beta']\nouter = ['@inner']\n", "3:10: '@inner': a group cannot contain groups"),
        ("[filter.groups]\nempty = []\n", "2:9: the group 'empty' is empty"),
        (
            "[[filter.security_groups]]\nname = 'web'\nstations = ['10.0.0.1']\n",
            "3:13: '10.0.0.1' is not a MAC address; write it as",
        ),
        (
            "[[filter.security_groups]]\nname = 'web'\nstations = ['@x']\n[filter.groups]\nx = ['beta']\n",
            "3:13: 'beta' is not a MAC address",
        ),
        ("[[filter.security_groups]]\nname = 'web'\nstations = []\n", "3:12: a security group without stations"),
        (
            "[[filter.security_groups]]\nname = 'web'\nstations = ['@web']\n[filter.groups]\nweb = ['beta']\n",
            "2:8: the group 'web' already exists (first at line",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_place(text: str, expected: str) -> None:
    found = faults(text)
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", 'source = "beta"\n'),
        ('protocol = "tcp"\nports = "1-100"\n', 'protocol = "tcp"\nports = [22, "80-90"]\nsource = "beta"\n'),
        ('source = "10.9.0.0/16"\n', 'source = ["10.9.1.0/24", "10.9.2.1"]\n'),
        ('source = ["beta", "gamma"]\n', 'source = "gamma"\nprotocol = "udp"\n'),
        ('protocol = "icmp"\n', 'protocol = "icmp"\nicmp_types = "echo-request"\n'),
    ],
)
def test_a_rule_behind_one_that_decides_all_it_would_is_named_with_that_one(earlier: str, later: str) -> None:
    found = faults(RULE + earlier + RULE + later)
    line = 4 + earlier.count("\n")
    first = HEAD.count("\n") + 1
    words = f"can never match: rule 1 decides about every frame that it would match (first at line {first})"
    assert found == [f"{line}:1: {words}"]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ('source = "beta"\n', ""),
        ('source = "beta"\n', 'source = ["beta", "gamma"]\n'),
        ('source = "beta"\n', 'source = "52:54:00:00:00:01"\n'),
        ('protocol = "tcp"\n', 'protocol = "udp"\n'),
        ('protocol = "tcp"\nports = "1-100"\n', 'protocol = "tcp"\nports = "100-101"\n'),
        ('rate = "5/s"\n', ""),
        ('state = "new"\n', ""),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_something_is_good(earlier: str, later: str) -> None:
    assert len(parse(RULE + earlier + RULE + later).rules) == 2


def test_a_log_rule_shadows_nothing() -> None:
    parse('[[filter.rules]]\ndirection = "in"\naction = "log"\n' + RULE)


def test_the_difference_of_two_filters_is_told_in_lines() -> None:
    old, new = whole('[filter]\ndefault_in = "drop"\n'), whole("[filter]\n" + RULE)
    assert diff_configs(old, new).lines() == [
        "filter: default_in drop -> accept",
        "filter: rules changed (0 -> 1)",
    ]
    assert diff_configs(whole(""), old).lines() == ["filter: added"]
    assert not diff_configs(old, old)


def test_the_schema_knows_the_table() -> None:
    assert "FilterRuleTable" in json_schema()["$defs"]
    assert "null" not in str(json_schema()["$defs"]["FilterRuleTable"])


_scalars = st.one_of(
    st.integers(-5, 70000),
    st.booleans(),
    st.sampled_from(
        ["in", "accept", "@a", "beta", "tcp", "10.0.0.0/8", "5-1", "10/s", "52:54:00:00:00:01", ""]
    ),
    st.floats(),
)
_keys = st.sampled_from(
    ["direction", "action", "protocol", "source", "destination", "remote", "ports", "icmp_types", "state", "rate",
     "burst", "comment", "name", "stations", "rules"]
)  # fmt: skip
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5),
    max_leaves=10,
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "groups": _values | st.dictionaries(st.sampled_from(["a", "b c"]), _values),
            "rules": _values | st.lists(st.dictionaries(_keys, _values, max_size=6), max_size=3),
            "security_groups": _values | st.lists(st.dictionaries(_keys, _values, max_size=6), max_size=3),
        },
    )
)
def test_whatever_toml_can_hold_leads_to_faults_and_never_to_another_error(table: dict[str, object]) -> None:
    for fault in filter_faults({"filter": table, "peers": [{"name": "beta"}]}):
        assert fault.path[0] == "filter"
        assert fault.message


@pytest.mark.parametrize("entry", ["", "10.0.0.1/99", "@admins", "10.0.0.1/8", "nobody", "fd00::%eth0"])
@pytest.mark.parametrize("key", ["source", "destination"])
def test_a_bad_entry_of_a_group_that_a_rule_names_is_told_at_the_entry_and_only_there(
    entry: str, key: str
) -> None:
    (fault,) = faults(f'[filter.groups]\nadmins = ["{entry}"]\n{RULE}{key} = "@admins"\n')
    assert fault.startswith("2:11: ")


def test_a_bad_station_of_a_security_group_that_a_rule_names_is_told_at_the_station_and_only_there() -> None:
    (fault,) = faults(
        '[[filter.security_groups]]\nname = "web"\nstations = ["10.0.0.1/99"]\n' + RULE + 'source = "@web"\n'
    )
    assert fault.startswith("3:13: ")

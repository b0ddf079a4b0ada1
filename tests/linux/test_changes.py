"""The vocabulary of host changes, without a host."""

from ipaddress import ip_network

import pytest

from l2overlay.errors import HostSetupError
from l2overlay.linux.changes import (
    AddAddress,
    Change,
    RemoveAddress,
    SetMac,
    SetMaster,
    SetMtu,
    SetQueue,
    SetSysctl,
    SetUp,
)
from l2overlay.linux.features.bridge import CreateBridge, KeepMac, RemoveBridge, SetAlias
from l2overlay.linux.features.gateway import (
    InstallGateway,
    NoteTables,
    RemoveGateway,
    RemoveTables,
    SetForwarding,
)
from l2overlay.linux.features.netfilter import RemoveFilter, SetBridgeFlag
from l2overlay.linux.features.tap import HearAllMulticast
from l2overlay.linux.nat import GatewaySpec
from l2overlay.linux.undo import Undo

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
EVERY_CHANGE = (
    CreateBridge("br0", MAC, 1500, "l2overlay lab"),
    RemoveBridge("br0", MAC, "l2overlay lab"),
    SetAlias("br0", "l2overlay lab"),
    SetMac("tap0", MAC, OTHER_MAC, index=7),
    KeepMac("br0", MAC),
    SetMtu("tap0", 1500, 1400),
    SetUp("tap0", True, False),
    SetMaster("tap0", "br0", ""),
    SetQueue("tap0", 2000, 1000),
    HearAllMulticast("tap0"),
    SetBridgeFlag("br0", "nf_call_iptables", True, False),
    SetSysctl("tap0", "ipv6/conf/tap0/disable_ipv6", "1", "0"),
    AddAddress("br0", "10.0.0.1/24"),
    RemoveAddress("br0", "10.0.0.1/24"),
    SetForwarding("br0", "ipv4/conf/eth0/rp_filter", "2", "1"),
    InstallGateway(
        "br0", GatewaySpec("lab", "br0", "eth0", (ip_network("10.0.0.0/24"),)), "4.nat=table,INPUT"
    ),
    RemoveGateway("br0", "lab", "4.nat=table,INPUT"),
    NoteTables("br0", "4.nat=table,INPUT"),
    RemoveTables("br0", "4.nat=table,INPUT"),
)


def test_an_undo_takes_back_in_reverse_order_what_had_a_value_before() -> None:
    changes = [
        CreateBridge("br0", MAC, 1500, "l2overlay lab"),
        SetMtu("tap0", 1500, 1400, index=7),
        SetUp("tap0", True, None),
        AddAddress("br0", "10.0.0.1/24"),
    ]
    assert Undo.of(changes).changes == (
        RemoveAddress("br0", "10.0.0.1/24"),
        SetMtu("tap0", 1400, None, index=7),
        RemoveBridge("br0", MAC, "l2overlay lab"),
    )


def test_every_undo_survives_its_file() -> None:
    undo = Undo.of(EVERY_CHANGE)
    assert len(undo.changes) == 13
    assert Undo.from_json(undo.to_json()) == undo


def test_every_change_says_in_words_which_link_it_means() -> None:
    assert all(change.link in change.line for change in EVERY_CHANGE)
    assert len({change.line for change in EVERY_CHANGE}) == len(EVERY_CHANGE)


def test_of_two_undos_the_earlier_knows_how_it_was_at_first() -> None:
    earlier = Undo((SetMtu("br0", 9000, None, index=3), RemoveAddress("br0", "10.0.0.1/24", index=3)))
    later = Undo((RemoveAddress("br0", "10.0.0.2/24", index=3), SetMtu("br0", 1500, None, index=3)))
    assert later.after(earlier).changes == (RemoveAddress("br0", "10.0.0.2/24", index=3), *earlier.changes)


def test_an_undo_of_a_link_that_was_made_anew_is_kept_beside_the_old_one() -> None:
    earlier, later = Undo((SetMtu("br0", 9000, None, index=3),)), Undo((SetMtu("br0", 1500, None, index=4),))
    assert later.after(earlier).changes == later.changes + earlier.changes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"l2overlay.undo/2": []}',
        '{"l2overlay.undo/1": [{}]}',
        '{"l2overlay.undo/1": [{"change": "Reboot", "link": "br0", "index": 0}]}',
        '{"l2overlay.undo/1": [{"change": "SetUp", "link": "br0", "index": 0, "up": "yes", "was": null}]}',
        '{"l2overlay.undo/1": [{"change": "SetUp", "link": "br0", "index": 0, "up": true}]}',
        '{"l2overlay.undo/1": [{"change": "SetUp", "link": "br0", "index": 0, "up": true, "was": null, "x": 1}]}',
        Undo((SetSysctl("br0", "../kernel/x", "1", None),)).to_json(),
        Undo((SetSysctl("br0", "ipv6/conf/../../kernel/x", "1", None),)).to_json(),
    ],
)
def test_a_file_that_we_did_not_write_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(HostSetupError, match="not a list of host changes to undo") as refusal:
        Undo.from_json(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "forged",
    [
        RemoveBridge("br0", MAC, "docker0"),
        SetForwarding("br0", "ipv4/conf/../forwarding", "1", None),
        SetForwarding("br0", "ipv4/conf/eth0/mc_forwarding", "1", None),
        SetForwarding("br0", "ipv4/conf/eth0/forwarding", "7", None),
        RemoveGateway("br0", "lab; reboot", ""),
        RemoveGateway("br0", "lab", "`reboot`"),
        RemoveTables("br0", "../x"),
        RemoveBridge("br0", MAC, ""),
        SetMac("br0", "no MAC", None),
        SetMtu("br0", -1, None),
        SetMtu("br0", True, None),
        SetMtu("br0", 1 << 40, None),
        SetUp("\ud800", False, None),
        SetUp("a/b", False, None),
        SetUp("", False, None),
        SetUp("eth0 x", False, None),
        SetUp("a" * 16, False, None),
        SetUp("br0", False, None, index=-1),
        SetUp("br0", False, None, index=1 << 33),
        SetMaster("tap0", "../x", None),
        SetSysctl("br0", "ipv6/conf/eth0/disable_ipv6", "1", None),
        SetSysctl("br0", "ipv6/conf/br0/forwarding", "1", None),
        SetSysctl("br0", "ipv6/conf/br0/accept_ra", "1\n9", None),
        AddAddress("br0", "10.0.0.1/24 x"),
        RemoveAddress("br0", "-1"),
        SetBridgeFlag("br0", "group_fwd_mask", True, None),
        RemoveFilter("br0", "lab -j ACCEPT", ""),
        RemoveFilter("br0", "lab", "4:INPUT\nflush ruleset"),
    ],
)
def test_a_change_that_no_node_would_have_written_is_not_read(forged: Change) -> None:
    with pytest.raises(HostSetupError, match="not a list of host changes to undo"):
        Undo.from_json(Undo((forged,)).to_json())


WRITTEN_BY_0_1 = """{"l2overlay.undo/1": [
 {"change": "RemoveBridge", "link": "br0", "index": 0, "mac": "02:00:00:00:00:01", "alias": "l2overlay lab"},
 {"change": "SetMac", "link": "tap0", "index": 7, "mac": "02:00:00:00:00:01", "was": null},
 {"change": "SetMtu", "link": "tap0", "index": 7, "mtu": 1400, "was": null},
 {"change": "SetQueue", "link": "tap0", "index": 7, "frames": 1000, "was": null},
 {"change": "SetUp", "link": "tap0", "index": 7, "up": false, "was": null},
 {"change": "SetMaster", "link": "tap0", "index": 7, "master": "br1", "was": null},
 {"change": "SetSysctl", "link": "tap0", "index": 7, "path": "ipv6/conf/tap0/disable_ipv6", "value": "0", "was": null},
 {"change": "AddAddress", "link": "br0", "index": 3, "address": "10.0.0.1/24"},
 {"change": "RemoveAddress", "link": "br0", "index": 3, "address": "fd00::1/64"},
 {"change": "SetBridgeFlag", "link": "br0", "index": 3, "flag": "nf_call_iptables", "on": false, "was": null},
 {"change": "RemoveFilter", "link": "br0", "index": 0, "segment": "lab", "absent": "4:table,INPUT 6:INPUT"}
]}"""


def test_a_file_that_version_0_1_wrote_is_read_with_every_kind_of_change() -> None:
    assert Undo.from_json(WRITTEN_BY_0_1).changes == (
        RemoveBridge("br0", MAC, "l2overlay lab"),
        SetMac("tap0", MAC, None, index=7),
        SetMtu("tap0", 1400, None, index=7),
        SetQueue("tap0", 1000, None, index=7),
        SetUp("tap0", False, None, index=7),
        SetMaster("tap0", "br1", None, index=7),
        SetSysctl("tap0", "ipv6/conf/tap0/disable_ipv6", "0", None, index=7),
        AddAddress("br0", "10.0.0.1/24", index=3),
        RemoveAddress("br0", "fd00::1/64", index=3),
        SetBridgeFlag("br0", "nf_call_iptables", False, None, index=3),
        RemoveFilter("br0", "lab", "4:table,INPUT 6:INPUT"),
    )

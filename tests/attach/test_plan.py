"""What `attach` and `detach` change, and what they refuse before they change anything."""

import pytest

from l2overlay.attach.changes import (
    CreateNamespace,
    CreateTap,
    CreateVeth,
    RemoveLink,
    RemoveNamespace,
    SetUpInside,
)
from l2overlay.attach.mark import Mark
from l2overlay.attach.plan import attachments, plan_detach, plan_netns, plan_tap
from l2overlay.errors import ExitCode, HostSetupError, L2OverlayError, UsageError
from l2overlay.linux.changes import SetMaster, SetSysctl, SetUp
from l2overlay.linux.undo import Undo
from tests.attach.views import PORT_MAC, guest, host, link, segment


def test_a_tap_is_made_for_its_user_and_put_into_the_bridge() -> None:
    assert plan_tap(segment(), guest(), 65534, host(), PORT_MAC) == [
        CreateTap("vm1", 65534, "fe:00:00:00:00:01", 1500, "l2overlay attach lan tap vm1"),
        SetSysctl("vm1", "ipv6/conf/vm1/disable_ipv6", "1", None),
        SetMaster("vm1", "br-lan", None),
        SetUp("vm1", True, None),
    ]


def test_a_veth_has_the_segment_s_mtu_inside_and_does_not_lower_that_of_an_adopted_bridge() -> None:
    adopted = host(link("br-lan", kind="bridge", mtu=9000), namespaces={"web": frozenset({"lo"})})
    veth, *_, inside = plan_netns(segment(), guest("web"), adopted, PORT_MAC, address="10.9.0.33/24")
    assert isinstance(veth, CreateVeth)
    assert (veth.inside_mtu, veth.mtu) == (1500, 9000)
    assert inside == SetUpInside("veth-web", "web", "eth0", "10.9.0.33/24")


def test_the_undo_of_a_namespace_that_was_made_removes_link_and_namespace_and_nothing_else() -> None:
    changes = plan_netns(segment(), guest("web"), host(), PORT_MAC, create=True)
    assert changes[0] == CreateNamespace("veth-web", "web")
    alias = "l2overlay attach lan netns web made"
    assert Undo.of(changes).changes == (
        RemoveLink("veth-web", alias, "fe:00:00:00:00:01"),
        RemoveNamespace("veth-web", "web"),
    )


def test_a_host_without_ipv6_has_no_sysctl_to_set() -> None:
    changes = plan_tap(segment(), guest(), 0, host(has_ipv6=False), PORT_MAC)
    assert not any(isinstance(change, SetSysctl) for change in changes)


def refusal(error: type[L2OverlayError], text: str, code: ExitCode, call: object) -> None:
    with pytest.raises(error) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value)
    assert caught.value.exit_code == code


def test_what_cannot_be_attached_is_refused_in_one_line() -> None:
    for links, text, code in (
        ([link("vm1")], "this host has a link vm1 already; give another name", ExitCode.USAGE),
        (
            [link("vm1", alias="l2overlay attach dmz tap vm1")],
            "vm1 is attached to dmz already; 'l2overlay detach tap vm1' removes it",
            ExitCode.USAGE,
        ),
        ([link("br-lan", kind="veth")], "br-lan is not a bridge", ExitCode.RUNTIME),
    ):
        refusal(
            L2OverlayError, text, code, lambda k=links: plan_tap(segment(), guest(), 0, host(*k), PORT_MAC)
        )


def test_a_missing_bridge_says_how_to_start_the_node() -> None:
    missing = host()
    refusal(
        L2OverlayError,
        "this host has no bridge br-own: start the node that makes it with 'l2overlay join lan'",
        ExitCode.NO_DAEMON,
        lambda: plan_tap(segment(bridge="br-own"), guest(), 0, missing, PORT_MAC),
    )


def test_a_name_that_is_too_long_for_a_link_says_which_option_gives_another() -> None:
    refusal(
        UsageError,
        "'veth-longer-than-a-link' has 23 bytes, and a link's name at most 15; give another one: "
        "l2overlay attach netns longer-than-a-link --link NAME",
        ExitCode.USAGE,
        lambda: plan_netns(segment(), guest("longer-than-a-link"), host(), PORT_MAC, create=True),
    )


def test_a_missing_namespace_is_named_with_the_one_that_was_probably_meant() -> None:
    refusal(
        UsageError,
        "no network namespace wep (did you mean 'web'?); --create makes it",
        ExitCode.USAGE,
        lambda: plan_netns(segment(), guest("wep"), host(namespaces={"web": frozenset()}), PORT_MAC),
    )


def test_a_name_that_is_taken_inside_is_refused() -> None:
    used = host(namespaces={"web": frozenset({"lo", "eth0"})})
    refusal(
        UsageError,
        "the namespace web has a link eth0 already; give another name: --inside NAME",
        ExitCode.USAGE,
        lambda: plan_netns(segment(), guest("web"), used, PORT_MAC),
    )


@pytest.mark.parametrize("made", [False, True])
def test_a_mark_is_read_back_from_its_alias(made: bool) -> None:
    mark = Mark("lan", "netns", "web", made_namespace=made)
    assert Mark.from_alias(mark.alias) == mark


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "l2overlay lan",
        "l2overlay attach",
        "l2overlay attach lan",
        "l2overlay attach lan netns web x",
        "lan tap vm1",
    ],
)
def test_another_alias_is_no_mark(alias: str) -> None:
    assert Mark.from_alias(alias) is None
    assert attachments(host(link("vm1", alias=alias))) == []


def attached(kind: str = "netns", name: str = "web", **changes: object) -> object:
    mark = Mark("lan", kind, name, made_namespace=bool(changes.pop("made", False)))
    return link(f"veth-{name}" if kind == "netns" else name, alias=mark.alias, **changes)


def test_detach_removes_the_marked_link_by_alias_and_mac() -> None:
    plan = plan_detach("netns", "web", None, host(attached(), link("veth-db")))  # type: ignore[arg-type]
    assert plan.changes == (
        RemoveLink("veth-web", "l2overlay attach lan netns web", "fe:00:00:00:00:09", index=5),
    )


def test_detach_removes_a_namespace_only_if_attach_made_it_and_nobody_else_uses_it() -> None:
    made = attached(made=True)
    inside = {"web": frozenset({"lo", "eth0"})}
    gone = plan_detach("netns", "web", None, host(made, namespaces=inside))  # type: ignore[arg-type]
    assert RemoveNamespace("veth-web", "web") in gone.changes
    used = host(made, namespaces=inside, used_namespaces=frozenset({"web"}))  # type: ignore[arg-type]
    assert plan_detach("netns", "web", None, used).kept == "the namespace web stays: a process is in it"
    others = host(made, namespaces={"web": frozenset({"lo", "eth0", "wg0"})})  # type: ignore[arg-type]
    assert "other links (eth0, wg0)" in plan_detach("netns", "web", None, others).kept


def test_detach_of_what_attach_did_not_make_names_what_it_made() -> None:
    for name, text in (
        ("wep", "'attach netns' made no wep on this host (did you mean 'web'?); attached are: web"),
        ("veth-db", "'attach netns' made no veth-db on this host"),
    ):
        refusal(
            UsageError,
            text,
            ExitCode.USAGE,
            lambda n=name: plan_detach("netns", n, None, host(attached(), link("veth-db"))),  # type: ignore[arg-type]
        )


def test_detach_of_a_name_in_two_segments_asks_which() -> None:
    second = link("veth-2", alias="l2overlay attach dmz netns web")
    both = host(attached(), second)  # type: ignore[arg-type]
    refusal(UsageError, "(dmz, lan)", ExitCode.USAGE, lambda: plan_detach("netns", "web", None, both))
    assert plan_detach("netns", "web", "dmz", both).changes[0].link == "veth-2"


def test_a_tap_that_a_vm_holds_is_removed_by_force_only() -> None:
    held = host(attached("tap", "vm1", carrier=True))  # type: ignore[arg-type]
    refusal(
        HostSetupError,
        "a program holds the TAP vm1: stop the VM first, or give --force",
        ExitCode.RUNTIME,
        lambda: plan_detach("tap", "vm1", None, held),
    )
    assert plan_detach("tap", "vm1", None, held, force=True).changes
    assert plan_detach("tap", "vm1", None, host(attached("tap", "vm1", carrier=False))).changes  # type: ignore[arg-type]

"""Features: what a new one has to bring, without a host."""

import dataclasses
from collections.abc import Iterator, Sequence

import pytest

from l2overlay.addresses import derive_macs
from l2overlay.linux import host
from l2overlay.linux.changes import Change, SetUp
from l2overlay.linux.feature import Feature, HostSpec
from l2overlay.linux.features import FEATURES
from l2overlay.linux.features.netfilter import RemoveFilter
from l2overlay.linux.state import HostState
from l2overlay.linux.undo import UNDO_KINDS, Undo

from .test_changes import EVERY_CHANGE

MACS = derive_macs(bytes(range(32)))
SPEC = HostSpec("lab", "tap-lab", "br-lab", 1500, MACS.tap, MACS.bridge)
EMPTY = HostState(None, None, (), (), {}, has_ipv6=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Woken:
    """What the feature below wants: this link is up."""

    link: str


class Wake(Feature):
    """Sets the link up while it is wanted, and back when it is not."""

    def plan(self, spec: HostSpec, state: HostState, made: Sequence[Change]) -> list[Change]:
        wanted = spec.wanted(Woken)
        if wanted is None:
            return [change for change in made if isinstance(change, SetUp) and change.link == "dummy0"]
        return [SetUp(wanted.link, True, False)]

    def notes(self, spec: HostSpec, state: HostState) -> list[str]:
        return ["dummy0 is set up"] if spec.wanted(Woken) else []


@pytest.fixture
def wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "FEATURES", (*FEATURES, Wake()))


@pytest.mark.usefixtures("wake")
def test_a_feature_in_the_list_is_planned_after_those_that_it_builds_on_and_undone_before_them() -> None:
    plan = host.plan_host(dataclasses.replace(SPEC, extras=(Woken("dummy0"),)), EMPTY)
    assert plan[-1] == SetUp("dummy0", True, False)
    assert plan[:-1] == host.plan_host(SPEC, EMPTY)
    assert Undo.of(plan).changes[0] == SetUp("dummy0", False, None)


@pytest.mark.usefixtures("wake")
def test_a_feature_that_is_not_wanted_any_more_takes_away_what_it_made() -> None:
    made = Undo((SetUp("dummy0", False, None),))
    assert host.plan_host(SPEC, EMPTY, made=made)[-1] == made.changes[0]
    assert host.host_notes(SPEC, EMPTY) == []


def kinds(kind: type[Change] = Change) -> Iterator[type[Change]]:
    for found in kind.__subclasses__():
        if dataclasses.is_dataclass(found) and found.__module__.startswith("l2overlay.linux."):
            yield found


def test_every_inverse_is_of_a_kind_that_an_undo_file_may_contain() -> None:
    changes = (*EVERY_CHANGE, RemoveFilter("br0", "lab", ""))
    inverses = [inverse for change in changes if (inverse := change.inverse) is not None]
    assert {type(change).__name__ for change in changes} == {kind.__name__ for kind in kinds()}
    assert {type(inverse).__name__ for inverse in inverses} <= set(UNDO_KINDS)

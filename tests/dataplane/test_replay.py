"""The replay window against a plain set: no counter twice, and only what is a whole window late is refused unseen."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l2overlay.dataplane.replay import WINDOW_SIZE, ReplayWindow

counters = st.one_of(st.integers(0, 50), st.integers(0, 4 * WINDOW_SIZE), st.integers(0, 1 << 60))


def accept(window: ReplayWindow, counter: int) -> bool:
    """As a session does with a genuine datagram."""
    fresh = window.is_fresh(counter)
    if fresh:
        window.commit(counter)
    return fresh


@given(st.lists(counters, max_size=60))
def test_no_counter_is_accepted_twice(arrivals: list[int]) -> None:
    window = ReplayWindow()
    accepted = [counter for counter in arrivals if accept(window, counter)]
    assert len(accepted) == len(set(accepted))
    assert not any(window.is_fresh(counter) for counter in arrivals)


@given(st.permutations(range(30)), st.integers(0, 1 << 40))
def test_any_order_within_the_window_loses_nothing(order: list[int], first: int) -> None:
    window = ReplayWindow()
    assert all(accept(window, first + counter) for counter in order)


@given(st.lists(counters, max_size=30, unique=True))
def test_what_never_arrived_is_fresh_unless_it_is_a_whole_window_late(arrivals: list[int]) -> None:
    window = ReplayWindow()
    for at, counter in enumerate(arrivals):
        newest = max(arrivals[:at], default=-1)
        if counter > newest - WINDOW_SIZE:
            assert window.is_fresh(counter)
        accept(window, counter)


def test_datagram_a_window_late_is_refused_when_its_slot_is_taken() -> None:
    window = ReplayWindow()
    assert accept(window, 5 + WINDOW_SIZE)
    assert not window.is_fresh(5)
    assert window.is_fresh(6)


def test_looking_changes_nothing() -> None:
    """The tag is verified after the look: a forged counter must not close the window."""
    window = ReplayWindow()
    assert window.is_fresh(1 << 59)
    assert all(window.is_fresh(counter) for counter in range(100))


class ReplayMachine(RuleBasedStateMachine):
    """A sender that counts, a network that reorders, duplicates and jumps, and a set of all that was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.window = ReplayWindow()
        self.accepted: set[int] = set()
        self.sent: list[int] = []
        self.next = 0

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        self.sent += range(self.next, self.next + count)
        self.next += count

    @rule(lost=st.sampled_from((100, WINDOW_SIZE - 1, WINDOW_SIZE, WINDOW_SIZE + 1, 1 << 40)))
    def many_are_lost(self, lost: int) -> None:
        self.next += lost

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def one_arrives(self, data: st.DataObject) -> None:
        counter = data.draw(st.sampled_from(self.sent))
        overtaken = any(a > counter and (a - counter) % WINDOW_SIZE == 0 for a in self.accepted)
        fresh = counter not in self.accepted and not overtaken
        assert self.window.is_fresh(counter) == fresh
        if fresh:
            self.window.commit(counter)
            self.accepted.add(counter)

    @invariant()
    def its_size_is_constant(self) -> None:
        assert len(self.window.newest) == WINDOW_SIZE


TestReplay = ReplayMachine.TestCase

"""Sessions over hours: they are replaced in time, and nobody behind the nodes notices."""

from itertools import pairwise

import pytest

from l2overlay.controlplane.membership import INIT_TYPE

from .simulator import START, started
from .underlay import Conditions


@pytest.mark.parametrize("seed", range(3))
def test_sessions_are_replaced_for_ever_and_not_one_frame_is_lost_for_it(seed: int) -> None:
    """Both ends start at the same moment here: two sessions come of it, and each end sends under another one."""
    sim = started(seed, 3, Conditions(delay=0.03, jitter=0.02))
    talks = [sim.talk(x, y, every=0.5) for x in sim.nodes for y in sim.nodes if x is not y]
    sim.run(600.0)
    for talk in talks:
        talk.stop()
    sim.run(1.0)
    assert {talk.lost() for talk in talks} == {0.0}
    sim.check_nothing_got_lost()


def test_two_ends_that_started_at_the_same_moment_do_not_go_on_in_step() -> None:
    for seed in range(10):
        sim = started(seed, capture=True)
        sim.run(1000.0)
        assert sim.captured is not None
        inits = [c.time for c in sim.captured if c.kind == INIT_TYPE and c.time > START + 600.0]
        assert 2 <= len(inits) <= 4
        assert min(later - earlier for earlier, later in pairwise(inits)) > 100.0

"""What the kernel lost since the node came, from counters that began earlier, or begin anew."""

from l2overlay.linux.link_counters import LinkCounters
from l2overlay.node.kernel_losses import KernelLosses


class Kernel:
    """Links by name; one that is not here is gone."""

    def __init__(self) -> None:
        self.links = {"tap": LinkCounters(1, 5, 7), "br": LinkCounters(2, 100, 200)}

    def read(self, link: str) -> LinkCounters | None:
        return self.links.get(link)


def started() -> tuple[Kernel, KernelLosses]:
    kernel = Kernel()
    losses = KernelLosses("tap", "br", kernel.read)
    losses.start()
    return kernel, losses


def test_what_was_lost_before_the_node_came_is_not_counted() -> None:
    _, losses = started()
    assert losses.look() == 0
    assert dict(losses.counts) == {"tap_in": 0, "bridge_in": 0, "bridge_out": 0}


def test_each_look_tells_what_the_queue_lost_since_the_last() -> None:
    kernel, losses = started()
    kernel.links["tap"] = LinkCounters(1, 6, 10)
    assert losses.look() == 3
    kernel.links |= {"tap": LinkCounters(1, 6, 11), "br": LinkCounters(2, 101, 202)}
    assert losses.look() == 1
    assert dict(losses.counts) == {"tap_in": 1, "bridge_in": 1, "bridge_out": 2}


def test_a_link_that_was_made_again_counts_from_zero() -> None:
    kernel, losses = started()
    kernel.links["tap"] = LinkCounters(9, 0, 4)
    assert losses.look() == 4


def test_a_link_that_is_gone_costs_nothing_but_its_count() -> None:
    kernel, losses = started()
    kernel.links.clear()
    assert losses.look() == 0

"""From figures to what is shown: medians, ratios, the rows that must be reached, and the JSON document. Pure."""

import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import chart
from .measures import FIGURES

SCHEMA = "l2overlay.bench/1"
OWN = "l2overlay"
NO_UNDERLAY = "none"
"""For figures that need none."""
PANELS = (
    ("offload", "tcp1"),
    ("plain", "tcp1"),
    ("offload", "frames64"),
    ("offload", "frames1400"),
    ("offload", "rtt"),
    ("offload", "cpu_per_gb"),
    ("lossy", "loss_0.01"),
    ("offload", "jumbo_tcp1"),
)
"""What the chart shows: underlay and figure."""


@dataclass(slots=True)
class Results:
    """Values by contestant, underlay and figure; one value a repeat."""

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    encrypted: set[str] = field(default_factory=set)
    userspace: set[str] = field(default_factory=set)

    def add(self, contestant: str, underlay: str, figures: dict[str, float]) -> None:
        """Another repeat's figures."""
        kept = self.values.setdefault(contestant, {}).setdefault(underlay, {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def of(self, contestant: str, underlay: str, figure: str) -> list[float]:
        """One value a repeat; empty when it was not measured."""
        return self.values.get(contestant, {}).get(underlay, {}).get(figure, [])

    def median(self, contestant: str, underlay: str, figure: str) -> float | None:
        """Of the repeats."""
        values = self.of(contestant, underlay, figure)
        return statistics.median(values) if values else None

    def best(self, contestants: Iterable[str], underlay: str, figure: str) -> str | None:
        """The contestant with the best median."""
        found = [(value, name) for name in contestants if (value := self.median(name, underlay, figure))]
        if not found:
            return None
        return (min if FIGURES[figure].lower_is_better else max)(found)[1]

    def rivals(self, *, encrypted_only: bool = False) -> list[str]:
        """Tunnels in user space but our own."""
        return [
            n
            for n in self.values
            if n in self.userspace and n != OWN and (n in self.encrypted or not encrypted_only)
        ]


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of issue 3's table. `least` and `aim` are minima, or maxima when `at_most`."""

    title: str
    least: float
    aim: float
    value: Callable[[Results], tuple[float, str] | None]
    """The figure, and against whom; None when it was not measured."""
    at_most: bool = False
    unit: str = "x"


@dataclass(frozen=True, slots=True)
class GoalResult:
    """A goal with its value."""

    title: str
    least: float
    aim: float
    at_most: bool
    unit: str
    value: float | None
    against: str
    verdict: str
    """aim, reached, missed, or not measured"""


def ratio(results: Results, underlay: str, figure: str, rival: str | None) -> tuple[float, str] | None:
    """Ours to the rival's, repeat by repeat, then the median."""
    own = results.of(OWN, underlay, figure)
    other = results.of(rival, underlay, figure) if rival else []
    ratios = [a / b for a, b in zip(own, other, strict=False) if b]
    return (statistics.median(ratios), rival or "") if ratios else None


def against_best(
    underlay: str, figure: str, *, encrypted_only: bool = False
) -> Callable[[Results], tuple[float, str] | None]:
    """The ratio to the best user-space tunnel."""

    def value(results: Results) -> tuple[float, str] | None:
        rivals = results.rivals(encrypted_only=encrypted_only)
        return ratio(results, underlay, figure, results.best(rivals, underlay, figure))

    return value


def against_vxlan(underlay: str, figure: str) -> Callable[[Results], tuple[float, str] | None]:
    """The ratio to kernel VXLAN."""
    return lambda results: ratio(results, underlay, figure, "kernel VXLAN")


def under_loss(results: Results) -> tuple[float, str] | None:
    """TCP at 1 % loss to TCP at 0 %, ours, repeat by repeat."""
    lost, whole = results.of(OWN, "lossy", "loss_0.01"), results.of(OWN, "lossy", "loss_0")
    ratios = [a / b for a, b in zip(lost, whole, strict=False) if b]
    return (statistics.median(ratios), "its own 0 %") if ratios else None


def flooding(results: Results) -> tuple[float, str] | None:
    """Milliseconds for one broadcast to 100 peers."""
    value = results.median(OWN, NO_UNDERLAY, "flood100")
    return (value * 1e3, "") if value else None


GOALS = (
    Goal(
        "TCP 1 stream, against the best encrypted tunnel",
        4,
        8,
        against_best("offload", "tcp1", encrypted_only=True),
    ),
    Goal(
        "TCP 1 stream, against kernel VXLAN, offloading underlay", 0.2, 0.4, against_vxlan("offload", "tcp1")
    ),
    Goal("TCP 1 stream, against kernel VXLAN, plain underlay", 0.4, 0.7, against_vxlan("plain", "tcp1")),
    Goal("64-byte frames, against the best user-space switch", 1.3, 2, against_best("offload", "frames64")),
    Goal("512-byte frames, against the best user-space switch", 1, 1.5, against_best("offload", "frames512")),
    Goal(
        "1400-byte frames, against the best user-space switch", 1, 1.5, against_best("offload", "frames1400")
    ),
    Goal("64-byte frames, against kernel VXLAN", 1, 1.3, against_vxlan("offload", "frames64")),
    Goal(
        "idle round trip, against the best user-space switch",
        2,
        1.2,
        against_best("offload", "rtt"),
        at_most=True,
    ),
    Goal(
        "CPU per GB, against the best user-space switch",
        0.3,
        0.15,
        against_best("offload", "cpu_per_gb"),
        at_most=True,
    ),
    Goal("TCP at 1 % underlay loss, against 0 %", 0.4, 0.6, under_loss),
    Goal("one broadcast to 100 peers with sessions", 0.5, 0.2, flooding, at_most=True, unit=" ms"),
)


def judge(goal: Goal, results: Results) -> GoalResult:
    """Is it reached, and the aim too?"""
    found = goal.value(results)
    value, against = found or (None, "")
    return GoalResult(
        goal.title, goal.least, goal.aim, goal.at_most, goal.unit, value, against, _verdict(goal, value)
    )


def _verdict(goal: Goal, value: float | None) -> str:
    if value is None:
        return "not measured"
    for name, limit in (("aim", goal.aim), ("reached", goal.least)):
        if value <= limit if goal.at_most else value >= limit:
            return name
    return "missed"


def show(figure: str, value: float | None) -> str:
    """A value in its unit, without the unit's name."""
    kind = FIGURES[figure]
    return "-" if value is None else f"{value * kind.scale:.{kind.digits}f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = row
        lines.append(
            "  ".join(
                [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
            ).rstrip()
        )
    return "\n".join(lines)


def figures_table(results: Results, underlay: str, figures: Iterable[str] = FIGURES) -> str:
    """Medians: a line a figure, a column a contestant."""
    names = [n for n in results.values if underlay in results.values[n]]
    rows = [["", *names]]
    for figure in figures:
        if any(results.of(name, underlay, figure) for name in names):
            kind = FIGURES[figure]
            title = f"{kind.title}{f', {kind.unit}' if kind.unit else ''}"
            rows.append([title, *(show(figure, results.median(name, underlay, figure)) for name in names)])
    return table(rows)


def ratios_table(results: Results, underlay: str) -> str:
    """Ours to everybody's, median of the repeats: above 1 we have more of it."""
    names = [n for n in results.values if n != OWN and underlay in results.values[n]]
    rows = [[f"{OWN} / ...", *names]]
    for figure, kind in FIGURES.items():
        if figure == "steal":
            continue
        found = [ratio(results, underlay, figure, name) for name in names]
        if any(found):
            rows.append([kind.title, *(f"{f[0]:.2f}x" if f else "-" for f in found)])
    return table(rows) if len(rows) > 1 else ""


def goals_table(judged: Sequence[GoalResult]) -> str:
    """The rows of the issue with their verdicts."""
    rows = [["", "at least", "the aim", "here", "verdict"]]
    for goal in judged:
        bound = "<= " if goal.at_most else ">= "
        here = "-" if goal.value is None else f"{goal.value:.2f}{goal.unit}"
        rows.append(
            [
                goal.title + (f" ({goal.against})" if goal.against else ""),
                f"{bound}{goal.least:g}{goal.unit}",
                f"{bound}{goal.aim:g}{goal.unit}",
                here,
                goal.verdict,
            ]
        )
    return table(rows)


def document(results: Results, judged: Sequence[GoalResult], facts: dict[str, Any]) -> dict[str, Any]:
    """What is written as JSON: SI units (bits, frames and seconds), every repeat."""
    return {
        "schema": SCHEMA,
        **facts,
        "contestants": {
            name: {
                "encrypted": name in results.encrypted,
                "userspace": name in results.userspace,
                "underlays": by_underlay,
            }
            for name, by_underlay in results.values.items()
        },
        "goals": [asdict(goal) for goal in judged],
    }


def picture(results: Results, facts: dict[str, Any]) -> str:
    """The chart of the figures in PANELS."""
    panels = [panel for underlay, figure in PANELS if (panel := make_panel(results, underlay, figure)).bars]
    machine = facts["machine"]
    where = f"{machine['cpus']} x {machine['cpu']}, Linux {facts['kernel']}, Python {facts['python']}"
    how = f"TCP {facts['tcp_congestion_control']}, median of {facts['repeats']}; hosts and guests on one machine"
    versions = [version for version in facts["versions"].values() if version != facts["kernel"]]
    footer = [
        f"{facts['date'][:10]}, {where}, {how}",
        *textwrap.wrap(", ".join(dict.fromkeys(versions)), 140),
    ]
    return chart.draw(
        "l2overlay beside other layer-2 tunnels: guests behind bridges, MTU 1500", panels, footer
    )


def make_panel(results: Results, underlay: str, figure: str) -> chart.Panel:
    """One figure, the best first."""
    kind = FIGURES[figure]
    found = [
        (value, name)
        for name in results.values
        if (value := results.median(name, underlay, figure)) is not None
    ]
    found.sort(reverse=not kind.lower_is_better)
    bars = [
        chart.Bar(
            name,
            value,
            f"{show(figure, value)}",
            "own" if name == OWN else "sealed" if name in results.encrypted else "clear",
        )
        for value, name in found
    ]
    better = "less is better" if kind.lower_is_better else "more is better"
    where = {"offload": "", "plain": ", plain underlay", "lossy": ""}[underlay]
    title = kind.title[0].upper() + kind.title[1:]
    return chart.Panel(f"{title}{where} ({kind.unit}; {better})", bars)

"""The parts of the benchmark that measure nothing: the search, the frames, the ratios and verdicts, the chart."""

import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from . import chart, cold
from .contestants import CONTESTANTS
from .measures import FIGURES, FRAME_SIZES, OVERLOAD
from .report import (
    GOALS,
    OWN,
    Results,
    document,
    figures_table,
    goals_table,
    judge,
    make_panel,
    picture,
    ratios_table,
)
from .search import MAX_RATES, PRECISION, highest_passing, twice
from .traffic import FCS_LEN, Trial, internet_checksum, percentile, udp_frame

FACTS = {
    "date": "2026-01-02T03:04:05+00:00",
    "machine": {"cpu": "<CPU & co>", "cpus": 2, "memory": 1},
    "kernel": "6.0",
    "python": "3.11",
    "tcp_congestion_control": "bbr",
    "repeats": 3,
    "elapsed": 1.0,
    "versions": {"tinc": "1.0"},
    "left_out": {},
}


def limit_at(limit: float) -> Callable[[float], bool]:
    return lambda rate: rate <= limit


@pytest.mark.parametrize("limit", [9_000.0, 41_000.0, 60_000.0, 61_000.0, 133_000.0, 900_000.0])
def test_search_ends_within_its_precision_below_the_true_limit(limit: float) -> None:
    found = highest_passing(limit_at(limit), 60_000.0)
    assert limit / (1 + PRECISION) ** 1.01 <= found <= limit


def test_search_that_starts_from_an_earlier_result_needs_few_trials() -> None:
    tried: list[float] = []

    def passes(rate: float) -> bool:
        tried.append(rate)
        return rate <= 100_500

    highest_passing(passes, 100_000)
    assert len(tried) < 8


def test_search_gives_up_when_nothing_passes() -> None:
    tried: list[float] = []

    def passes(rate: float) -> bool:
        tried.append(rate)
        return False

    assert highest_passing(passes, 1e5) == 0.0
    assert len(tried) == MAX_RATES


def test_a_rate_passes_when_only_its_second_trial_does() -> None:
    answers = iter([False, True, False, False])
    passes = twice(lambda _: next(answers))
    assert passes(1.0)
    assert not passes(1.0)


@pytest.mark.parametrize("size", FRAME_SIZES)
def test_frame_has_its_size_and_valid_checksums(size: int) -> None:
    frame = udp_frame(size)
    assert len(frame) == size - FCS_LEN
    assert internet_checksum(frame[14:34]) == 0
    udp = frame[34:]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, len(udp))
    assert internet_checksum(pseudo + udp) == 0


def test_trial_without_frames_has_lost_all() -> None:
    assert Trial(0, 0, 1.0).loss == 1.0
    assert Trial(1000, 999, 0.5).loss == pytest.approx(0.001)
    assert Trial(1000, 999, 0.5).rate == pytest.approx(1998)


def test_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.0) == 1.0


def results_of(**tcp1: list[float]) -> Results:
    """Contestants by name (underscores are spaces) with a TCP rate a repeat."""
    results = Results(encrypted={OWN, "tinc"}, userspace={OWN, "tinc", "vde_plug"})
    for name, values in tcp1.items():
        for value in values:
            results.add(
                "kernel VXLAN" if name == "vxlan" else name, "offload", {"tcp1": value, "rtt": 1e6 / value}
            )
    return results


def verdict(results: Results, title: str) -> tuple[float | None, str, str]:
    found = judge(next(goal for goal in GOALS if goal.title.startswith(title)), results)
    return found.value, found.against, found.verdict


def test_ratio_is_taken_within_a_repeat_and_then_the_median() -> None:
    results = results_of(l2overlay=[8e9, 1e9, 2e9], tinc=[1e9, 1e9, 0.5e9])
    assert verdict(results, "TCP 1 stream, against the best encrypted") == (4.0, "tinc", "reached")


def test_plaintext_tunnels_are_no_rivals_where_only_encrypted_ones_count() -> None:
    results = results_of(l2overlay=[8e9], tinc=[1e9], vde_plug=[4e9])
    assert verdict(results, "TCP 1 stream, against the best encrypted")[2] == "aim"
    assert verdict(results, "idle round trip")[1] == "vde_plug"


def test_goal_at_most_is_missed_above_its_limit() -> None:
    results = results_of(l2overlay=[1e9], vde_plug=[3e9])
    assert verdict(results, "idle round trip")[1:] == ("vde_plug", "missed")


def test_goal_without_figures_is_not_measured() -> None:
    assert verdict(results_of(tinc=[1e9]), "TCP 1 stream, against kernel")[2] == "not measured"


def test_tables_show_every_contestant_and_a_dash_where_nothing_was_measured() -> None:
    results = results_of(l2overlay=[8e9], tinc=[1e9])
    results.add("tinc", "offload", {"tcp4": 2e9})
    text = figures_table(results, "offload")
    assert "TCP, 1 stream, Gbit/s" in text
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("TCP, 4")] == [["-", "2.00"]]
    assert "8.00x" in ratios_table(results, "offload")
    assert "missed" not in goals_table([judge(goal, results) for goal in GOALS])


def test_document_holds_every_repeat() -> None:
    results = results_of(tinc=[1e9, 2e9])
    written = document(results, [judge(goal, results) for goal in GOALS], FACTS)
    assert written["contestants"]["tinc"]["underlays"]["offload"]["tcp1"] == [1e9, 2e9]
    assert len(written["goals"]) == len(GOALS)


def test_chart_is_well_formed_and_its_longest_bar_is_the_best() -> None:
    results = results_of(l2overlay=[8e9], tinc=[1e9])
    root = ET.fromstring(picture(results, FACTS))
    bars = [
        r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("height") == str(chart.BAR_HEIGHT)
    ]
    own, other = bars[:2]
    assert (own.get("class"), other.get("class")) == ("own", "sealed")
    assert float(own.get("width", 0)) == pytest.approx(8 * float(other.get("width", 0)), rel=0.01)


def test_panel_of_a_cost_begins_with_the_smallest() -> None:
    results = results_of(l2overlay=[1e9], tinc=[2e9])
    assert [bar.label for bar in make_panel(results, "offload", "rtt").bars] == ["tinc", OWN]


def test_every_frame_size_and_contestant_has_its_figures_and_settings() -> None:
    assert OVERLOAD > 1
    assert {f"{kind}{size}" for kind in ("frames", "overload") for size in FRAME_SIZES} <= FIGURES.keys()
    assert len({kind.name for kind in CONTESTANTS}) == len(CONTESTANTS)
    assert all(kind.settings for kind in CONTESTANTS)


def test_the_cold_frame_arrives_and_each_pause_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cold.main(["--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"{pause * 1e3:g}" for pause in cold.PAUSES]

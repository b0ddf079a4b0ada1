"""Every piece of `tests.bench.cores` runs and says what can be true; no figure is judged here."""

import json
from pathlib import Path

import pytest

from . import cores

COULD_BE_A_RATIO = (0.05, 20.0)


def rows_of(piece: str) -> dict[str, cores.Row]:
    rows = {row.name: row for row in cores.PIECES[piece](cores.QUICK)}
    assert rows
    for row in rows.values():
        assert row.unit != "x" or COULD_BE_A_RATIO[0] < row.median < COULD_BE_A_RATIO[1], row
    return rows


@pytest.mark.parametrize("piece", ["processes", "threads", "gil", "fdb"])
def test_piece_without_root_runs(piece: str) -> None:
    rows_of(piece)


@pytest.mark.host
def test_each_flow_keeps_to_one_queue_of_the_tap() -> None:
    rows = rows_of("queues")
    assert 0 < rows["by the kernel, of 256 flows: out of queue 0"].median < 256
    assert rows["by the kernel, of 256 flows: out of the same queue again"].median == 256


@pytest.mark.host
def test_a_filter_finds_the_lane_that_a_hash_cannot_know() -> None:
    rows = rows_of("reuseport")
    assert rows["by hash, one port: share of the busier socket"].median == 1
    assert rows["by lane byte, one port: share at the other lane's socket"].median == 0


@pytest.mark.host
@pytest.mark.parametrize("piece", ["lanes", "nodes"])
def test_piece_with_real_taps_runs(piece: str) -> None:
    rows_of(piece)


def test_run_writes_every_value_of_every_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cores.main(["--quick", "--pieces", "fdb", "--json", str(tmp_path / "run.json")]) == 0
    written = json.loads((tmp_path / "run.json").read_text())
    assert len(written["pieces"]["fdb"]["look-up, shared memory"]["values"]) == cores.QUICK.rounds
    assert "look-up, shared memory" in capsys.readouterr().out


def test_disturbed_case_is_measured_again_until_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter(
        [False, True, True, False, False]
    )  # quiet, disturbed meanwhile; waits once; quiet before and after
    quiet, values = cores.Quiet(10), iter([1.0, 2.0])
    monkeypatch.setattr(quiet, "_is_busy", lambda: next(busy))
    assert quiet.measure(lambda: next(values)) == 2.0
    assert quiet.disturbed == 0

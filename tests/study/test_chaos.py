"""Killed at random and at fixed moments, a sweep records each committed result exactly once; the long form is `make chaos`."""

from pathlib import Path

from benchmarks.chaos.edges import play_all
from benchmarks.chaos.moments import moments
from benchmarks.chaos.randomly import chaos
from benchmarks.services.servers import postgres_programs

SHORT = {
    ("end of a study", "page of the report"),
    ("two studies at once in a fresh home", "one killed, 200 ms later"),
}


def test_a_sweep_under_kills_ends_bit_for_bit_like_one_left_in_peace(tmp_path: Path) -> None:
    backend = "postgresql" if postgres_programs() is not None else "sqlite"
    outcome = chaos(tmp_path / "chaos", kills=4, seed=3, backend=backend, steps=300, trials=2)
    assert sum(outcome.kills.values()) == 4
    assert outcome.found.trials == 8
    assert outcome.found.runs == 9
    assert outcome.holds, outcome.line()


def test_a_sweep_killed_at_the_edges_of_its_life_is_brought_to_its_end_by_one_command(tmp_path: Path) -> None:
    chosen = [moment for moment in moments() if (moment.family, moment.name) in SHORT]
    assert len(chosen) == len(SHORT)
    for played in play_all(tmp_path / "edges", chosen):
        assert played.holds, played.line()
        assert sum(found.runs for found in played.found) == 5 * (1 + played.moment.second)
        assert sum(found.points for found in played.found) > 0

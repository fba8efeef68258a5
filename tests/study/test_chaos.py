"""Killed at random, a sweep loses nothing and does nothing twice; the long form is `make chaos`."""

from pathlib import Path

from olfl_ray.bench.chaos.randomly import chaos
from olfl_ray.bench.services import postgres_programs


def test_a_sweep_under_kills_ends_bit_for_bit_like_one_left_in_peace(tmp_path: Path) -> None:
    backend = "postgresql" if postgres_programs() is not None else "sqlite"
    outcome = chaos(tmp_path / "chaos", kills=4, seed=3, backend=backend, steps=300, trials=2)
    assert sum(outcome.kills.values()) == 4
    assert outcome.found.trials == 8
    assert outcome.found.runs == 9
    assert outcome.holds, outcome.line()

"""One trial of a study: its settings, its results, its learned loss and its model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis import mean
from olfl_ray.ledger import TrialState
from olfl_ray.spec import TrialConfig, trial_config
from olfl_ray.study.frames import seconds_of

if TYPE_CHECKING:
    import pandas as pd

    from olfl_ray.losses import LearnedLoss
    from olfl_ray.study.results import Results
    from olfl_ray.trial import TrainedModel

__all__ = ["Trial", "leaves"]

RESULT = ("state", "step", "value", "seconds")
"""What `Trial.diff` compares besides settings and metrics."""


@dataclass(frozen=True, repr=False)
class Trial:
    """A trial as it was when the study was asked for it; made by `Study.trial` and `Study.best`.

    Args:
        study: Its study.
        record: What the ledger says of it.
    """

    study: Results
    record: TrialState

    def __repr__(self) -> str:
        value = "" if self.value is None else f", {self.value:.4g}"
        return f"Trial({str(self.record.id)!r}, {self.state} at step {self.step}{value})"

    @property
    def name(self) -> str:
        """`ARM/ORDINAL`, or `ARM/cN` of a confirming trial."""
        return str(self.record.id)

    @property
    def arm(self) -> str:
        """Its arm."""
        return self.record.id.arm

    @property
    def confirming(self) -> bool:
        """Whether it confirms its arm's winner on a fresh seed."""
        return self.record.id.confirming

    @property
    def state(self) -> str:
        """planned, running, stopped, finished, pruned, diverged or failed."""
        return self.record.state

    @property
    def step(self) -> int:
        """Base steps done."""
        return self.record.step

    @property
    def value(self) -> float | None:
        """The search metric, mean over replicates; None before the first evaluation."""
        return self.record.value

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric of the result, mean over replicates; empty before the end."""
        return {name: mean(values) for name, values in self.record.metrics.items() if values}

    @property
    def settings(self) -> dict[str, Any]:
        """What the search chose: dotted field -> value. All settings are in `config`."""
        return dict(self.record.params)

    @property
    def config(self) -> TrialConfig:
        """All settings, resolved."""
        return trial_config(
            self.study.loaded()[0], self.arm, self.record.params, seeds=tuple(self.seeds), confirming=self.confirming
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each replicate."""
        return tuple(self.record.seeds)

    @property
    def cause(self) -> str | None:
        """Why it failed or was cut short, with the traceback of an exception; None where there is nothing to say."""
        return self.record.cause

    @property
    def seconds(self) -> float:
        """From its first attempt to its end, in seconds; NaN before the end."""
        return seconds_of(self.record)

    def diff(self, other: Trial) -> pd.DataFrame:
        """Compare it with another trial, of the same study or another: the settings that differ, and both results.

        Args:
            other: The other trial.

        Returns:
            One row per dotted setting that differs, then rows for state, step, value and seconds, then one row per metric of
            either result. Columns: kind (setting, result, metric), a (this trial), b (the other one; None or NaN where it has
            none), difference (b - a; NaN where one is no number).
        """
        import pandas as pd

        mine, others = leaves(_plain(self.config)), leaves(_plain(other.config))
        rows: list[tuple[str, str, Any, Any]] = [
            ("setting", name, mine.get(name), others.get(name))
            for name in dict.fromkeys([*mine, *others])
            if mine.get(name) != others.get(name) or (name in mine) != (name in others)
        ]
        rows += [("result", name, getattr(self, name), getattr(other, name)) for name in RESULT]
        rows += [
            ("metric", name, self.metrics.get(name, math.nan), other.metrics.get(name, math.nan))
            for name in dict.fromkeys([*self.metrics, *other.metrics])
        ]
        columns = {
            "kind": [row[0] for row in rows],
            "a": pd.Series([row[2] for row in rows], dtype=object),
            "b": pd.Series([row[3] for row in rows], dtype=object),
            "difference": [_difference(row[2], row[3]) for row in rows],
        }
        found = pd.DataFrame(columns)
        found.index = pd.Index([row[1] for row in rows], name="name", dtype=str)
        return found

    def curves(self, *, metric: str | None = None) -> pd.DataFrame:
        """What it recorded; as `Study.curves`."""
        return self.study.curves(self.name, metric=metric)

    def learned(self, at: float = 1.0, *, allow: Iterable[str] = ()) -> LearnedLoss:
        """Its learned loss; as `Study.learned`."""
        return self.study.learned(self.name, at, allow=allow)

    def model(self, *, replicate: int = 0, allow: Iterable[str] = ()) -> TrainedModel:
        """Its trained base learner; as `Study.model`."""
        return self.study.model(self.name, replicate=replicate, allow=allow)

    def pruned(self, *, replicate: int = 0, allow: Iterable[str] = ()) -> TrainedModel:
        """Its trained base learner without the channels that its weights ignore; as `Study.pruned`."""
        return self.study.pruned(self.name, replicate=replicate, allow=allow)

    def export(self, to: str | Path | None = None, **options: Any) -> Path:
        """Write its trained base learner to one file; as `Study.export`."""
        return self.study.export(self.name, to, **options)

    def _repr_html_(self) -> str:
        from olfl_ray.study.view import as_html

        rows: Mapping[str, Any] = {"state": self.state, "step": self.step, **self.settings, **self.metrics}
        cause = {"cause": self.cause.partition("\n")[0]} if self.cause else {}
        shown = [
            [key, f"{value:.4g}" if isinstance(value, float) else str(value)]
            for key, value in {**rows, **cause}.items()
        ]
        return as_html([self.name, ""], shown)


def leaves(values: Any, path: str = "") -> dict[str, Any]:
    """Nested values by dotted name; a list is one value.

    Args:
        values: Nested mappings.
        path: Name of their top.
    """
    if not isinstance(values, dict) or not values:
        return {path: values}
    found: dict[str, Any] = {}
    for key, inner in values.items():
        found |= leaves(inner, f"{path}.{key}" if path else str(key))
    return found


def _plain(config: TrialConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


def _difference(a: Any, b: Any) -> float:
    numbers = [value for value in (a, b) if isinstance(value, int | float) and not isinstance(value, bool)]
    return float(b - a) if len(numbers) == 2 else math.nan

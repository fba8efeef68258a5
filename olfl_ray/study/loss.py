"""Load a learned loss for use in any training loop."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from olfl_ray.analysis import final_table
from olfl_ray.driver.home import Home
from olfl_ray.errors import DataError, SetupError
from olfl_ray.losses import LearnedLoss, loss_from_bytes, standalone
from olfl_ray.storage import replace_file
from olfl_ray.study.handle import Study
from olfl_ray.worker import find_loss

__all__ = ["export_loss", "load_loss"]


def load_loss(
    source: str | Path,
    *,
    at: float | None = None,
    home: str | Path | Home | None = None,
    cluster: str | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    allow: Iterable[str] = (),
) -> LearnedLoss:
    """A learned loss as an `nn.Module`: called with (outputs, targets), gives a scalar.

    Args:
        source: Its file or folder; a sweep's trial, `STUDY/ARM/ORDINAL`; or the id of an MLflow run.
        at: Of a trial: when, a fraction of the training, 0.0 to 1.0, or as an integer a base step; the last loss that a commit
            recorded until then. None: after the last step.
        home: Home folder of the trial or run; None: `OLFL_HOME`, else `./.olfl`.
        cluster: URL of Ray's job server, or a target of the settings file, that knows the trial's study.
        storage: Storage that holds the trial's study, such as s3://bucket/studies.
        tracking_uri: MLflow store of the run; None: `MLFLOW_TRACKING_URI`, else the home folder's own.
        allow: Packages, modules or full names (`package.module:builder`) of builders that may be called. A learned loss
            is data, and whoever wrote its files chose the builder that they name: one that is not allowed is refused.

    Raises:
        DataError: There is none, or a builder that is not allowed makes it.

    A loss that training has shown a range of targets and outputs warns once where a call leaves it.
    """
    allow = [allow] if isinstance(allow, str) else list(allow)
    if not isinstance(source, str | Path):
        raise DataError(
            f"load_loss: source must be a path, STUDY/ARM/ORDINAL or the id of a run, but it is {source!r}; name one"
        )
    if at is not None and (Path(source).exists() or str(source).count("/") != 2):
        raise DataError(f"at: is {at!r}, but {source} has one loss; leave it out, or name STUDY/ARM/ORDINAL")
    if Path(source).exists():
        return find_loss(str(source), None, allow=allow)
    place = home if isinstance(home, Home) else Home.find(home)
    if re.fullmatch(r"[0-9a-f]{32}", str(source)):
        from olfl_ray.tracking.mlflow import fetch_learned_loss

        found = fetch_learned_loss(place.tracking_of(tracking_uri), str(source))
        return loss_from_bytes(*found, f"run {source}", allow)
    if str(source).count("/") == 2 and (at, cluster, storage) != (None, None, None):
        name, _, trial = str(source).partition("/")
        opened = Study.open(name, home=place, cluster=cluster, storage=storage)
        return opened.learned(trial, 1.0 if at is None else at, allow=allow)
    return find_loss(str(source), place.studies, allow=allow)


def export_loss(
    source: str | Path,
    path: str | Path,
    *,
    at: float | None = None,
    home: str | Path | Home | None = None,
    cluster: str | None = None,
    storage: str | None = None,
    allow: Iterable[str] = (),
) -> Path:
    """Write a learned loss as one Python file that needs torch alone: `from FILE import LearnedLoss`.

    Its head says what it was learned on, its seeds, its arm's test difference with the interval, and the range of targets and
    outputs that it has seen, as far as they are known; it warns once where a call leaves that range.

    Args:
        source: As of `load_loss`.
        path: The file, `NAME.py`; one that exists is replaced.
        at: As of `load_loss`.
        home: As of `load_loss`.
        cluster: As of `load_loss`.
        storage: As of `load_loss`.
        allow: As of `load_loss`.

    Raises:
        DataError: There is no such loss, or it is made by a user's own code.
        SetupError: The file can't be written.
    """
    target = Path(path)
    if target.suffix != ".py" or not target.stem.isidentifier():
        raise DataError(
            f"standalone: is {path}, but must be a Python module's file name; use learned_loss.py, for example"
        )
    found = load_loss(source, at=at, home=home, cluster=cluster, storage=storage, allow=allow)
    text = standalone(found, _notes(str(source), at, home=home, cluster=cluster, storage=storage))
    try:
        replace_file(target, text.encode())
    except OSError as error:
        raise SetupError(f"standalone: {target} can't be written ({error.strerror}); name another file") from None
    return target


def _notes(source: str, at: float | None, **location: Any) -> list[str]:
    """What is known of a trial's loss."""
    notes = [f"Source: {source}{'' if at is None else f', at {at}'}; olfl_ray {version('olfl_ray')}."]
    if Path(source).exists() or source.count("/") != 2:
        return notes
    study, trial = Study.open(source.split("/")[0], **location), source.partition("/")[2]
    config, arm = study.trial(trial).config, trial.split("/")[0]
    spec, state, storage = study.loaded()
    task = config.task
    notes.append(
        f"Learned on {task.dataset.name} with {task.model.name} by {config.learner.method}, {config.learner.steps} steps of "
        f"batches of {task.batch_size}; seed {config.seeds[0]}, of the study {spec.seed}."
    )
    for row in final_table(spec, state, storage):
        for test in (row.test, row.primary):
            if row.arm == arm and test is not None and test.difference is not None:
                found = test.difference
                seeds = f"{found.n} paired seeds ({', '.join(map(str, test.values))})"
                notes.append(
                    f"Test {test.metric} of its arm on {seeds}: {found.mean:+.4g} against {found.baseline}, "
                    f"95 % interval {found.low:+.4g} to {found.high:+.4g}."
                )
    return notes

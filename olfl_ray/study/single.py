"""One trial without Ray and MLflow, data sets, samples of a search, the tracking page: what the other commands call."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from olfl_ray import data
from olfl_ray.errors import SetupError, SpecError, StudyError
from olfl_ray.spec import Resources, StudySpec, TrialConfig, read_spec, seed_of, trial_config
from olfl_ray.study.home import Home, data_root
from olfl_ray.study.look import load
from olfl_ray.sweep import ArmSearch
from olfl_ray.trial import Place, Progress, check, set_threads
from olfl_ray.trial import run as run_one

__all__ = ["describe_data", "prepare_data", "run_trial", "sample", "serve_ui", "trial_of"]


def trial_of(
    spec: Path | None, *, overrides: Sequence[str], arm: str | None, source: str | None, home: Home
) -> tuple[TrialConfig, Resources]:
    """A trial's settings, and what it takes: the spec's own values in an arm, or those of a sweep's trial.

    Raises:
        UserError: Neither or both are given, or one does not exist.
    """
    if (spec is None) == (source is None):
        raise SpecError("olfl trial run", "give either a SPEC or --from STUDY/ARM/ORDINAL")
    if spec is not None:
        study = read_spec(spec, overrides)
        arm = arm or next(iter(study.arms))
        if arm not in study.arms:
            raise SpecError("--arm", f"there is no arm {arm!r}; there are: {', '.join(study.arms)}")
        seeds = tuple(seed_of(study.seed, "search", replicate) for replicate in range(study.replicates))
        return trial_config(study, arm, {}, seeds=seeds), study.resources
    assert source is not None
    if arm is not None or overrides:
        raise SpecError("--from", "names a trial with all its settings; leave out --arm and --set")
    name, _, trial = source.partition("/")
    study, ledger, _ = load(name, home)
    if trial not in ledger.state.trials:
        raise StudyError(f"--from: study {name!r} has no trial {trial!r}; see its report for their names")
    found = ledger.state.trials[trial]
    seeds, confirming = tuple(found.seeds), found.id.confirming
    return trial_config(study, found.id.arm, found.params, seeds=seeds, confirming=confirming), study.resources


def run_trial(config: TrialConfig, resources: Resources, *, home: Home) -> Iterator[Progress]:
    """Run one trial here, on the device and the threads that a sweep would give it: the results are the same."""
    data.forget()
    device = "cuda" if resources.gpu > 0 else "cpu"
    place = Place(cache=home.cache, data_root=data_root(), studies=home.studies, device=device)
    check(config, place)
    set_threads(resources.cpu)
    return run_one(config, place)


def sample(spec: StudySpec, arm: str, count: int) -> list[dict[str, Any]]:
    """The first points that the arm's search would propose, if it learned nothing from them."""
    search = ArmSearch(spec, arm, spec.concurrency)
    search.replay([], {})
    return [search.propose(ordinal, [], {}) for ordinal in range(min(count, spec.arms[arm].trials))]


def describe_data() -> list[tuple[Any, ...]]:
    """The built-in data sets."""
    return [tuple(row) for row in data.describe(data_root())]


def prepare_data(name: str, *, home: Home) -> str:
    """Find, check and prepare a data set; one line about it."""
    found = data.load(name, {}, cache=home.cache, root=data_root())
    return f"{name}: {len(found.y)} rows, {found.kind}, from {found.source}"


def serve_ui(home: Home, port: int) -> int:
    """Serve MLflow's page on the home folder's store, on loopback, until it is interrupted; the server's exit code.

    Raises:
        SetupError: Somebody else listens on the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise SetupError(f"--port: {port} can't be listened on ({error}); choose another") from None
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", home.tracking_uri),
        *("--artifacts-destination", home.artifacts.as_uri(), "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]
    # Its job runners would take two more gigabytes, for nothing that is used here.
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0

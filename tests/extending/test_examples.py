"""The examples of docs/extending.md keep their contracts, and run in one real sweep that is stopped and resumed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import environment

from olfl_ray.ledger import DriverStarted, Ledger
from olfl_ray.plugins import load_builder
from olfl_ray.records import names
from olfl_ray.search import Searcher, Space
from olfl_ray.spec import StudySpec, parse_spec, trial_config
from olfl_ray.study import Home
from olfl_ray.testing import Kept, SearcherContract, TrackerContract
from olfl_ray.tracking import TrackedStudy, Tracker
from olfl_ray.trial import TrialEnvironment, run

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "extending.md"
NAME = "extended"
ARMS: dict[str, dict[str, Any]] = {
    "per_class": {"learner.method": "mine.per_class:PerClass", "meta.init_steps": 8},
    "weight_decay": {"learner.method": "mine.weight_decay:WeightDecay", "meta.eta_online": 0.01},
    "layer_rates": {"learner.method": "mine.layer_rates:PerLayer", "meta.eta_online": 0.01},
    "from_scratch": {"learner.method": "mine.from_scratch:FromScratch", "meta.every": 2},
    "last_step": {
        "learner.method": "online",
        "meta.estimator": "mine.last_step:LastStep",
        "meta.inner_steps": 2,
        "meta.init_steps": 8,
    },
    "rmsprop": {"learner.optimizer.name": "mine.rmsprop:RmsProp", "learner.schedule.name": "mine.rmsprop:warmup"},
    "taylor": {"learner.method": "online", "loss.name": "mine.taylor:Taylor", "loss.degree": 2, "meta.init_steps": 8},
    "counts": {"task.dataset": "mine.visits:visits", "task.metrics": []},
}
"""Examples that a sweep has as arms."""
DRIVER = """
import sys
from olfl_ray.ledger import Committed, StopRequest
from olfl_ray.driver import drive
from olfl_ray.spec import read_spec
from olfl_ray.study import Home

home = Home.find("home")

def stop(event, state):
    if isinstance(event, Committed):
        StopRequest(home.storage("extended"), state.epoch).make()

result = drive(read_spec("spec.yaml"), home, watch=stop if sys.argv[1] == "stop" else None)
print(result.finished, result.undelivered, result.problem)
"""


def spec(folder: Path) -> dict[str, Any]:
    """All examples at once. An example of another part is one more arm, or one more setting."""
    return {
        "name": NAME,
        "task": {"dataset": "digits", "model": "linear", "metrics": ["mine.metrics:top2_error"]},
        "learner": {"method": "baseline", "steps": 40},
        "eval": {"every": 10},
        "replicates": 1,
        "search": {
            "sampler": {"name": "mine.searcher:Evolution", "tournament": 1},
            "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 1.0, "log": True}},
            "pruner": {"name": "mine.patience:Patience", "min_steps": 10, "decisions": 9},
        },
        "arms": {"baseline": {"trials": 2}, **{name: {"set": own, "trials": 2} for name, own in ARMS.items()}},
        "confirm": {"seeds": 0},
        "checkpoint": {"every_steps": 10},
        "concurrency": 1,
        "tracking": [{"name": "mine.tracker:Csv", "folder": str(folder / "tables")}, {"name": "json_lines"}],
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep that was stopped after its first commit, and resumed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "spec.yaml").write_text(json.dumps(spec(folder)))
    for word, said in (("stop", "False 0"), ("resume", "True 0")):
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, word],
            cwd=folder,
            env={**environment(HERE), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.stdout.strip().startswith(said), done.stdout + done.stderr
    return folder


def test_the_docs_show_each_file_and_none_is_long() -> None:
    shown = dict(re.findall(r"`(tests/extending/[\w/]+\.py)`:\n\n```python\n(.*?)```", DOCS.read_text(), re.S))
    files = {str(file.relative_to(HERE.parents[1])): file.read_text() for file in (HERE / "mine").glob("[a-z]*.py")}
    assert shown == files
    assert max(len(text.splitlines()) for text in files.values()) <= 40


def test_a_stopped_sweep_is_resumed_and_each_record_is_in_its_table_once(sweep: Path) -> None:
    ledger = Ledger.load(Home(sweep / "home").storage(NAME))
    assert sum(isinstance(event, DriverStarted) for event in ledger.events) == 2
    assert {name: trial.state for name, trial in ledger.state.trials.items()} == {
        f"{arm}/{ordinal}": "finished" for arm in ("baseline", *ARMS) for ordinal in (0, 1)
    }
    code = {arm: set(facts.code) - {"mine.searcher", "mine.patience"} for arm, facts in ledger.state.facts.items()}
    assert code == {
        "baseline": {"mine.metrics"},
        **{arm: {f"mine.{arm}", "mine.metrics"} for arm in ARMS},
        "counts": {"mine.visits", "mine.counts"},
    }, "other code would be refused"
    for module in ("mine.searcher", "mine.patience"):
        assert all(module in facts.code for facts in ledger.state.facts.values())
    checked = parse_spec((sweep / "spec.yaml").read_bytes())
    for name, trial in ledger.state.trials.items():
        wanted = _trained(Home(sweep / "home"), checked, trial.id.arm, trial.params, trial.seeds)
        (file,) = (sweep / "tables").glob(f"*/{name}.csv")
        *lines, end = file.read_text().splitlines()[1:]
        rows = [line.split(",") for line in lines]
        found = [(int(step), metric, float(value)) for step, metric, _, value in rows]
        assert sorted(row for row in found if row[1] not in names.VOLATILE) == wanted, "bit for bit, as without a sweep"
        assert len({row[:2] for row in found}) == len(found)
        assert end == "# finished"


def test_json_lines_have_the_same(sweep: Path) -> None:
    files = list((Home(sweep / "home").study_folder(NAME) / "tracking").glob("baseline/*.jsonl"))
    assert len(files) == 2
    for file in files:
        first, *rows, last = [json.loads(line) for line in file.read_text().splitlines()]
        assert (first["kind"], last["kind"], last["state"]) == ("trial", "end", "finished")
        (table,) = (sweep / "tables").glob(f"*/{first['trial']}.csv")
        lines = [f"{row['step']},{row['metric']},{row['replicate']},{row['value']!r}" for row in rows]
        assert lines == table.read_text().splitlines()[1:-1]


def test_the_search_goes_on_from_what_the_first_driver_knew(sweep: Path) -> None:
    trials = Ledger.load(Home(sweep / "home").storage(NAME)).state.trials
    first, second = (trials[f"baseline/{ordinal}"].params["learner.optimizer.lr"] for ordinal in (0, 1))
    assert first == 0.01, "the spec's own"
    assert 0.01 <= second <= 1.0
    assert second != first


class TestSearcher(SearcherContract):
    def make(self, space: Space) -> Searcher:
        kind: Any = load_builder("mine.searcher:Evolution", "search.sampler")
        return kind(kind.Config(tournament=2), space)  # type: ignore[no-any-return]


class TestTracker(TrackerContract):
    def make(self, study: TrackedStudy) -> Tracker:
        kind: Any = load_builder("mine.tracker:Csv", "tracking")
        return kind(kind.Config(folder=str(study.home)), study)  # type: ignore[no-any-return]

    def kept(self, study: TrackedStudy, identity: str) -> dict[str, Kept]:
        found = {}
        for file in study.home.glob(f"*-{identity}/*/*.csv"):
            rows = [line.split(",") for line in file.read_text().splitlines()[1:] if not line.startswith("#")]
            ends = re.findall(r"^# (\w+)$", file.read_text(), re.M)
            name = f"{file.parent.name}/{file.stem}"
            found[name] = Kept([(int(step), metric, float(value)) for step, metric, _, value in rows], "".join(ends))
        return found


def _trained(home: Home, checked: StudySpec, arm: str, params: Any, seeds: Any) -> list[tuple[int, str, float]]:
    """The records of a trial that runs without Ray, in one go."""
    config = trial_config(checked, arm, params, seeds=tuple(seeds))
    threads = torch.get_num_threads()
    torch.set_num_threads(checked.resources.cpu)  # as in a worker: they decide the last bits
    records = [record for progress in run(config, TrialEnvironment(cache=home.cache)) for record in progress.records]
    torch.set_num_threads(threads)
    return sorted(
        (record.step, metric, values[0])
        for record in records
        for metric, values in record.metrics.items()
        if metric not in names.VOLATILE
    )

"""Any truncated file of a study: a start ends like an undisturbed one, or names the corrupt file; no recorded result is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from olfl_ray.analysis import records_table
from olfl_ray.errors import DataError, UserError
from olfl_ray.ledger import Ended, Ledger, StopRequest
from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.storage import open_storage
from olfl_ray.study import Home, load_loss
from olfl_ray.sweep import Conductor
from olfl_ray.worker import Assignment, Session

SPEC = {
    "name": "torn",
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [4]}, "batch_size": 8},
    "learner": {"steps": 60},
    "meta": {"init_steps": 10},
    "eval": {"every": 20},
    "replicates": 1,
    "search": {
        "deterministic": True,
        "pruner": {"name": "none"},
        "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}},
    },
    "arms": {"online": {"trials": 2}},
    "confirm": {"seeds": 1},
    "concurrency": 1,
    "checkpoint": {"every_steps": 20},
}


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return complete(parse_spec(json.dumps(SPEC).encode()))


def drive(spec: StudySpec, home: Home, *, words: int | None = None) -> Ledger:
    """What a driver and its workers do, in this process and without Ray, until they are killed after some words."""
    storage = home.storage(spec.name)
    if not storage.keys("ledger/"):
        Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    ledger = Ledger.load(storage)
    conductor = Conductor(spec, ledger, StopRequest(storage, 1))
    while (trial := conductor.next()) is not None:
        given = Assignment(
            study=storage.url,
            trial=str(trial.id),
            config=conductor.config_of(trial).model_dump_json(by_alias=True),
            cache=str(home.cache),
            data_root=None,
            studies=str(home.studies),
            device="cpu",
            threads=1,
            commit_every=20,
            pruner=spec.search.pruner.model_dump_json(),
            max_seconds=None,
            epoch=1,
            recorded=tuple(commit.commit for commit in trial.commits),
        )
        for message in Session(given).messages():
            if words == 0:
                return ledger
            words = None if words is None else words - 1
            if not conductor.receive(message):
                break
    ledger.compact()
    return ledger


def results(ledger: Ledger) -> dict[str, object]:
    return {name: (trial.state, trial.value, dict(trial.metrics)) for name, trial in ledger.state.trials.items()}


@pytest.fixture(scope="module")
def half(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a study that was killed in its second trial."""
    home = Home(tmp_path_factory.mktemp("half"))
    drive(spec, home, words=7).compact()
    return home.path


@pytest.fixture(scope="module")
def whole(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The results of the study left in peace."""
    return results(drive(spec, Home(tmp_path_factory.mktemp("whole"))))


def damages(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    for place in (len(data) // 3, len(data) - 1):
        yield data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]


def test_the_half_study_has_every_kind_of_file(half: Path) -> None:
    kinds = {path.name.split(".", 1)[1] for path in (half / "studies").rglob("*") if path.is_file()}
    assert kinds >= {
        "json",
        "jsonl",
        "commit.json",
        "state.safetensors",
        "records.parquet",
        "surfaces.parquet",
        "learned_loss.safetensors",
        "learned_loss.json",
        "safetensors",
    }


def test_each_torn_file_is_gone_round_or_named(
    spec: StudySpec, half: Path, whole: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noted = {
        event.trial for event in Ledger.load(open_storage(half / "studies" / "torn")).events if isinstance(event, Ended)
    }
    assert noted == {"online/0"}
    files = sorted(path.relative_to(half) for path in (half / "studies").rglob("*") if path.is_file())
    events = [file for file in files if file.parent.name == "ledger" and file.suffix == ".json"]
    files = [file for file in files if file not in events[1:-1:3]]  # tests/ledger tears each of them
    named = 0
    for index, file in enumerate(files):
        every = list(enumerate(damages((half / file).read_bytes())))
        # One kind of damage for each file, in turn: every driver that this starts takes a second.
        for number, damaged in every[index % len(every) :][:1]:
            home = Home(tmp_path / "home")
            shutil.rmtree(home.path, ignore_errors=True)
            shutil.copytree(half, home.path)
            (home.path / file).write_bytes(damaged)
            caplog.clear()
            said = ""
            try:
                ledger = drive(spec, home)
                for trial in ledger.state.trials.values():
                    records_table(home.storage("torn"), trial)
            except UserError as error:
                said = str(error)
            if said:
                named += 1
                assert file.name in said, (file, number, said)
                assert len(said.splitlines()) == 1
            else:
                assert results(ledger) == whole, (file, number)
    assert named < len(files)


@pytest.mark.parametrize("file", ["learned_loss.safetensors", "learned_loss.json", "state.safetensors", "commit.json"])
def test_a_finished_trial_whose_learned_loss_is_torn_names_the_file(file: str, half: Path, tmp_path: Path) -> None:
    shutil.copytree(half, tmp_path / "home")
    assert load_loss("torn/online/0", home=tmp_path / "home").kind == "classification"
    last = sorted((tmp_path / "home" / "studies" / "torn" / "trials" / "online" / "0").rglob(f"*.{file}"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{last.name}: is corrupt .*; restore"):
        load_loss("torn/online/0", home=tmp_path / "home")


def test_a_learned_loss_without_a_source_is_a_message() -> None:
    with pytest.raises(DataError, match=r"^load_loss: source must be a path, .* but it is None; name one$"):
        load_loss(None)  # type: ignore[arg-type]

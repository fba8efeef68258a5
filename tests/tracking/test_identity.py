"""A study touches only runs with its identity; each trial has one run, however many drivers deliver it how often."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from olfl_ray.ledger import Ledger, StudyCreated, apply
from olfl_ray.tracking.mlflow import Mlflow, undelivered


def test_studies_with_the_same_spec_have_different_identities_and_so_have_older_ledgers(
    home: Callable[..., Any],
) -> None:
    first, second = home("a"), home("b")
    assert first.state.digest == second.state.digest
    assert len({first.state.identity, second.state.identity}) == 2
    assert Ledger.load(first.storage).state.identity == first.state.identity
    older = [StudyCreated(time=time, spec={}, digest="d", name="s", versions={}) for time in (1.0, 1.0, 2.0)]
    identities = [apply(None, StudyCreated.from_json(event.to_json())).identity for event in older]
    assert identities[0] == identities[1] != identities[2]


def test_one_spec_in_three_homes_with_one_store_is_three_studies(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    first, second, third = home("a"), home("b"), home("c")
    for place in (first, second, third):
        place.trial("online/0")
        place.deliver(place.runs())
    third.trial("online/1", [10], end=None)
    third.deliver(third.runs())  # killed here, and resumed
    third.trial("online/1", [20])
    third.deliver(third.runs())
    found = held()
    assert found.deleted == []
    for place, names in ((first, {"online/0"}), (second, {"online/0"}), (third, {"online/0", "online/1"})):
        runs = found.of(place)
        assert runs.keys() == {"study"} | names
        assert all(found.steps(runs[name]) == [10, 20] for name in names)
        assert runs["online/0"].data.tags["mlflow.parentRunId"] == runs["study"].info.run_id


def test_study_that_is_created_again_does_not_touch_the_runs_of_the_first(
    home: Callable[..., Any], held: Callable[..., Any], tmp_path: Any
) -> None:
    first = home("a")
    first.trial("online/0")
    first.deliver(first.runs())
    before = {name: (run.info, run.data) for name, run in held().of(first).items()}
    (tmp_path / "a").rename(tmp_path / "gone")
    again = home("a")
    again.trial("online/0", [10], end="stopped")
    again.deliver(again.runs())
    again.trial("online/0", [20])
    again.deliver(again.runs())
    found = held()
    assert found.deleted == []
    after = found.of(first)
    assert {name: run.info.status for name, run in after.items()} == {n: i.status for n, (i, _) in before.items()}
    assert found.steps(after["online/0"]) == [10, 20]
    assert found.steps(found.of(again)["online/0"]) == [10, 20]


class Both:
    """A client during whose lookup another driver creates the same run.

    Its clock is some seconds off.
    """

    def __init__(self, client: Any, other: Callable[[], None], seconds: float) -> None:
        self._client, self._other, self._seconds = client, other, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_run(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs["tags"]["olfl.trial"] != "study":
            self._other()
        return self._client.create_run(*args, **kwargs, start_time=int(1000 * (time.time() + self._seconds)))


@pytest.mark.parametrize("seconds", [0, 3600, -3600])
def test_two_concurrent_drivers_leave_one_run_per_trial(
    home: Callable[..., Any], held: Callable[..., Any], seconds: float
) -> None:
    place = home("a")
    place.trial("online/0")
    one, two = place.runs(), place.runs()
    one._client = Both(one._client, lambda: place.deliver(two), seconds)
    place.deliver(one)
    found = held()
    assert found.steps(found.of(place)["online/0"]) == [10, 20]
    assert found.of(place)["online/0"].info.status == "FINISHED"
    assert len(found.deleted) == 1


def test_driver_whose_run_was_removed_continues_in_the_remaining_one(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    place = home("a")
    place.trial("online/0", [10], end=None)
    runs = place.runs()
    place.deliver(runs)
    mine = held().of(place)["online/0"].info.run_id
    runs._client.delete_run(mine)
    place.trial("online/0", [20])
    with pytest.raises(Exception, match=mine):
        place.deliver(runs)
    place.deliver(runs)
    found = held()
    assert found.steps(found.of(place)["online/0"]) == [10, 20]


def test_lost_response_leaves_one_run(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    place = home("a")
    place.trial("online/0")
    runs = place.runs()
    client = runs._client

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def create_run(self, *args: Any, **kwargs: Any) -> Any:
            client.create_run(*args, **kwargs)
            runs._client = client
            raise ConnectionError("the answer was lost")

    runs._client = Losing()
    with pytest.raises(ConnectionError):
        place.deliver(runs)
    place.deliver(runs)
    assert held().of(place).keys() == {"study", "online/0"}
    assert held().deleted == []


def test_delivered_trials_are_recognized_from_the_store(
    home: Callable[..., Any], held: Callable[..., Any], empty_store: Any
) -> None:
    place = home("a")
    for trial, end in (("online/0", "finished"), ("online/1", "failed"), ("baseline/0", "pruned")):
        place.trial(trial, end=end)
    assert undelivered(place.uri, "olfl", place.state) == 4
    runs = place.runs()
    place.deliver(runs)
    assert undelivered(place.uri, "olfl", place.state) == 1  # the parent's
    runs.close({}, status="FINISHED")
    assert undelivered(place.uri, "olfl", place.state) == 0
    assert undelivered(place.uri, "another", place.state) == 4
    shutil.copy(empty_store, place.storage.root.parents[1] / "mlflow.db")
    assert undelivered(place.uri, "olfl", place.state) == 4
    place.deliver(place.runs())
    assert held().of(place).keys() == {"study", "online/0", "online/1", "baseline/0"}


def test_data_in_the_store_are_not_sent_again(home: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    place = home("a")
    place.trial("online/0")
    place.deliver(place.runs())
    runs = place.runs()
    monkeypatch.setattr(runs, "_client", None)
    place.deliver(runs)


@pytest.mark.parametrize("scratch", [0, 1])
def test_retried_trial_has_each_step_once_in_the_same_run(
    home: Callable[..., Any], held: Callable[..., Any], scratch: int
) -> None:
    place = home("a")
    place.trial("online/0", [10], end="failed")
    place.deliver(place.runs())
    before = held().of(place)["online/0"].info.run_id
    place.reopen("online/0", scratch=scratch)
    place.deliver(place.runs())
    place.trial("online/0", [10, 20] if scratch else [20])
    place.deliver(place.runs())
    found = held()
    run = found.of(place)["online/0"]
    assert (run.info.run_id, run.info.status) == (before, "FINISHED")
    assert found.steps(run) == [10, 20]


def test_run_of_a_trial_that_resumes_after_its_end_is_running_again(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    place = home("a")
    place.trial("online/0", [10], end="failed")
    runs = place.runs()
    place.deliver(runs)
    place.reopen("online/0")
    place.trial("online/0", [20], end=None)
    place.deliver(runs)
    found = held()
    run = found.of(place)["online/0"]
    assert (run.info.status, found.steps(run)) == ("RUNNING", [10, 20])


class Server:
    """A client with a server's limits, which a file does not have; it counts what it receives."""

    def __init__(self, client: Any) -> None:
        self._client, self.metrics = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def log_batch(self, run: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert len(metrics) + len(params) + len(tags) <= 1000
        assert len(params) <= 100
        assert metrics or params or tags
        self.metrics += len(metrics)
        self._client.log_batch(run, metrics=metrics, params=params, tags=tags)


@pytest.mark.parametrize("options", [1, 250])
def test_2500_metrics_arrive_once_each_within_a_servers_limits(
    home: Callable[..., Any], held: Callable[..., Any], options: int
) -> None:
    model = {"name": "mlp", **{f"o{index}": index for index in range(options)}}
    place = home("a", task={"dataset": "digits", "model": model})
    place.trial("online/0", [10], metrics=2500)
    runs = place.runs()
    runs._client = Server(runs._client)
    place.deliver(runs)
    data = held().of(place)["online/0"].data
    assert (runs._client.metrics, len(data.metrics)) == (2501, 2501)  # and last/selection_error
    assert {f"task.model.o{index}" for index in range(options)} <= data.params.keys()


def test_sink_delivers_events_and_ends_the_parent(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    place = home("a")
    place.trial("online/0")
    sink = place.sink()
    sink.start(place.state)
    place.trial("online/1", [10], end=None)
    sink.observe(place.ledger.events[-1], place.state)
    place.trial("online/1", [20], end="failed")
    sink.observe(place.ledger.events[-1], place.state)
    assert sink.close({}, status="FINISHED") == 0
    found = held().of(place)
    assert {name: run.info.status for name, run in found.items()} == {
        "study": "FINISHED",
        "online/0": "FINISHED",
        "online/1": "FAILED",
    }
    assert undelivered(place.uri, "olfl", place.state) == 0


def test_refused_run_does_not_block_others_and_is_counted(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    place = home("a")
    for name in ("online/0", "online/1", "online/2"):
        place.trial(name)

    class Refused(Mlflow):
        def deliver(self, trial: Any) -> None:
            if str(trial.id) == "online/0":
                raise ValueError("refused for good")
            super().deliver(trial)

    sink = place.sink(Refused)
    sink._closing.set()  # deliver everything at the end, when each trial is tried once more
    sink.start(place.state)
    assert sink.close({}, status="FINISHED") == 1
    assert sink.problem == "refused for good"
    assert held().of(place).keys() == {"study", "online/1", "online/2"}
    assert undelivered(place.uri, "olfl", place.state) > 0
    again = place.sink()
    again.start(place.state)
    assert again.close({}, status="FINISHED") == 0
    assert undelivered(place.uri, "olfl", place.state) == 0


def test_abandoned_sink_ends_its_thread(home: Callable[..., Any]) -> None:
    place = home("a")
    sink = place.sink()
    sink.start(place.state)
    sink.abandon()
    sink._thread.join(60)
    assert not sink._thread.is_alive()


def test_driver_that_lost_its_study_delivers_nothing_more(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    place = home("a")
    place.trial("online/0", [10], end=None)
    sink = place.sink(fenced=lambda: True)
    sink.start(place.state)
    sink._thread.join(60)
    assert not sink._thread.is_alive()
    assert held().runs == []

"""Every setting of a trial reaches MLflow, whatever its name, its length and their number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.conducting import SPEC

from olfl_ray.tracking.mlflow.settings import CUT, as_params, in_batches

NAMES = [
    "class (1)",
    "a,b",
    "a;b",
    "100%",
    "läuft",
    "日本",
    "a\nb",
    "a//b",
    "../up",
    "/root",
    ".",
    "..",
    "x" * 400,
    "a'b",
]


def test_names_that_mlflow_refuses_are_escaped_and_stay_distinct() -> None:
    from mlflow.utils.validation import _validate_param

    found = as_params({"o": dict.fromkeys(NAMES, 1), **dict.fromkeys(NAMES, 2)})
    assert len(found) == 2 * len(NAMES)
    for key, value in found.items():
        _validate_param(key, value)
        assert re.fullmatch(r"[\w./ :-]+", key), key
    assert as_params({"class (1)": True}) == {"class _x0028_1_x0029_": "true"}
    assert as_params({"learner": {"lr": 0.1, "name": "sgd", "none": None, "empty": {}}}) == {
        "learner.lr": "0.1",
        "learner.name": "sgd",
        "learner.none": "null",
        "learner.empty": "{}",
    }


def test_dot_within_a_name_is_distinguished_from_the_separator() -> None:
    assert as_params({"a.b": 1, "c.d": 3}) == {"a.b": "1", "c.d": "3"}
    assert as_params({"a.b": 1, "a": {"b": 2}}) == {"a_x002e_b": "1", "a.b": "2"}


def test_batches_respect_the_limits_and_lose_nothing() -> None:
    params = {f"p{index}": "v" * (6000 if index % 2 else 1) for index in range(350)}
    portions = list(in_batches(params))
    assert {key: value for portion in portions for key, value in portion.items()} == params
    assert sum(map(len, portions)) == 350
    assert max(map(len, portions)) <= 100
    assert max(len(json.dumps(portion)) for portion in portions) < 166_000
    assert list(in_batches({})) == [{}]


def test_run_has_every_setting_and_refers_to_the_complete_value_of_a_long_one(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    options = {**{f"s{index}": index for index in range(250)}, "class (1)": 1, "a,b": 2, "long": "y" * 9000}
    place = home("a", task={**SPEC["task"], "model": {"name": "mlp", **options}})
    place.trial("online/0")
    place.deliver(place.runs())
    found = held()
    run = found.of(place)["online/0"]
    params = run.data.params
    assert all(params[f"task.model.s{index}"] == str(index) for index in range(250))
    assert (params["task.model.class _x0028_1_x0029_"], params["task.model.a_x002c_b"]) == ("1", "2")
    assert params["task.model.long"].endswith(CUT)
    config = json.loads(Path(found.client.download_artifacts(run.info.run_id, "config.json")).read_text())
    assert config["task"]["model"]["class (1)"] == 1
    assert config["task"]["model"]["long"] == "y" * 9000

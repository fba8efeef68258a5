"""Options next to a name are checked against the settings class of what the name means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.spec import Strict, checked_options, located, parse_spec, read_spec
from olfl_ray.storage import LocalStorage
from olfl_ray.tracking import TrackedStudy, trackers_of


class Config(Strict):
    rate: float = 0.1
    name: str = "x"


def test_valid_options_become_the_settings() -> None:
    assert checked_options(Config, {"rate": 0.5}, "search.sampler") == Config(rate=0.5)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"rat": 0.5}, "part.rat", "'part.rate'"),
        ({"other": 1}, "part.other", "rate, name"),
        ({"rate": "much"}, "part.rate", "'much'"),
        ({"rate": 1, "name": None}, "part.name", "None"),
    ],
)
def test_a_wrong_option_is_refused_with_its_field_and_what_is_near(
    options: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(SpecError) as refused:
        checked_options(Config, options, "part")
    assert refused.value.field == field
    assert words in refused.value.problem


def test_a_list_is_called_a_list() -> None:
    form = type("Form", (Strict,), {"__annotations__": {"layers": tuple[str, ...]}, "layers": ()})
    with pytest.raises(SpecError, match="must be a list, but it is 'weight'"):
        checked_options(form, {"layers": "weight"}, "part")


def test_an_implementation_without_settings_takes_none() -> None:
    with pytest.raises(SpecError, match="none"):
        checked_options(type("Nothing", (Strict,), {}), {"rate": 1}, "part")


SPEC = """name: s
task: {dataset: digits}
search:
  parameters: {}
  sampler:
    name: tpe
    seed: 3
tracking:
  - {name: json_lines}
  - name: mlflow
    url: http://here
"""


@pytest.mark.parametrize(
    ("field", "overrides", "where"),
    [
        ("search.sampler.seed", [], "spec.yaml:7"),
        ("tracking.1.url", [], "spec.yaml:11"),
        ("tracking.1.other", [], "spec.yaml:10"),
        ("search.sampler.seed", ["search.sampler.seed=4"], "--set"),
        ("learner.steps", [], "spec.yaml"),
    ],
)
def test_an_error_found_after_reading_gets_its_line(
    field: str, overrides: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    read_spec("spec.yaml", overrides)  # its form is right
    with pytest.raises(SpecError) as refused, located("spec.yaml", overrides):
        raise SpecError(field, "is wrong; correct it")
    assert (refused.value.field, refused.value.where) == (field, where)


def test_an_option_of_a_tracker_is_refused_with_its_field_and_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    spec = read_spec(tmp_path / "spec.yaml")
    with pytest.raises(SpecError, match=r"tracking\.1\.url: .*'tracking\.1\.uri'"):
        trackers_of(TrackedStudy(spec=spec, storage=LocalStorage(tmp_path), home=tmp_path))


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ({"uri": "http://here", "experiment": "x"}, ["mlflow"]),
        ("json_lines", ["json_lines"]),
        ([], []),
        (["json_lines", {"uri": None}], ["json_lines", "mlflow"]),
    ],
)
def test_trackers_are_one_or_a_list_and_no_part_of_the_digest(written: object, names: list[str]) -> None:
    least = {"name": "s", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
    spec = parse_spec(json.dumps({**least, "tracking": written}).encode())
    assert [named.name for named in spec.tracking] == names
    assert spec.digest == parse_spec(json.dumps(least).encode()).digest

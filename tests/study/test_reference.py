"""docs/complete.yaml is what the settings classes say: every field, its meaning and its default; and it can be read."""

import itertools
import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from olfl_ray.losses import LEARNED
from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.study.reference import complete_yaml, schema

ROOT = Path(__file__).parents[2]
COMPLETE = ROOT / "docs" / "complete.yaml"


def test_the_document_is_up_to_date() -> None:
    assert COMPLETE.read_text() == complete_yaml(), "run: olfl spec complete > docs/complete.yaml"


def test_it_is_read_and_shows_the_defaults() -> None:
    spec = parse_spec(complete_yaml().encode())
    least = StudySpec.model_validate(
        {"name": "digits", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
        | {"arms": json.loads(spec.model_dump_json(by_alias=True))["arms"]}
    )
    assert complete(spec).model_copy(update={"search": least.search}) == complete(least)
    assert spec.search.model_copy(update={"parameters": {}}) == least.search


def missing(model: type[BaseModel], given: dict, prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in given:
            found.append(f"{prefix}{key}")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += missing(field.annotation, given[key], f"{prefix}{key}.")
    return found


def test_it_names_every_field_with_its_meaning() -> None:
    text = complete_yaml()
    given = YAML(typ="safe").load(text)
    assert not missing(StudySpec, given)
    lines = text.splitlines()
    for before, line in itertools.pairwise(lines):
        if line.strip().startswith(("batch_size:", "eta_init:", "custom:", "url:")):
            assert before.strip().startswith("# "), line


@pytest.mark.parametrize("field", ["task.batch_size", "meta.every", "confirm.seeds"])
def test_a_field_that_it_lacks_is_seen(field: str) -> None:
    given = YAML(typ="safe").load(complete_yaml())
    section, name = field.split(".")
    del given[section][name]
    assert missing(StudySpec, given) == [field]


@pytest.mark.parametrize("name", LEARNED.names())
def test_each_learned_loss_is_there_with_the_meanings_of_its_settings(name: str) -> None:
    text = " ".join(complete_yaml().replace("#", " ").split())
    assert f"- {name}: " in text
    for key, field in LEARNED.find(name, "loss.name").Config.model_fields.items():
        assert key in text
        assert " ".join((field.description or "?").split()) in text


@pytest.mark.parametrize(
    ("loss", "fits"),
    [
        ({}, True),
        ("ml3", True),
        ({"hidden": [3], "activation": {"name": "tanh"}}, True),
        ({"name": "ml3", "init": "xavier_uniform", "reduction": "sum"}, True),
        ({"name": "mine:build", "degree": 3}, True),
        ({"hiddn": [3]}, False),
        ({"hidden": ["many"]}, False),
        ({"name": "ml3", "hidden": [3]}, False),
        ({"name": "ml4"}, False),
        ({"name": "mine:build", "reduction": "max"}, False),
    ],
)
def test_the_schema_knows_the_settings_of_each_learned_loss(loss: object, fits: bool) -> None:
    spec = {**YAML(typ="safe").load(complete_yaml()), "loss": loss}
    found = list(jsonschema.Draft202012Validator(schema()).iter_errors(spec))
    assert (not found) == fits, found


SHIPPED = [
    *sorted((ROOT / "sweeps").glob("*.yaml")),
    *sorted((ROOT / "experiments/paper/rows").rglob("*_*.yaml")),
    COMPLETE,
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_specs_are_valid_by_the_schema(path: Path) -> None:
    spec = YAML(typ="safe").load(path.read_text())
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(spec)) == []


@pytest.mark.parametrize(
    ("field", "short", "wrong"),
    [
        ("task.model", "lenet5", 5),
        ("learner.optimizer", "adam", {"name": "adam", "lrr": 1}),
        ("learner.schedule", "cosine", {"name": "cosin"}),
        ("search.sampler", "random", 5),
        ("search.pruner", "median", {"name": "asah"}),
        ("storage", "s3://bucket/studies", {"urls": "x"}),
        ("tracking", "json_lines", [5]),
        ("tracking", ["mlflow", {"name": "json_lines"}], 5),
    ],
)
def test_the_schema_knows_the_short_form_of_a_section(field: str, short: object, wrong: object) -> None:
    for value, fits in ((short, True), (wrong, False)):
        spec = YAML(typ="safe").load(complete_yaml())
        *path, last = field.split(".")
        section = spec
        for key in path:
            section = section[key]
        section[last] = value
        assert (not list(jsonschema.Draft202012Validator(schema()).iter_errors(spec))) == fits, value

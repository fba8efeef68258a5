"""docs/complete.yaml is what the settings classes say: every field, its meaning and its default; and it can be read."""

import itertools
import json
from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.study.reference import complete_yaml

COMPLETE = Path(__file__).parents[2] / "docs" / "complete.yaml"


def test_the_document_is_up_to_date() -> None:
    assert COMPLETE.read_text() == complete_yaml(), "run: olfl spec complete > docs/complete.yaml"


def test_it_is_read_and_shows_the_defaults() -> None:
    spec = parse_spec(complete_yaml().encode())
    least = StudySpec.model_validate(
        {"name": "digits", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
        | {"arms": json.loads(spec.model_dump_json(by_alias=True))["arms"]}
    )
    assert spec.model_copy(update={"search": least.search}) == least
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

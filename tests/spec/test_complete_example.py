"""The documented example is complete: it is valid, it names every field, and it shows each field's default."""

from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from olfl_ray.spec import StudySpec, read_spec

COMPLETE = Path(__file__).parents[2] / "docs" / "complete.yaml"
OTHER = {"task.model", "task.loss", "learner.optimizer"}
"""Fields whose comment says that the default is another."""


def test_it_is_read() -> None:
    spec = read_spec(COMPLETE)
    assert list(spec.arms) == ["baseline", "offline", "online"]
    assert spec.parameters_of("online").keys() == {
        "learner.optimizer.lr",
        "meta.eta_online",
        "loss.activation.gamma",
    }


def test_it_names_every_field() -> None:
    given = YAML(typ="safe").load(COMPLETE)
    assert set(given) == set(StudySpec.model_fields)
    for name, field in StudySpec.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            wanted = {inner.alias or key for key, inner in model.model_fields.items()}
            assert set(given[name]) == wanted, name


@pytest.mark.parametrize(
    "section",
    ["task", "learner", "loss", "meta", "eval", "confirm", "resources", "budget", "checkpoint", "storage"],
)
def test_what_it_shows_is_the_default(section: str) -> None:
    spec = read_spec(COMPLETE)
    least = StudySpec.model_validate(
        {"name": "x", "task": {"dataset": "digits"}, "search": {"parameters": {}}, "arms": spec.model_dump()["arms"]}
    )
    shown, default = (getattr(one, section).model_dump() for one in (spec, least))
    for name, value in shown.items():
        if f"{section}.{name}" not in OTHER:
            assert value == default[name], f"{section}.{name}"

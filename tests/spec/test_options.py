"""Options next to a name are checked against the settings class of what the name means."""

from __future__ import annotations

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.spec import Strict, checked_options


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


def test_an_implementation_without_settings_takes_none() -> None:
    with pytest.raises(SpecError, match="none"):
        checked_options(type("Nothing", (Strict,), {}), {"rate": 1}, "part")

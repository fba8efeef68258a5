"""From a spec and a point of its search to a trial's settings: dotted fields, new names, conditions, errors."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.spec import Parameter, StudySpec, active, base_values, get_dotted, seed_of, trial_config
from olfl_ray.spec.points import dotted, field_of, plain, require_trial_field, set_dotted


def spec(**changes: Any) -> StudySpec:
    whole = {
        "name": "s",
        "task": {"dataset": "digits"},
        "learner": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
        "arms": {"online": {"trials": 1, "set": {"learner.steps": 7}}},
        "search": {"parameters": {}},
        "seed": 3,
    }
    return StudySpec.model_validate({**whole, **changes})


def test_a_seed_follows_from_its_parts_and_fits_in_31_bits() -> None:
    digest = hashlib.sha256(b"(3, 'search', 0)").digest()
    assert seed_of(3, "search", 0) == int.from_bytes(digest[:4], "big") >> 1
    seeds = {seed_of(*parts) for parts in [(3, "search", 0), (3, "search", 1), (4, "search", 0), (3, "confirm", 0)]}
    assert len(seeds) == 4
    assert all(0 <= seed_of(number) < 2**31 for number in range(200))
    assert max(seed_of(number) for number in range(200)) > 2**30


def test_a_dotted_field_is_found_or_is_a_key_error() -> None:
    data = {"a": {"b": {"c": 1}, "list": [1]}}
    assert get_dotted(data, "a.b.c") == 1
    assert get_dotted(data, "a.b") == {"c": 1}
    for field in ("a.x", "a.b.c.d", "x", "a.list.0"):
        with pytest.raises(KeyError, match=field):
            get_dotted(data, field)


def test_setting_a_field_makes_the_sections_on_its_way_and_keeps_its_neighbours() -> None:
    data: dict[str, Any] = {"learner": {"steps": 5}}
    set_dotted(data, "learner.optimizer.lr", 0.1)
    assert data == {"learner": {"steps": 5, "optimizer": {"lr": 0.1}}}
    data = {"task": {"dataset": "digits"}}
    set_dotted(data, "task.dataset.options", {"rows": 3})
    assert data == {"task": {"dataset": {"name": "digits", "options": {"rows": 3}}}}
    with pytest.raises(SpecError, match=r"^learner\.steps\.x: `steps` is not a section"):
        set_dotted({"learner": {"steps": 5}}, "learner.steps.x", 1)


def test_a_set_value_is_a_copy() -> None:
    value = {"hidden": [4]}
    data: dict[str, Any] = {"task": {}}
    set_dotted(data, "task.model", value)
    set_dotted(data, "task.model.hidden", [8])
    assert value == {"hidden": [4]}


@pytest.mark.parametrize(
    ("section", "before", "name", "kept"),
    [
        ("learner.optimizer", {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "adam", {"lr": 0.1}),
        ("learner.optimizer", {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "sgd", {"lr": 0.1, "momentum": 0.9}),
        ("learner.optimizer", {"name": "adam", "lr": 0.1, "beta1": 0.8}, "adamw", {"lr": 0.1, "beta1": 0.8}),
        ("learner.schedule", {"name": "cosine", "final": 0.1}, "constant", {}),
        ("loss.activation", {"name": "smooth_leaky_relu", "gamma": 0.1}, "tanh", {}),
        ("task.model", {"name": "mlp", "hidden": [4]}, "lenet5", {"hidden": [4]}),
        (
            "loss",
            {"name": "mlp", "hidden": [4], "reduction": "sum", "from": "x"},
            "ml3",
            {"reduction": "sum", "from": "x"},
        ),
        ("loss", {"hidden": [4], "reduction": "sum"}, "ml3", {"reduction": "sum"}),
        ("loss", {"hidden": [4], "reduction": "sum"}, "mlp", {"hidden": [4], "reduction": "sum"}),
    ],
)
def test_a_new_name_drops_the_settings_that_its_kind_does_not_have(
    section: str, before: dict[str, Any], name: str, kept: dict[str, Any]
) -> None:
    data: dict[str, Any] = {}
    set_dotted(data, section, before)
    set_dotted(data, f"{section}.name", name)
    assert get_dotted(data, section) == {"name": name, **kept}


def test_an_arms_own_settings_come_before_its_search_and_outer_ones_before_inner() -> None:
    fields = {
        "learner.optimizer.lr": 0.5,
        "learner.optimizer.name": "adam",
        "learner.optimizer": {"name": "sgd", "lr": 0.2},
    }
    own = spec(arms={"online": {"trials": 1, "set": fields}})
    found = base_values(own, "online")
    assert set(found) == {"task", "learner", "loss", "meta", "eval"}
    assert (found["learner"]["optimizer"]["name"], found["learner"]["optimizer"]["lr"]) == ("adam", 0.5)
    assert base_values(spec(), "online")["learner"]["steps"] == 7
    params = {"learner.optimizer.lr": 0.3, "learner.optimizer.name": "adamw", "learner.steps": 9}
    config = trial_config(own, "online", params, seeds=(1, 2), confirming=True)
    assert (config.learner.optimizer.name, config.learner.optimizer.lr, config.learner.steps) == ("adamw", 0.3, 9)
    assert (config.seeds, config.confirming, config.study_seed) == ((1, 2), True, 3)
    assert not trial_config(own, "online", {}, seeds=(1,)).confirming


def test_parameters_are_active_where_all_their_conditions_hold() -> None:
    parameters = {
        name: Parameter.model_validate({"min": 0.1, "max": 0.2, "when": when})
        for name, when in {
            "always": {},
            "searched": {"kind": "a"},
            "fixed": {"learner.steps": 7},
            "both": {"kind": "a", "learner.steps": 8},
            "nowhere": {"no.such.field": 1},
            "last": {"kind": "b"},
        }.items()
    }
    base = {"learner": {"steps": 7}, "kind": "b"}
    assert active(parameters, {"kind": "a"}, base) == ["always", "searched", "fixed"]
    assert active(parameters, {}, base) == ["always", "fixed", "last"]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"learner.steps": 0}, r"^arms\.online: learner\.steps: .*greater than.*0 \(int\)"),
        ({"learner.stepz": 1}, r"^arms\.online: learner\.stepz: there is no such field"),
        ({"task": {"model": "mlp"}}, r"^arms\.online: task\.dataset: .*required"),
        ({"learner.optimizer.lr": "x" * 200}, r"learner\.optimizer\.lr: .*, but it is 'x{76}\.\.\. \(str\)$"),
        ({"learner.optimizer.lr": "x" * 78}, r"learner\.optimizer\.lr: .*, but it is 'x{78}' \(str\)$"),
    ],
)
def test_a_point_that_does_not_fit_is_named_with_its_field_value_and_rule(params: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        trial_config(spec(), "online", params, seeds=(0,))


@pytest.mark.parametrize("field", ["learner", "search.metric", "arms.x", "nonsense"])
def test_a_field_outside_a_trials_sections_is_refused(field: str) -> None:
    with pytest.raises(SpecError, match=r"^there: there is no field .* in a trial"):
        require_trial_field("there", field)
    require_trial_field("there", "learner.steps")


def test_a_name_is_set_before_the_settings_next_to_it() -> None:
    own = spec(arms={"online": {"trials": 1, "set": {"loss.hidden": [8], "loss.name": "ml3"}}})
    assert base_values(own, "online")["loss"] == {**base_values(spec(), "online")["loss"], "name": "ml3", "hidden": [8]}


def test_an_errors_field_follows_dicts_and_lists_but_not_union_members() -> None:
    data = {"a": [{"x": 1}, {"x": 2}]}
    assert dotted(("a", 1, "Member", "x"), data, missing=False) == "a.1.x"
    assert dotted(("a", 2, "x"), data, missing=False) == "a"
    assert dotted(("a", 1, "y"), data, missing=True) == "a.1.y"


def test_a_field_is_named_where_the_arm_or_the_study_has_it() -> None:
    assert field_of(spec(), "online", "learner.steps") == "arms.online.set.learner.steps"
    assert field_of(spec(), "online", "learner.optimizer.lr") == "learner.optimizer.lr"
    section = spec(arms={"online": {"trials": 1, "set": {"learner.optimizer": {"name": "adam", "lr": 0.1}}}})
    assert field_of(section, "online", "learner.optimizer.lr") == "arms.online.set.learner.optimizer"
    assert field_of(spec(), "online", "learner") == "arms.online.set.learner.steps", "which lies in it"


def test_an_arm_sets_fields_of_a_trial_only() -> None:
    own = spec().model_copy(update={"arms": {"online": spec().arms["online"].model_copy(update={"set": {"seed": 3}})}})
    with pytest.raises(SpecError, match="there is no field 'seed' in a trial") as caught:
        base_values(own, "online")
    assert caught.value.field == "arms.online.set.seed"


def test_an_unknown_name_drops_nothing_and_is_reported_later() -> None:
    data: dict[str, Any] = {"learner": {"optimizer": {"name": "sgd", "lr": 0.1}}}
    set_dotted(data, "learner.optimizer.name", "adm")
    assert data == {"learner": {"optimizer": {"name": "adm", "lr": 0.1}}}


def test_an_arms_values_are_plain_data() -> None:
    values = base_values(spec(task={"dataset": "digits", "model": {"name": "mlp", "hidden": [4]}}), "online")
    assert json.loads(json.dumps(values)) == values
    metrics = base_values(spec(task={"dataset": "digits", "metrics": ["mine:one"]}), "online")["task"]["metrics"]
    assert isinstance(metrics, list)


def test_a_rule_of_our_own_is_said_as_it_is_written() -> None:
    assert plain({"type": "value_error", "msg": "Value error, must increase", "input": 3}) == "must increase"

"""Every mistake in a spec is one message with its file, line, field, value and rule."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from olfl_ray.errors import SpecError
from olfl_ray.spec import StudySpec, parse_spec, read_spec, resolve_search

GOOD = (Path(__file__).parent / "whole.yaml").read_text()
BAD = {
    "unknown key": (GOOD.replace("replicates: 3", "replicats: 3"), "replicats: there is no such field"),
    "wrong type": (GOOD.replace("steps: 1500", "steps: many"), "learner.steps: Input should be a valid integer"),
    "min above max": (GOOD.replace("min: 0.003", "min: 3.0"), "`min < max` must hold, but min=3.0, max=0.3"),
    "log range with 0": (GOOD.replace("min: 0.003", "min: 0.0"), "needs `min > 0`, but min=0.0"),
    "no such field": (GOOD.replace("learner.optimizer.lr:", "learner.optimizer.lrr:"), "did you mean"),
    "when that can't hold": (
        GOOD.replace("loss.activation.name: smooth", "loss.activation.name: xsmooth"),
        "is fixed at 'smooth_leaky_relu'",
    ),
    "arm without trials": (GOOD.replace("baseline}, trials: 8}", "baseline}}"), "arms.baseline.trials: this field"),
    "no such optimizer": (
        GOOD.replace("optimizer: {name: sgd", "optimizer: {name: sgdd"),
        "learner.optimizer: there is no 'sgdd' (did you mean 'sgd'?); use one of adam",
    ),
    "an optimizer that is a number": (
        GOOD.replace(
            "optimizer: {name: sgd, lr: 0.05, momentum: 0.9, nesterov: false, weight_decay: 0.0}", "optimizer: 3"
        ),
        "learner.optimizer: must be a name, or a section with a name and its settings, but it is 3",
    ),
    "a setting of another optimizer": (
        GOOD.replace("optimizer: {name: sgd", "optimizer: {beta1: 0.5, name: sgd"),
        "learner.optimizer.beta1: there is no such field; remove it or correct its name (it belongs to another `name`",
    ),
    "empty": ("", "is empty"),
    "only spaces": ("  \n ", "is empty"),
    "a list": ("- 1\n- 2\n", "must be a mapping"),
    "tabs": ("name:\n\tx: 1\n", "not tabs"),
    "alias of itself": ("a: &a [*a]", "an alias in it contains itself"),
    "deep": ("[" * 2000, "is not valid YAML"),
    "twice the same key": ("name: a\nname: b\n", "duplicate key"),
    "one and a half GPUs": (
        GOOD.replace("gpu: 0,", "gpu: 1.5,"),
        "resources: gpu: above 1 Ray takes only whole numbers",
    ),
    "a crumb of a GPU": (GOOD.replace("gpu: 0,", "gpu: 1.0e-6,"), "resources: gpu: Ray takes no less than 0.0001"),
    "a part of a custom resource": (
        GOOD.replace("custom: {}", "custom: {x: 2.5}"),
        "custom.x: above 1 Ray takes only whole",
    ),
    "GPUs as a custom resource": (GOOD.replace("custom: {}", "custom: {GPU: 1}"), "set it by its own field"),
    "one value twice, spelled otherwise": (
        GOOD.replace("lr: {min: 0.003, max: 0.3, log: true}", "lr: {values: [0, 0.1, 0.0]}"),
        "appears twice",
    ),
    "one section twice, spelled otherwise": (
        GOOD.replace(
            "learner.optimizer.lr: {min: 0.003, max: 0.3, log: true}", "learner.optimizer: {values: [sgd, {name: sgd}]}"
        ),
        "are the same",
    ),
    "one for true": (
        GOOD.replace("optimizer.lr: {min: 0.003, max: 0.3, log: true}", "deterministic: {values: [1, false]}"),
        "valid boolean",
    ),
    "a field in the wrong section": (
        GOOD.replace("  steps: 1500", "  lr: 0.1"),
        "(did you mean 'learner.optimizer.lr'?)",
    ),
    "a searched field in the wrong section": (
        GOOD.replace("learner.optimizer.lr:", "learner.lr:"),
        "'learner.optimizer.lr'",
    ),
    "a set field in the wrong section": (
        GOOD.replace("set: {learner.method: online}", "set: {learner.lr: 0.1}"),
        "(did you mean 'learner.optimizer.lr'?)",
    ),
    "a searched field outside of a trial": (GOOD.replace("learner.optimizer.lr:", "lr:"), "'learner.optimizer.lr'"),
    "a field of an arm": (
        GOOD.replace("baseline}, trials: 8}", "baseline}, trials: 8, trails: 8}"),
        "'arms.baseline.trials'",
    ),
    "a value twice": (GOOD.replace("[250, 500, 1000, 2000]", "[250, 500, 250]"), "but 250 appears twice"),
    "a number that is none": (GOOD.replace("hidden: [128]", "x: .nan"), "task.model.x: must be a finite number"),
    "an infinite option": (
        GOOD.replace("  init: kaiming_normal", "  init: [.inf]"),
        "loss.init.0: must be a finite",
    ),
    "bytes": (GOOD.replace("hidden: [128]", "x: !!binary gIGC"), "task.model.x: is a bytes, but must be"),
    "a day": (GOOD.replace("hidden: [128]", "x: 2024-01-01"), "task.model.x: is a date, but must be"),
    "half a character": (
        GOOD.replace("hidden: [128]", r'x: "\ud800"'),
        "task.model.x: contains an incomplete character",
    ),
    "a number as key": (GOOD.replace("hidden: [128]", "x: {1: 2}"), "task.model.x: its key 1 (int) must be a string"),
    "more steps than there can be": (
        GOOD.replace("steps: 1500", f"steps: {10**30}"),
        "less than or equal to 1000000000",
    ),
    "an end of 400 digits": (
        GOOD.replace("max: 0.3, log: true}\n", f"max: {10**400}, log: true}}\n", 1),
        "1e15, but `max` does not",
    ),
    "an unheard-of concurrency": (GOOD.replace("concurrency: 2", "concurrency: 1000000"), "equal to 10000, but it is"),
    "unheard-of memory": (GOOD.replace("memory: null", f"memory: {10**400}"), "resources.memory: Input should be less"),
    "a year of Methuselah": (
        GOOD.replace("trial_seconds: null", "trial_seconds: 1.0e300"),
        "budget.trial_seconds: Input",
    ),
    "endless": ("#" * 1_000_001, "is longer than 1000000 bytes"),
    "a metric without its split": (
        GOOD.replace("metric: selection/error", "metric: error"),
        "metric: must be selection/",
    ),
    "a searched value of another type": (
        GOOD.replace("lr: {min: 0.003, max: 0.3, log: true}", "nesterov: {values: [0, 1]}"),
        "search.parameters.learner.optimizer.nesterov: Input",
    ),
    "a path as name": (GOOD.replace("name: digits", "name: ../up", 1), "name: must be a name"),
}


@pytest.mark.parametrize("kind", BAD)
def test_mistake_is_one_clear_message(kind: str) -> None:
    text, wanted = BAD[kind]
    with pytest.raises(SpecError) as caught:
        parse_spec(text.encode(), source="x.yaml")
    assert wanted in str(caught.value)
    assert str(caught.value).startswith("x.yaml")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"name: \x00", bytes(range(256))])
def test_binary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SpecError):
        parse_spec(data)


def test_message_names_the_line() -> None:
    line = 1 + GOOD[: GOOD.index("  steps:")].count("\n")
    with pytest.raises(SpecError, match=rf"^x\.yaml:{line}: learner\.steps"):
        parse_spec(BAD["wrong type"][0].encode(), source="x.yaml")


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    assert read_spec(path, ["learner.steps=7"]).learner.steps == 7
    with pytest.raises(SpecError, match=r"learner\.stepps"):
        read_spec(path, ["learner.stepps=7"])


@pytest.mark.parametrize(
    ("overrides", "name", "wanted"),
    [
        (["learner.steps=many"], None, "--set: learner.steps: Input should be a valid integer"),
        (["learner.optimizer={name: sgd, nesterov: true}"], None, "--set: learner.optimizer: nesterov=true needs"),
        (["learner.optimizer.momentum=0.0", "learner.optimizer.nesterov=true"], None, "--set: learner.optimizer: nest"),
        ([], "../up", "--name: must be a name of 1 to 64 letters"),
        (["name=\udcff"], None, r"--set: 'name=\udcff' is not text in UTF-8"),
        (
            ["search.parameters.learner.optimizer.lr.min=1.0"],
            None,
            "--set: search.parameters.learner.optimizer.lr: `min",
        ),
        (["arms.online.set.learner.stepps=5"], None, "--set: arms.online"),
        (["arms.onlin.trials=3"], None, "--set arms.onlin.trials: there is no arm 'onlin' (did you mean 'online'?); "),
    ],
)
def test_a_mistake_of_the_command_line_is_not_put_on_the_files_lines(
    overrides: list[str], name: str | None, wanted: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(GOOD.encode(), source="x.yaml", overrides=overrides, name=name)
    assert str(caught.value).startswith(wanted)


def test_a_mistake_of_the_file_keeps_its_line_beside_overrides() -> None:
    with pytest.raises(SpecError, match=r"^x\.yaml:\d+: learner\.steps"):
        parse_spec(BAD["wrong type"][0].encode(), source="x.yaml", overrides=["seed=1"], name="y")


def test_fields_of_arms_that_are_there_can_be_set() -> None:
    assert parse_spec(GOOD.encode(), overrides=["arms.online.trials=3"]).arms["online"].trials == 3
    assert parse_spec(GOOD.encode(), overrides=["arms.new={trials: 2}"]).arms["new"].trials == 2
    least = b"{name: x, task: {dataset: digits}, search: {parameters: {}}}"
    assert parse_spec(least, overrides=["arms.online.trials=3"]).arms["online"].trials == 3


def test_searched_and_set_fields_are_overridden_by_their_dotted_names() -> None:
    overrides = [
        "search.parameters.learner.optimizer.lr.min=0.02",
        "arms.online.parameters.meta.eta_online.values=[1.0e-4, 1.0e-5]",
        "arms.online.parameters.meta.eta_online.min=null",
        "arms.online.parameters.meta.eta_online.max=null",
        "arms.online.parameters.meta.eta_online.log=false",
        "arms.offline.parameters.loss.bias={values: [true, false]}",
        "arms.online.set.learner.steps=5",
        "search.pruner.min_steps=7",
    ]
    spec = parse_spec(GOOD.encode(), overrides=overrides)
    assert spec.search.parameters["learner.optimizer.lr"].min == 0.02
    assert spec.search.parameters["learner.optimizer.lr"].max == 0.3
    assert spec.arms["online"].parameters["meta.eta_online"].values == (1e-4, 1e-5)
    assert spec.arms["offline"].parameters["loss.bias"].values == (True, False)
    assert spec.arms["online"].set == {"learner.method": "online", "learner.steps": 5}
    assert spec.search.pruner.min_steps == 7
    renamed = GOOD.replace("  online:\n", "  on.line:\n").encode()
    assert parse_spec(renamed, overrides=["arms.on.line.trials=3"]).arms["on.line"].trials == 3


def test_true_and_one_are_two_values() -> None:
    text = GOOD.replace("[250, 500, 1000, 2000]", "[1, 2]")
    search = "search.parameters={loss.bias: {values: [true, false]}, learner.steps: {values: [1, 2]}}"
    assert parse_spec(text.encode(), overrides=[search]).search.parameters["loss.bias"].values == (True, False)


def test_digest_covers_results_only() -> None:
    spec = parse_spec(GOOD.encode())
    same = ["name: digits", "concurrency: 2", "confirm: {seeds: 10}", "{learner.method: baseline}, trials: 8"]
    for part, other in zip(
        same, ["name: x", "concurrency: 1", "confirm: {seeds: 3}", "{learner.method: baseline}, trials: 9"], strict=True
    ):
        assert part in GOOD
        assert parse_spec(GOOD.replace(part, other).encode()).digest == spec.digest
    assert parse_spec(GOOD.replace("seed: 0", "seed: 1").encode()).digest != spec.digest


def test_a_spec_made_in_python_is_resolved_like_one_that_is_read() -> None:
    text = GOOD.replace("lr: {min: 0.003, max: 0.3, log: true}", "lr: {values: [1, 0.1]}")
    read = parse_spec(text.encode())
    made = StudySpec.model_validate(YAML(typ="safe", pure=True).load(text))
    assert made.digest != read.digest
    assert resolve_search(made).digest == read.digest == resolve_search(read).digest


@pytest.mark.parametrize("field", ["learner.method", "learner.method.name"])
def test_a_field_that_an_arm_sets_itself_can_not_be_overridden_for_all(field: str) -> None:
    with pytest.raises(SpecError, match=r"arms\.baseline\.set\.learner\.method"):
        parse_spec(GOOD.encode(), overrides=[f"{field}=offline"])
    spec = parse_spec(GOOD.encode(), overrides=["arms.online.set.learner.method=offline"])
    assert spec.arms["online"].set["learner.method"] == "offline"

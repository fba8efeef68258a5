"""The shipped sweeps are valid: their schema, and, if their data set is available, their values."""

from pathlib import Path

import pytest
import yaml

from olfl_ray.spec import parse_spec, read_spec, trial_config
from olfl_ray.trial import TrialEnvironment, check

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
SPECS = [*SWEEPS, *sorted((ROOT / "experiments" / "paper" / "rows").rglob("*_*.yaml")), ROOT / "docs" / "complete.yaml"]
BUNDLED = ("diabetes", "digits")


def test_these_are_the_sweeps() -> None:
    assert [path.stem for path in SWEEPS] == [
        "cifar10_allcnnc",
        "diabetes",
        "diabetes_taylor",
        "digits",
        "dosa_yeast",
        "dosa_yeast_blocks",
        "evomal_diabetes",
        "evomal_digits",
        "meta_sparsity_digits",
        "mnist_lenet5",
        "multilabel_emotions",
        "multitask_digits",
    ]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_each_arm_fits_its_data(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    spec = read_spec(
        path, ["resources.gpu=0", "task.batch_size=8"]
    )  # of any size the parts fit, and a small one is quick
    assert spec.name == path.stem
    bundled = spec.task.dataset.name in BUNDLED
    place = TrialEnvironment(cache=tmp_path, data_root=None if bundled else request.getfixturevalue("olfl_data"))
    for arm in spec.arms:
        check(trial_config(spec, arm, {}, seeds=(spec.seed,)), place)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_is_what_its_file_says_before_and_after_trials_are_made_of_it(path: Path) -> None:
    spec, written = read_spec(path), yaml.safe_load(path.read_text())
    before = spec.digest
    for arm in spec.arms:
        assert spec.arms[arm].set == written["arms"][arm].get("set", {})
        for end in (0, -1):
            point = {field: one.extremes()[end] for field, one in spec.parameters_of(arm).items() if not one.when}
            trial_config(spec, arm, point, seeds=(0,))
    assert spec == read_spec(path)
    assert spec.digest == before


def test_the_spec_that_the_readme_shows_is_the_demos_shortened() -> None:
    text = (ROOT / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    shown, demo = parse_spec(text.encode(), source="README.md"), read_spec(ROOT / "sweeps" / "digits.yaml")
    for section in ("name", "learner", "replicates", "confirm"):
        assert getattr(shown, section) == getattr(demo, section)
    for arm in shown.arms:
        assert shown.arms[arm].set == demo.arms[arm].set
        assert shown.arms[arm].trials == demo.arms[arm].trials
        assert shown.arms[arm].parameters.items() <= demo.arms[arm].parameters.items()


def test_a_point_inside_a_section_that_an_arm_sets_does_not_leak_into_the_next_trial() -> None:
    spec = parse_spec(
        b"""
        name: leak
        task: {dataset: digits}
        search: {parameters: {}}
        arms:
          only:
            set: {learner.method: focal, learner.options: {gamma: 2.0}}
            trials: 2
            parameters: {learner.options.gamma: {min: 0.5, max: 5.0}}
        """,
        source="here",
    )
    searched = trial_config(spec, "only", {"learner.options.gamma": 4.0}, seeds=(0,))
    own = trial_config(spec, "only", {}, seeds=(0,))
    assert [searched.learner.options, own.learner.options] == [{"gamma": 4.0}, {"gamma": 2.0}]


def test_what_an_arm_sets_does_not_depend_on_the_order_of_writing() -> None:
    fields = {"learner.optimizer.momentum": 0.9, "learner.optimizer.name": "sgd", "learner.optimizer": {"name": "adam"}}
    configs = []
    for order in (list(fields), list(fields)[::-1]):
        spec = parse_spec(
            yaml.safe_dump(
                {
                    "name": "order",
                    "task": {"dataset": "digits"},
                    "search": {"parameters": {}},
                    "arms": {"only": {"trials": 1, "set": {field: fields[field] for field in order}}},
                },
                sort_keys=False,
            ).encode(),
            source="here",
        )
        configs.append(trial_config(spec, "only", {}, seeds=(0,)))
    assert configs[0] == configs[1]
    assert configs[0].learner.optimizer.momentum == 0.9

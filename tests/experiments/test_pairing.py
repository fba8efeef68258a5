"""Methods of a row differ by nothing but the method: the same split, initial weights and batches of each seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.paper import study_of
from olfl_ray import data
from olfl_ray.spec import StudySpec, seed_of, trial_config
from olfl_ray.trial import TrialEnvironment
from olfl_ray.trial.build import Replicate, build_replicate

FOLDER = Path(__file__).parents[2] / "experiments" / "paper" / "rows"
BUNDLED = {"diabetes": "diabetes", "mnist_logistic": "digits", "mnist_mlp": "digits"}
"""Row -> a data set that is at hand everywhere, in the place of its own."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    """Prepared data sets, shared."""
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def replicates(spec: StudySpec, place: TrialEnvironment) -> dict[str, Replicate]:
    """Each arm's replicate of the first reported seed."""
    seed = seed_of(spec.seed, "confirm", 0)
    dataset = data.load(spec.task.dataset.name, {}, cache=place.cache, root=None)
    configs = {arm: trial_config(spec, arm, {}, seeds=(seed,), confirming=True) for arm in spec.arms}
    return {arm: build_replicate(config, place, dataset, seed) for arm, config in configs.items()}


@pytest.mark.parametrize("row", BUNDLED)
def test_the_same_seed_is_the_same_start_and_the_same_batches_in_every_method(
    row: str, place: TrialEnvironment
) -> None:
    built = replicates(
        study_of(row, folder=FOLDER, settings="fixed", scale="full", overrides=[f"task.dataset={BUNDLED[row]}"]), place
    )
    baseline = built["baseline"]
    for arm, replicate in built.items():
        for name, value in baseline.start.theta.items():
            assert torch.equal(value, replicate.start.theta[name]), arm
        for split in ("selection", "test"):
            x, y = replicate.data.evaluation(split)
            assert x.shape == baseline.data.evaluation(split)[0].shape, arm
            if arm != "more_data":  # its scalers see more rows
                assert torch.equal(x, baseline.data.evaluation(split)[0]), arm
                assert torch.equal(y, baseline.data.evaluation(split)[1]), arm
        for step in (0, 1, 300):
            same = torch.equal(
                replicate.data.batch("train", "train", step)[0], baseline.data.batch("train", "train", step)[0]
            )
            assert same == (arm != "more_data"), arm
    learned = [built[arm] for arm in ("offline", "online")]
    for name, value in learned[0].start.phi.items():
        assert torch.equal(value, learned[1].start.phi[name])
    assert torch.equal(*(one.data.batch("init_meta", "meta", 7)[0] for one in learned))
    assert torch.equal(learned[0].rebuild(5).state_dict().popitem()[1], learned[1].rebuild(5).state_dict().popitem()[1])


def test_trained_on_train_and_meta_joins_those_examples_and_touches_no_other(place: TrialEnvironment) -> None:
    dataset = data.load("diabetes", {}, cache=place.cache, root=None)
    apart = data.split(dataset, study_seed=0, seed=1, test=0.2, meta=0.1, selection=0.1)
    assert torch.equal(apart.trained_on(("train",)).train, apart.train)
    joined = apart.trained_on(("train", "meta"))
    assert joined.train.tolist() == sorted([*apart.train.tolist(), *apart.meta.tolist()])
    assert torch.equal(joined.selection, apart.selection)
    assert torch.equal(joined.test, apart.test)

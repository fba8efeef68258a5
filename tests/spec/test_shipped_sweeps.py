"""The sweeps that ship are whole: their form holds, and with their data set so does their substance."""

from pathlib import Path

import pytest

from olfl_ray.spec import read_spec, trial_config
from olfl_ray.trial import Place, check

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
BUNDLED = ("diabetes", "digits")


def test_there_are_the_four_sweeps() -> None:
    assert [path.stem for path in SWEEPS] == ["cifar10_allcnnc", "diabetes", "digits", "mnist_lenet5"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_each_arm_fits_its_data(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    spec = read_spec(path, ["resources.gpu=0"])
    assert spec.name == path.stem
    bundled = spec.task.dataset.name in BUNDLED
    place = Place(cache=tmp_path, data_root=None if bundled else request.getfixturevalue("olfl_data"))
    for arm in spec.arms:
        check(trial_config(spec, arm, {}, seeds=(spec.seed,)), place)

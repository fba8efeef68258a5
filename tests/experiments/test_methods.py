"""The benchmarks' own methods: another trial's losses in turn, and the examples of two splits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from olfl_ray.errors import SpecError
from olfl_ray.ledger import Commit, Ledger, write_commit
from olfl_ray.spec import TrialConfig
from olfl_ray.storage import open_storage
from olfl_ray.testing import MethodContract
from olfl_ray.trial import Progress, TrialEnvironment, check, run
from olfl_ray.trial.build import build_replicate, load_data
from olfl_ray.worker import KeptLosses

SOURCE = "source/online/0"
REPLAY, MORE_DATA = "experiments.paper.methods:Replay", "experiments.paper.methods:MoreData"


class TestMoreData(MethodContract):
    name = MORE_DATA


def config(method: str, steps: int, **loss: object) -> TrialConfig:
    settings = {
        "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}, "batch_size": 16},
        "learner": {"method": method, "steps": steps, "optimizer": {"name": "sgd", "lr": 0.1}},
        "meta": {"init_steps": 5, "eta_online": 1e-2},
        "eval": {"every": 2},
        "loss": loss,
        "seeds": [1],
    }
    return TrialConfig.model_validate(settings)


def phi(progress: Progress) -> torch.Tensor:
    return torch.cat([value.flatten() for value in progress.state.replicates[0].learner.phi.values()])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialEnvironment, dict[int, torch.Tensor]]:
    """A finished online trial of 12 steps that committed every 4, and its phi after each commit."""
    folder = tmp_path_factory.mktemp("home")
    place = TrialEnvironment(cache=folder / "cache", losses=KeptLosses(studies=folder / "studies"))
    storage = open_storage(folder / "studies" / "source")
    Ledger.create(storage, {}, "digest", "source", {})
    kept, parent = {}, None
    for progress in run(config("online", 12), place):
        if progress.state.step % 4 == 0 and progress.state.step > 0:
            commit = Commit(
                trial="online/0",
                attempt=1,
                position=progress.state.position,
                step=progress.state.step,
                outcome=progress.outcome,
                report={},
                parent=parent,
            )
            parent = write_commit(storage, commit, {**progress.files, "state.safetensors": b""}).key
            kept[progress.state.step] = phi(progress)
    assert list(kept) == [4, 8, 12]
    return place, kept


def test_each_phi_is_used_in_its_part_of_the_training(
    recorded: tuple[TrialEnvironment, dict[int, torch.Tensor]],
) -> None:
    place, kept = recorded
    replayed = list(run(config(REPLAY, 24, **{"from": SOURCE}), place))
    for progress in replayed:
        began = progress.state.step - 2
        assert torch.equal(phi(progress), kept[4 if began < 16 else 8]), (
            "of twice the steps, from step 16 on the second"
        )
    final = list(run(config("offline", 24, **{"from": SOURCE}), place))
    assert all(torch.equal(phi(progress), kept[12]) for progress in final)


@pytest.mark.parametrize(
    ("loss", "says"),
    [({}, "STUDY/ARM/ORDINAL"), ({"from": "source/online/3"}, "no trial 'online/3'")],
)
def test_replay_without_a_recording_is_refused(
    loss: dict[str, object], says: str, recorded: tuple[TrialEnvironment, dict[int, torch.Tensor]]
) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        check(config(REPLAY, 8, **loss), recorded[0])
    assert caught.value.field == "loss.from"


def test_replay_of_a_file_is_refused(
    recorded: tuple[TrialEnvironment, dict[int, torch.Tensor]], tmp_path: Path
) -> None:
    place, _ = recorded
    for name, content in list(run(config("online", 12), place))[-1].files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=r"^loss\.from: .*a file has only one loss"):
        check(config(REPLAY, 8, **{"from": str(tmp_path)}), place)


def test_more_data_trains_on_what_phi_would_be_learned_on(
    recorded: tuple[TrialEnvironment, dict[int, torch.Tensor]],
) -> None:
    place, _ = recorded
    plain, more = (check(config(method, 8), place) for method in ("baseline", MORE_DATA))
    assert list(plain.code) == []
    assert (plain.learns, more.learns) == (False, False)
    assert check(config(REPLAY, 8, **{"from": SOURCE}), place).learns
    assert list(more.code) == ["experiments.paper.methods"], "a change of its code is noticed"
    dataset = load_data(config("baseline", 8), place)
    own, joined = (build_replicate(config(method, 8), place, dataset, 1).data for method in ("baseline", MORE_DATA))
    count = [len(part.targets("train")) for part in (own, joined)]
    assert count[1] == count[0] + len(own.targets("meta"))

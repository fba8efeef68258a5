"""Files that were fetched hold data: a builder that a learned loss, a commit or a ledger names runs where its reader allows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from support.commands import SUPPORT, Run

from olfl_ray import load_loss
from olfl_ray.errors import DataError, SpecError, UserError
from olfl_ray.ledger import Commit, Ledger, Proposed, write_commit
from olfl_ray.plugins import allows, load_builder
from olfl_ray.spec import parse_spec
from olfl_ray.storage import open_storage

BUILDER = "hostile:Loss"
SPEC: dict[str, Any] = {
    "name": "innocent",
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [4]}, "batch_size": 8},
    "learner": {"steps": 2, "method": "offline"},
    "eval": {"every": 2},
    "replicates": 1,
    "search": {"parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
    "arms": {"offline": {"trials": 1}},
    "confirm": {"seeds": 0},
}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once the stranger's builder has run."""
    monkeypatch.syspath_prepend(SUPPORT)
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    return tmp_path / "ran"


def files(builder: str, options: dict[str, Any]) -> dict[str, bytes]:
    import torch

    settings = {"format": 1, "kind": "classification", "loss": {"name": builder, "options": options}}
    return {
        "learned_loss.safetensors": save({"network.w": torch.tensor(0.5)}),
        "learned_loss.json": json.dumps(settings).encode(),
    }


def folder_with(tmp_path: Path, builder: str, options: dict[str, Any]) -> Path:
    folder = tmp_path / "fetched"
    folder.mkdir()
    for name, content in files(builder, options).items():
        (folder / name).write_bytes(content)
    return folder


def commit_of_a_peer(home: Path, builder: str, options: dict[str, Any]) -> None:
    storage = open_storage(home / "studies" / "peer")
    Ledger.create(storage, {}, "digest", "peer", {})
    commit = Commit(
        trial="online/0", attempt=1, position=2, step=2, outcome="finished", report={}, parent=None, files={}
    )
    write_commit(storage, commit, {**files(builder, options), "state.safetensors": b""})


def test_a_folder_runs_no_builder_unless_its_reader_allows_it(mark: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, BUILDER, {"mark": str(mark)})
    for allow in ((), ["hostil"], ["hostile:build"], [""]):
        with pytest.raises(DataError, match=r"hostile:Loss.*allow"):
            load_loss(folder, allow=allow)
    assert not mark.exists()
    assert load_loss(folder, allow=["hostile"]).state_dict()["network.w"] == 0.5
    assert mark.exists()


def test_a_peers_commit_runs_no_builder_unless_the_reading_spec_names_it(mark: Path, tmp_path: Path, here: Run) -> None:
    home, spec = tmp_path / "home", tmp_path / "spec.yaml"
    spec.write_text(json.dumps(SPEC))
    commit_of_a_peer(home, BUILDER, {"mark": str(mark)})
    dry = ["sweep", "run", spec, "--dry-run", "--home", home]
    with pytest.raises(DataError, match="allow"):
        load_loss("peer/online/0", home=home)
    for source in ("peer/online/0", folder_with(tmp_path, BUILDER, {"mark": str(mark)})):
        code, _, err = here(*dry, "--set", f"loss.from={source}")
        assert (code, err.count("\n")) == (2, 1), err
        assert "loss.from" in err
        assert BUILDER in err
    assert not mark.exists()
    code, _, err = here(*dry, "--set", "loss.from=peer/online/0", "--set", f"loss.name={BUILDER}")
    assert code == 0, err
    assert mark.exists()


@pytest.mark.parametrize("builder", ["subprocess:getoutput", "os:system", "builtins:exec", "hostile:Path"])
def test_pythons_own_functions_are_no_builders_wherever_they_are_named(
    builder: str, mark: Path, tmp_path: Path, here: Run
) -> None:
    command = f"touch {mark}"
    with pytest.raises(UserError, match="standard library"):
        load_loss(folder_with(tmp_path, builder, {"cmd": command, "command": command}), allow=[builder])
    spec = tmp_path / "spec.yaml"
    for section in ({"dataset": {"name": builder, "cmd": command}}, {"model": {"name": builder, "cmd": command}}):
        spec.write_text(json.dumps({**SPEC, "task": {**SPEC["task"], **section}}))
        code, _, err = here("sweep", "run", spec, "--dry-run", "--home", tmp_path / "home")
        assert (code, "standard library" in err) == (2, True), err
    assert not mark.exists()


class NoModule:
    pass


def gives_text() -> str:
    return ""


def gives_itself_late() -> NoSuchName:  # type: ignore[name-defined] # noqa: F821
    return None


@pytest.mark.parametrize(("builder", "fits"), [(NoModule, False), (gives_text, False), (gives_itself_late, True)])
def test_a_builder_of_another_type_is_refused_before_it_is_called(builder: Callable[..., Any], fits: bool) -> None:
    from torch import nn

    with nullcontext() if fits else pytest.raises(SpecError, match="must return"):
        load_builder(f"{__name__}:{builder.__name__}", "loss.name", (nn.Module,))


def test_a_package_allows_what_lies_in_it_and_nothing_beside_it() -> None:
    assert allows(["mine"], "mine:build")
    assert allows(["mine"], "mine.deep:build")
    assert allows(["mine.deep"], "mine.deep:build")
    assert allows(["mine:build"], "mine:build")
    assert not allows(["mine"], "minefield:build")
    assert not allows(["mine:build"], "mine:other")


def test_a_trial_of_a_strangers_study_runs_no_builder_unless_it_is_allowed(
    mark: Path, tmp_path: Path, here: Run
) -> None:
    task, loss = SPEC["task"], {"name": "hostile:build", "mark": str(mark)}
    spec = parse_spec(json.dumps({**SPEC, "loss": loss, "task": task, "meta": {"init_steps": 1}}).encode())
    ledger = Ledger.create(
        open_storage(tmp_path / "studies" / "innocent"),
        spec.model_dump(mode="json", by_alias=True),
        spec.digest,
        spec.name,
        {},
    )
    ledger.append(Proposed(trial="offline/0", params={"learner.optimizer.lr": 0.05}, seeds=[1]))
    again = ["trial", "run", "--from", "innocent/offline/0", "--home", tmp_path]
    code, _, err = here(*again)
    assert (code, "--allow" in err) == (2, True), err
    assert not mark.exists()
    code, _, err = here(*again, "--allow", "hostile")
    assert code == 0, err
    assert mark.exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], "mapping"),
        ({"kind": "classification"}, "'loss'"),
        ({"kind": "classification", "loss": {"name": "mlp", "hidden": [-1]}}, r"loss\.hidden\.0"),
        ({"kind": "classification", "loss": {"name": "mlp", "units": 3}}, r"loss\.units"),
    ],
)
def test_settings_that_no_learned_loss_has_are_named(settings: object, named: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, BUILDER, {})
    (folder / "learned_loss.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=rf"json.*{named}"):
        load_loss(folder)

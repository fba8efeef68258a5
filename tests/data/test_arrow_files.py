"""`arrow:FILE`: a file is data, whoever wrote it: it chooses no code, and one that contradicts itself is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import olfl_ray as ol
from olfl_ray import data
from olfl_ray.data.arrow_file import write_arrays
from olfl_ray.errors import DataError, UserError
from olfl_ray.spec import parse_fields
from olfl_ray.tasks.classification import Classification

X, Y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
HEADER: dict[str, Any] = {
    "name": "n",
    "kind": "classification",
    "outputs": 2,
    "classes": [],
    "columns": [],
    "indicators": None,
    "test": [0, 1],
    "source": "s",
    "scaled": True,
    "dropped": 0,
    "content": "c",
}


class Own(Classification):
    """A task of a user's own."""


def read(path: Path, tmp_path: Path, **options: Any) -> data.Dataset:
    return data.load(f"arrow:{path}", options, cache=tmp_path / "cache", root=None)


def test_a_file_chooses_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "strangers_code.py").write_text(f"open({str(mark)!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "given.arrow"
    write_arrays(path, X, Y, {**HEADER, "kind": "strangers_code:Task"})
    with pytest.raises(DataError, match=r"strangers_code:Task.*task\.dataset\.kind"):
        read(path, tmp_path)
    assert not mark.exists()


def test_a_task_of_ones_own_is_named_in_the_spec(tmp_path: Path) -> None:
    own = f"{__name__}:Own"
    section = ol.dataset(data.Dataset(name="d", kind=own, x=X, y=Y), name="mine", home=tmp_path)
    assert section["kind"] == own
    named = parse_fields({"name": "a", "task": {"dataset": section}, "search": {"parameters": {}}}).task.dataset
    for _ in range(2):  # from the file, then from its prepared form
        found = data.load(named.name, named.options, cache=tmp_path / "cache", root=None)
        assert found.kind == own
        prepared = data.load(named.name, named.options, cache=tmp_path / "cache", root=None, wanted=found.fingerprint)
        assert prepared.kind == own


@pytest.mark.parametrize(
    "wrong",
    [
        {"test": "abc"},
        {"test": [99]},
        {"test": [0, 0]},
        {"test": list(range(20))},
        {"outputs": "x"},
        {"outputs": 1},
        {"outputs": 0},
        {"classes": 5},
        {"classes": ["a"]},
        {"classes": ["a", "a"]},
        {"columns": ["a"]},
        {"indicators": [True] * 4},
        {"kind": None},
        {"kind": "clasification"},
        {"kind": "regression"},
        {"scaled": "no"},
        {"name": 5},
        {"x": 5},
        {"x": ["O", [60]]},
        {"x": ["U3", [40]]},
        {"x": ["u1,u1", [240]]},
        {"x": ["M8[s]", [20, 3]]},
        {"x": ["<f8", [3, 20]]},
        {"y": ["<i8", [10, 2]]},
        {"y": ["<f8", [20]]},
        {"fingerprint": None},
    ],
    ids=lambda wrong: "-".join(f"{key}={value}" for key, value in wrong.items())[:40],
)
def test_a_header_that_does_not_fit_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "wrong.arrow"
    write_arrays(path, X, Y, HEADER)
    assert read(path, tmp_path).outputs == 2
    table = pa.ipc.open_file(path).read_all()
    header = json.loads(table.schema.metadata[b"olfl"]) | wrong
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as _:
        pass
    batch = table.replace_schema_metadata({"olfl": json.dumps(header)}).combine_chunks().to_batches()[0]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UserError):
        read(path, tmp_path)

"""CSV and Parquet files as data sets: what becomes of each column, and one message for each mistake."""

# N examples

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from olfl_ray import data
from olfl_ray.data.formats import FORMATS
from olfl_ray.data.prepared import file_name
from olfl_ray.errors import SpecError
from olfl_ray.storage import LocalStorage

Load = Callable[..., data.Dataset]
TWO = ["p", "q"] * 10


def rows(line: Callable[[int], str], count: int = 20, header: str = "a,y") -> str:
    return "\n".join([header, *(line(index) for index in range(count))]) + "\n"


PLAIN = rows(lambda i: f"{i * 1.5},{TWO[i]}")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a file with this content; its target is the column y."""

    def go(content: str | bytes | pa.Table, **options: Any) -> data.Dataset:
        table = isinstance(content, pa.Table)
        path = tmp_path / ("t.parquet" if table else "t.csv")
        if table:
            parquet.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        data.forget()
        name = f"{path.suffix[1:]}:{path}"
        return data.load(name, {"target": "y", **options}, cache=tmp_path / "cache", root=None)

    return go


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN, {}),
        (b"\xef\xbb\xbf" + PLAIN.encode(), {}),
        (PLAIN.replace(",", ";").replace("\n", "\r\n"), {"delimiter": ";"}),
        (PLAIN.encode("utf-16"), {"encoding": "utf-16"}),
        (PLAIN.removeprefix("a,y\n"), {"columns": ["a", "y"]}),
        (rows(lambda i: f"{i},{i * 1.5},{TWO[i]}", header="id,a,y"), {"drop": ["id"]}),
        (pa.table({"a": np.arange(20) * 1.5, "y": TWO}), {}),
        (pa.table({"a": np.arange(20) * 1.5, "y": pa.array(TWO).dictionary_encode()}), {}),
    ],
    ids=["plain", "BOM", "semicolons", "UTF-16", "no header", "dropped", "Parquet", "dictionary"],
)
def test_same_table_is_the_same_data_set(load: Load, content: Any, options: dict[str, Any]) -> None:
    found = load(content, **options)
    assert (found.kind, found.classes, found.outputs, found.columns) == ("classification", ("p", "q"), 2, ("a",))
    assert found.x.flatten().tolist() == [i * 1.5 for i in range(20)]
    assert found.y.tolist() == [0, 1] * 10
    assert found.fingerprint == load(PLAIN).fingerprint


@pytest.mark.parametrize(
    ("line", "options", "kind", "outputs"),
    [
        (lambda i: f"{i},{i % 3}", {}, "classification", 3),
        (lambda i: f"{i},{i % 3 + 7}", {}, "classification", 3),
        (lambda i: f"{i},{i % 2 == 0}", {}, "classification", 2),
        (lambda i: f"{i},{i / 7}", {}, "regression", 1),
        (lambda i: f"{i},{i % 3}", {"kind": "regression"}, "regression", 1),
        (lambda i: f"{i},{i % 3}.0", {"kind": "classification"}, "classification", 3),
        (lambda i: f"{i},{i % 3}", {"target": ["y", "a"], "categorical": "b"}, "regression", 2),
    ],
)
def test_kind_of_the_target(
    load: Load, line: Callable[[int], str], options: dict[str, Any], kind: str, outputs: int
) -> None:
    found = load(rows(lambda i: f"{line(i)},{i % 4}", header="a,y,b"), **options)
    assert (found.kind, found.outputs) == (kind, outputs)


def test_ids_stay_integers(load: Load) -> None:
    found = load(rows(lambda i: f"{i},{10**12 + i},{TWO[i]}", header="t,u,y"), ids=True)
    assert (found.x.dtype, found.x[1].tolist()) == (torch.int64, [1, 10**12 + 1])
    lists = load(pa.table({"tokens": [[1, 2, 3]] * 20, "mask": [[True, True, False]] * 20, "y": TWO}), ids=True)
    assert lists.x[0].tolist() == [1, 2, 3, 1, 1, 0]
    assert lists.columns[3] == "mask.0"
    splits = split_of(found)
    batches = data.TaskData(found, splits, device="cpu", augment="none", batch_size=4, seed=0)
    assert torch.equal(batches.evaluation("test")[0], found.x[splits.test])


def split_of(dataset: data.Dataset) -> data.Splits:
    return data.split(dataset, study_seed=0, seed=0, test=0.2, meta=0.1, selection=0.1)


def test_category_that_train_lacks_is_0_and_missing_values_get_the_train_mean(load: Load) -> None:
    content = [["1.0", "red", TWO[i % 2]] for i in range(100)]
    plain = load(rows(lambda i: ",".join(content[i]), 100, "a,color,y"), categorical=["color"])
    splits = split_of(plain)
    first, second = splits.test[:2].tolist()
    for index in range(100):
        content[index][0], content[index][1] = str(index % 7), ("red", "blue")[index % 3 == 0]
    content[first][1], content[second][1], content[first][0] = "green", "", ""
    text = rows(lambda i: ",".join(content[i]), 100, "a,color,y")
    found = load(text, categorical=["color"], missing="mean")
    assert found.columns == ("a", "color=blue", "color=green", "color=red")
    batches = data.TaskData(found, splits, device="cpu", augment="none", batch_size=4, seed=0)
    unseen, missing = batches.evaluation("test")[0][:2]
    assert torch.equal(unseen[1:], missing[1:]), "both are none of the categories"
    assert unseen[2] == 0
    assert abs(float(unseen[0])) < 1e-6
    assert torch.allclose(batches.scaler()(found.x[splits.test]), batches.evaluation("test")[0])
    content[int(splits.test[2])][0] = "1e6"  # changes nothing that is fitted
    moved = load(rows(lambda i: ",".join(content[i]), 100, "a,color,y"), categorical=["color"], missing="mean")
    others = data.TaskData(moved, splits, device="cpu", augment="none", batch_size=4, seed=0)
    assert torch.equal(others.evaluation("train")[0], batches.evaluation("train")[0])


def test_feature_without_a_value_in_train_is_0(load: Load) -> None:
    found = load(rows(lambda i: f"{i},{i},{TWO[i]}", header="a,b,y"))
    splits = split_of(found)
    found.x[splits.train, 1] = torch.nan
    found.x[splits.test[:1], 1] = torch.nan
    batches = data.TaskData(found, splits, device="cpu", augment="none", batch_size=4, seed=0)
    assert torch.isfinite(batches.evaluation("test")[0]).all()


def test_missing_drop_drops_the_examples(load: Load) -> None:
    assert len(load("a,y\n1,p\n2,\n3,q\n?,p\n5,q\n6,p\n", missing="drop").y) == 4


GAP = rows(lambda i: f"{'' if i == 3 else i},{TWO[i]}")


@pytest.mark.parametrize(
    ("content", "options", "field", "says"),
    [
        ("", {}, "", "it is empty"),
        ("a,y\n", {}, "", "no rows"),
        ("y\np\nq\n", {}, "", "no column left"),
        ("a,a,y\n1,2,p\n", {}, "", "2 columns called 'a'"),
        ("a,y\n1,p\n2,q,3\n", {}, "", "Row #3: Expected 2 columns, got 3"),
        (PLAIN.replace(",", ";"), {}, "delimiter", "give delimiter: ';'"),
        (PLAIN, {"delimiter": ";"}, "delimiter", "give delimiter: ','"),
        (PLAIN, {"target": "z"}, "target", "no column 'z'.*its columns are a, y"),
        (PLAIN, {"target": []}, "target", "at least 1 item"),
        (PLAIN, {"drop": ["y"]}, "drop", "named already in target"),
        (PLAIN, {"targt": "y"}, "targt", r"did you mean 'task.dataset.target'\?"),
        (PLAIN, {"kind": "regresion"}, "kind", r"did you mean 'regression'\?"),
        (PLAIN, {"kind": "regression"}, "target", "type string"),
        (rows(lambda i: f"{i},p"), {}, "target", "only one class, 'p'"),
        (rows(lambda i: f"{i},{i}"), {"kind": "classification"}, "target", "20 classes for 20"),
        (rows(lambda i: f"{i},{i}", 50), {}, "kind", "50 different integers"),
        (rows(lambda i: f"{i},{i % 3}.0"), {}, "kind", "3 different integers"),
        (
            rows(lambda i: f"{i},{'nan' if i == 2 else i / 7}"),
            {},
            "missing",
            "'y', lacks 1 of 20 values, the first in row 3",
        ),
        (rows(lambda i: f"{i},{'' if i == 2 else TWO[i]}"), {"missing": "mean"}, "missing", "give missing: drop"),
        (GAP, {}, "missing", "'a', lacks 1 of 20 values, the first in row 4; give missing: mean"),
        (GAP.replace("7,", "seven,"), {"missing": "mean"}, "", r"'a', holds text \('seven' in row 8\)"),
        (rows(lambda i: f"inf,{TWO[i]}"), {}, "", "20 infinite values"),
        (rows(lambda i: f"2024-01-{i + 1:02},{TWO[i]}"), {}, "", "dates or times"),
        (rows(lambda i: f",{TWO[i]}"), {"missing": "mean"}, "", "'a', has no values"),
        (rows(lambda i: f",{TWO[i]}"), {"missing": "drop"}, "missing", "20 of 20 that of the column 'a'"),
        (rows(lambda i: f"{10**19 + i},{TWO[i]}"), {"ids": True}, "ids", "type double"),
        (rows(lambda i: f"{i},{TWO[i]}"), {"ids": True, "categorical": ["a"]}, "categorical", "ids: true"),
        (rows(lambda i: f"u{i},{i % 2}", 1001), {"categorical": ["a"]}, "categorical", "1001 categories"),
        (rows(lambda i: f"{i},é").encode("latin-1"), {}, "encoding", "not text in utf-8"),
        (PLAIN, {"encoding": "latin17"}, "encoding", "unknown encoding"),
        (pa.table({"tokens": [[1, 2], [3]] * 10, "y": TWO}), {"ids": True}, "", "different lengths"),
        (pa.table({"a": pa.array([2**63] * 20, pa.uint64()), "y": TWO}), {"ids": True}, "ids", "above"),
        (pa.table({"a": np.ones(20), "y": np.array([1.5, np.nan] * 10)}), {}, "missing", "lacks 10 of 20"),
    ],
)
def test_mistake_is_one_message_with_its_field(
    load: Load, content: Any, options: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(content, **options)
    assert caught.value.field == f"task.dataset.{field}".rstrip(".")
    assert re.search(says, caught.value.problem), caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("csv:{}/wime.csv", r"does not exist \(did you mean 'wine.csv'\?\)"),
        ("csv:{}", "is not a file"),
        ("cvs:{}/wine.csv", r"no format 'cvs' \(did you mean 'csv'\?\)"),
        ("parquet:{}/wine.csv", "can't be read as Parquet"),
        ("wine.csv", "csv:PATH"),
    ],
)
def test_wrong_name_of_a_file(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "wine.csv").write_text(PLAIN)
    with pytest.raises(SpecError, match=says):
        data.load(name.format(tmp_path), {"target": "y"}, cache=tmp_path / "cache", root=None)


def test_relative_path_starts_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.absolute("csv:./some/../wine.csv") == f"csv:{tmp_path}/wine.csv"
    assert [data.absolute(name) for name in ("digits", "mine.data:wine")] == ["digits", "mine.data:wine"]


def test_changed_file_is_another_data_set_and_a_worker_keeps_the_first(tmp_path: Path) -> None:
    path, options, cache = tmp_path / "wine.csv", {"target": "y", "categorical": ["a"]}, tmp_path / "cache"

    def load(**known: str) -> data.Dataset:
        return data.load(f"csv:{path}", options, cache=cache, root=None, **known)

    path.write_text(PLAIN)
    first = load()
    assert load() is first
    path.write_text(PLAIN.replace("1.5,", "99,"))
    os.utime(path, (1, 1))
    changed = load()
    assert changed.fingerprint != first.fingerprint
    path.unlink()
    kept = load(wanted=first.fingerprint)
    assert torch.equal(kept.x, first.x)
    same = ("name", "kind", "classes", "outputs", "columns", "fingerprint", "source")
    assert [getattr(kept, field) for field in same] == [getattr(first, field) for field in same]
    assert kept.indicators is not None
    assert torch.equal(kept.y, first.y)


def test_node_fetches_the_content_that_the_driver_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = tmp_path / "wine.csv", {"target": "y"}
    path.write_text(PLAIN)
    cache, shared = tmp_path / "cache", LocalStorage(tmp_path / "shared")
    found = data.load(f"csv:{path}", options, cache=cache, root=None)
    data.share(f"csv:{path}", options=options, fingerprint=found.fingerprint, cache=cache, root=None, storage=shared)
    path.unlink()
    monkeypatch.setenv("OLFL_CACHE", str(tmp_path / "node"))
    node = data.node_cache(f"csv:{path}", tmp_path / "none", shared, options, found.fingerprint)
    assert (node / file_name(f"csv:{path}", options, found.fingerprint)).is_file()
    assert torch.equal(data.load(f"csv:{path}", options, cache=node, root=None, wanted=found.fingerprint).x, found.x)


def test_formats_are_files_of_the_package() -> None:
    assert {"csv", "parquet"} <= set(FORMATS.names())

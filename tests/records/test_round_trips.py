"""Records and surfaces round-trip through tables and Parquet, NaN and infinity included."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olfl_ray.errors import DataError
from olfl_ray.records import (
    MOST_ROWS,
    RECORDS,
    SURFACES,
    Record,
    Surface,
    from_parquet,
    names,
    records_from_table,
    records_to_table,
    surfaces_to_table,
    to_parquet,
)

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
metric_names = st.one_of(st.sampled_from(sorted(names.METRICS)), st.text(min_size=1, max_size=12))


@st.composite
def some_records(draw: st.DrawFn) -> list[Record]:
    """Records in the order in which a trial makes them; each has its own step or time."""
    keys = draw(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**50)), unique=True, max_size=6))
    replicates = draw(st.integers(1, 4))
    metrics = st.dictionaries(
        metric_names,
        st.one_of(
            st.tuples(*[numbers] * replicates),
            st.tuples(numbers),  # machine metrics have one value
        ),
        min_size=1,
        max_size=5,
    )
    return [Record(step=step, time_ms=time_ms, metrics=draw(metrics)) for step, time_ms in keys]


def same(one: float, other: float) -> bool:
    return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
        math.isnan(one) and math.isnan(other)
    )


@settings(deadline=None)
@given(some_records())
def test_records_round_trip(records: list[Record]) -> None:
    table = from_parquet(to_parquet(records_to_table(records)), RECORDS)
    assert table.schema.equals(RECORDS)
    back = records_from_table(table)
    assert [(record.step, record.time_ms, list(record.metrics)) for record in back] == [
        (record.step, record.time_ms, list(record.metrics)) for record in records
    ]
    for record, other in zip(records, back, strict=True):
        for metric, values in record.metrics.items():
            assert len(values) == len(other.metrics[metric])
            assert all(map(same, values, other.metrics[metric]))


def test_two_records_of_one_metric_at_the_same_step_and_time_stay_separate() -> None:
    """A clock with millisecond resolution does not distinguish two quick records; their replicates do."""
    records = [
        Record(step=5, time_ms=9, metrics={"a": (1.0, 2.0)}),
        Record(step=5, time_ms=9, metrics={"a": (3.0, 4.0)}),
    ]
    assert records_from_table(records_to_table(records)) == records


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 99), st.lists(st.tuples(*[numbers] * 4))), max_size=4))
def test_surfaces_have_one_row_per_point(
    given_surfaces: list[tuple[int, int, list[tuple[float, float, float, float]]]],
) -> None:
    surfaces = []
    for step, replicate, points in given_surfaces:
        target, output, learned, task = zip(*points, strict=True) if points else ((), (), (), ())
        surfaces.append(
            Surface(step=step, replicate=replicate, target=target, output=output, learned=learned, task=task)
        )
    table = from_parquet(to_parquet(surfaces_to_table(surfaces)), SURFACES)
    assert table.schema.equals(SURFACES)
    rows = [(step, replicate, *point) for step, replicate, points in given_surfaces for point in points]
    found = [tuple(row.values()) for row in table.to_pylist()]
    assert len(found) == len(rows)
    assert all(
        same(one, other) for row, own in zip(rows, found, strict=True) for one, other in zip(row, own, strict=True)
    )


def test_surface_with_columns_of_unequal_length_is_refused() -> None:
    uneven = Surface(step=0, replicate=0, target=(0.0,), output=(0.0, 1.0), learned=(0.0,), task=(0.0,))
    with pytest.raises(ValueError, match="zip"):
        surfaces_to_table([uneven])


def test_no_records_are_an_empty_table() -> None:
    assert records_from_table(from_parquet(to_parquet(records_to_table([])), RECORDS)) == []
    assert surfaces_to_table([]).num_rows == 0


@pytest.mark.parametrize("bad", [b"", b"PAR1", b"not parquet at all"])
def test_truncated_parquet_is_refused(bad: bytes) -> None:
    with pytest.raises(DataError, match="table of records"):
        from_parquet(bad, RECORDS)


def rows(count: int, metric: str = "a") -> pa.Table:
    """Many equal rows in a small file."""
    text = pa.DictionaryArray.from_arrays(pa.nulls(count, pa.int32()).fill_null(0), pa.array([metric]))
    numbers = {
        name: pa.nulls(count, RECORDS.field(name).type).fill_null(0)
        for name in ("step", "replicate", "value", "time_ms")
    }
    return pa.table({name: text if name == "metric" else numbers[name] for name in RECORDS.names})


def test_small_file_that_expands_to_gigabytes_is_refused_before_it_is_read() -> None:
    """Rows or letters: Arrow's allocated memory does not change."""
    crafted = [to_parquet(rows(MOST_ROWS + 1)), to_parquet(rows(100_000, "m" * 50_000))]
    assert max(map(len, crafted)) < 1_000_000
    held = pa.total_allocated_bytes()
    for data in crafted:
        with pytest.raises(DataError, match="at most"):
            from_parquet(data, RECORDS)
    assert pa.total_allocated_bytes() - held < 10_000_000


@pytest.mark.parametrize(
    "table", [pa.table({"step": [1]}), rows(2).drop_columns("value").append_column("value", pa.array([{"x": 1}] * 2))]
)
def test_table_with_other_columns_is_refused(table: pa.Table) -> None:
    with pytest.raises(DataError):
        from_parquet(to_parquet(table), RECORDS)


def test_mean_is_over_replicates() -> None:
    record = Record(step=1, time_ms=0, metrics={"a": (1.0, 2.0, 6.0), "b": (1.0, math.inf), "c": (math.nan, 1.0)})
    assert (record.mean("a"), record.mean("b")) == (3.0, math.inf)
    assert math.isnan(record.mean("c"))


def test_each_metric_is_described() -> None:
    constants = {
        value for key, value in vars(names).items() if key.isupper() and isinstance(value, str) and "/" in value
    }
    assert constants - {names.SELECTION_PREFIX, names.TEST_PREFIX, names.TRIVIAL_PREFIX} == set(names.METRICS)
    assert set(names.METRICS) >= names.VOLATILE

"""The tabular data sets: digits, diabetes, California housing, communities and crime."""

from __future__ import annotations

import gzip
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from olfl_ray.data.finding import Arrays, Source, downloading, fetch, find

__all__ = ["ROWS"]

HOUSING = {
    "california-housing/cal_housing.data.gz": "9ec0c7920a28267aa6fd23b11fab174e134d9dff83e17c1d19674a7650834755",
}
CRIME_FILE, CRIME_SHA256 = (
    "communities-crime/communities.data",
    "d90d85bd66bad9a00fa0ed6c15ac017b5966d528e55ba2940ad028d071353f95",
)
CRIME_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/communities/communities.data"
MOSTLY_MISSING = 0.5
"""A column with a larger share of missing values is dropped."""


def _digits(root: Path | None, scratch: Path) -> Arrays:
    rows = _bundled("digits.csv.gz", delimiter=",")
    x, y = rows[:, :-1], rows[:, -1]
    return Arrays(x=x.astype(np.float32), y=y.astype(np.int64), train_rows=None, source="scikit-learn, bundled")


def _diabetes(root: Path | None, scratch: Path) -> Arrays:
    x, y = _bundled("diabetes_data_raw.csv.gz"), _bundled("diabetes_target.csv.gz")[:, None]
    return Arrays(x=x.astype(np.float32), y=y.astype(np.float32), train_rows=None, source="scikit-learn, bundled")


def _bundled(name: str, delimiter: str | None = None) -> NDArray[np.float64]:
    """A table in scikit-learn's own files; it is not imported, which would take a second."""
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "datasets" / "data" / name
    return np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), delimiter=delimiter)


def _housing(root: Path | None, scratch: Path) -> Arrays:
    """Median house value, in units of 100,000 dollars, from the eight features that scikit-learn derives from the census file.

    They are median income, house age, rooms and bedrooms per household, population, people per household, latitude and
    longitude: the same numbers from the file as from scikit-learn's download.
    """
    found = find(root, HOUSING)
    if found is not None:
        rows = np.loadtxt(io.BytesIO(gzip.decompress(found[0])), delimiter=",", dtype=np.float64)
        longitude, latitude, age, rooms, bedrooms, people, households, income, value = rows.T
        x = np.stack(
            [income, age, rooms / households, bedrooms / households, people, people / households, latitude, longitude],
            1,
        )
        y, source = value / 100_000, str(root)
    else:
        with downloading("california-housing", root, HOUSING):
            from sklearn.datasets import fetch_california_housing

            x, y = fetch_california_housing(data_home=str(scratch), return_X_y=True)
        source = "scikit-learn download"
    return Arrays(x=x.astype(np.float32), y=y.astype(np.float32)[:, None], train_rows=None, source=source)


def _crime(root: Path | None, scratch: Path) -> Arrays:
    """Violent crimes per population of 1,994 US communities, scaled to [0, 1] by the publisher, from 100 features.

    Of the 127 columns before the target, five identify the community or a cross-validation fold and are not predictive. 22 of
    the other 122, about the police, are missing for 84 % of the communities and are dropped, as is usual with this data set.
    One value is missing in the rest: it stays NaN, and each replicate imputes it from its own train split.
    """
    files = {CRIME_FILE: CRIME_SHA256}
    found = find(root, files)
    if found is not None:
        content, source = found[0], str(root)
    else:
        with downloading("communities-crime", root, files):
            content, source = fetch(CRIME_URL, CRIME_SHA256), CRIME_URL
    cells = [line.split(",")[5:] for line in content.decode().split()]
    rows = np.array([[np.nan if cell == "?" else float(cell) for cell in line] for line in cells], np.float32)
    x, y = rows[:, :-1], rows[:, -1:]
    kept = np.isnan(x).mean(0) <= MOSTLY_MISSING
    return Arrays(x=np.ascontiguousarray(x[:, kept]), y=np.ascontiguousarray(y), train_rows=None, source=source)


ROWS: dict[str, Source] = {
    "california-housing": Source(kind="regression", rows=20640, shape=(8,), read=_housing, files=HOUSING),
    "communities-crime": Source(
        kind="regression", rows=1994, shape=(100,), read=_crime, files={CRIME_FILE: CRIME_SHA256}
    ),
    "diabetes": Source(kind="regression", rows=442, shape=(10,), read=_diabetes, files={}),
    "digits": Source(kind="classification", rows=1797, shape=(64,), read=_digits, files={}),
}

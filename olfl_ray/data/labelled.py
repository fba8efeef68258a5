"""The data sets with several labels per example: yeast, emotions (Mulan's ARFF files), and a synthetic one without files."""

from __future__ import annotations

import gzip
import io
from functools import partial
from pathlib import Path

import numpy as np

from olfl_ray.data.finding import Arrays, Files, Source, find
from olfl_ray.errors import DataError

__all__ = ["LABELLED"]

EMOTIONS: Files = {
    "emotions-multilabel/emotions.arff.gz": "604ca2c8feda0883c43c6ae5b1e604ab5c1fe84930a78b3882e7e09ca7079284",
}
YEAST: Files = {
    "yeast-multilabel/yeast.arff.gz": "4fe87eb6e43796db9f39ad2f92b2eec97919f1f5fc0b7c2e34db3d0840284df1",
}


def _arff(name: str, files: Files, labels: int, root: Path | None, scratch: Path) -> Arrays:
    """Numeric features, then `labels` attributes of 0 and 1, in one gzipped ARFF file."""
    from scipy.io.arff import loadarff

    found = find(root, files)
    if found is None:
        raise DataError(
            f"task.dataset: {name} is not here: set OLFL_DATA to a folder with {', '.join(files)}; or use "
            "synthetic-multilabel, which needs no files"
        )
    rows, header = loadarff(io.StringIO(gzip.decompress(found[0]).decode()))
    titles = header.names()
    x, y = (
        np.stack([rows[title].astype(np.float32) for title in some], 1) for some in (titles[:-labels], titles[-labels:])
    )
    return Arrays(x=x, y=y, train_rows=None, source=str(root), classes=tuple(titles[-labels:]))


def _synthetic(root: Path | None, scratch: Path) -> Arrays:
    """Word counts of 1,000 documents with two of five topics on average, as scikit-learn draws them."""
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(1000, 20, n_classes=5, n_labels=2, random_state=0)
    return Arrays(
        x=x.astype(np.float32), y=y.astype(np.float32), train_rows=None, source="drawn by scikit-learn, seed 0"
    )


LABELLED: dict[str, Source] = {
    "emotions": Source(
        kind="multilabel",
        rows=593,
        shape=(72,),
        read=partial(_arff, "emotions", EMOTIONS, 6),
        files=EMOTIONS,
        downloads=False,
    ),
    "synthetic-multilabel": Source(kind="multilabel", rows=1000, shape=(20,), read=_synthetic, files={}),
    "yeast": Source(
        kind="multilabel",
        rows=2417,
        shape=(103,),
        read=partial(_arff, "yeast", YEAST, 14),
        files=YEAST,
        downloads=False,
    ),
}

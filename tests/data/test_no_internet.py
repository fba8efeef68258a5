"""Without files and without internet: a message with both ways, within seconds. All traffic goes to closed loopback ports."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from olfl_ray import data
from olfl_ray.data import finding
from olfl_ray.errors import DataError

FIRST_FILES = {
    "mnist": "mnist/train-images-idx3-ubyte.gz",
    "cifar10": "cifar-10/train.parquet",
    "california-housing": "california-housing/cal_housing.data.gz",
    "cifar100": "cifar-100/train-0-of-5.parquet",
    "communities-crime": "communities-crime/communities.data",
    "fashion-mnist": "fashion-mnist/train-images-idx3-ubyte.gz",
    "svhn": "svhn/train_32x32.mat",
}


def through_port(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # urllib reads the proxies once, and caches them.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is refused: the port is bound, but nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        through_port(bound.getsockname()[1], monkeypatch)
        yield


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is accepted, but nothing is ever sent, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        through_port(server.getsockname()[1], monkeypatch)
        yield


@pytest.mark.usefixtures("refused")
@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("name", sorted(FIRST_FILES))
@pytest.mark.parametrize("root", [None, "nothing-there"])
def test_message_names_both_ways_to_get_the_data_within_seconds(name: str, root: str | None, tmp_path: Path) -> None:
    given = None if root is None else tmp_path / root
    if given is not None:
        given.mkdir()
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        data.load(name, {}, cache=tmp_path / "cache", root=given)
    assert time.monotonic() - began < 20
    message = str(caught.value)
    assert message.startswith(f"task.dataset: {name} is not ")
    assert f"set OLFL_DATA to a folder with {FIRST_FILES[name]}" in message
    assert f"olfl data prepare {name}" in message
    assert "refused" in message, "the cause of the failure"
    assert given is None or str(given) in message
    assert "\n" not in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("silent")
@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("name", sorted(FIRST_FILES))
def test_silent_server_times_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "TIMEOUT_SECONDS", 0.2)
    before = socket.getdefaulttimeout()
    began = time.monotonic()
    with pytest.raises(DataError, match="timed out"):
        data.load(name, {}, cache=tmp_path, root=None)
    assert time.monotonic() - began < 20
    assert socket.getdefaulttimeout() == before


def test_message_for_a_subset_without_download_names_the_full_set(tmp_path: Path, refused: None) -> None:
    with pytest.raises(DataError, match=r"^task\.dataset: cifar100-400 is not here: set OLFL_DATA .* or use "):
        data.load("cifar100-400", {}, cache=tmp_path, root=None)
    where = {entry[0]: entry[-1] for entry in data.describe(None)}
    assert (where["cifar100"], where["cifar100-400"]) == ("download, or OLFL_DATA", "OLFL_DATA")


def test_bundled_sets_need_neither_files_nor_internet(tmp_path: Path, refused: None) -> None:
    assert len(data.load("digits", {}, cache=tmp_path, root=None).x) == 1797

"""Without files and without internet: a message with both ways, within seconds. All traffic goes to closed doors on loopback."""

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
    # urllib reads the proxies once, and keeps them.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is refused: the port is bound, and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        through_port(bound.getsockname()[1], monkeypatch)
        yield


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection is taken, and nothing is ever said: what a firewall that drops packets looks like."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        through_port(server.getsockname()[1], monkeypatch)
        yield


@pytest.mark.usefixtures("refused")
@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("name", sorted(FIRST_FILES))
@pytest.mark.parametrize("root", [None, "nothing-there"])
def test_message_says_both_ways_within_seconds(name: str, root: str | None, tmp_path: Path) -> None:
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
    assert "refused" in message, "the cause of the failure, not only that there was one"
    assert given is None or str(given) in message
    assert "\n" not in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("silent")
@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("name", sorted(FIRST_FILES))
def test_silent_server_is_given_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "TIMEOUT_SECONDS", 0.2)
    before = socket.getdefaulttimeout()
    began = time.monotonic()
    with pytest.raises(DataError, match="timed out"):
        data.load(name, {}, cache=tmp_path, root=None)
    assert time.monotonic() - began < 20
    assert socket.getdefaulttimeout() == before


def test_a_part_that_cannot_be_downloaded_says_what_can(tmp_path: Path, refused: None) -> None:
    with pytest.raises(DataError, match=r"^task\.dataset: cifar100-400 is not here: set OLFL_DATA .* or use "):
        data.load("cifar100-400", {}, cache=tmp_path, root=None)
    where = {entry[0]: entry[-1] for entry in data.describe(None)}
    assert (where["cifar100"], where["cifar100-400"]) == ("download, or OLFL_DATA", "OLFL_DATA")


def test_bundled_sets_need_neither(tmp_path: Path, refused: None) -> None:
    assert len(data.load("digits", {}, cache=tmp_path, root=None).x) == 1797

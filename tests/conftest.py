"""Shared fixtures: the folder of data sets, an S3 endpoint. In CI a skipped test counts as a failure."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.object_store import BUCKET, point_at
from xdist.scheduler import LoadScopeScheduling

from benchmarks.services.servers import s3_server

# Before torch and numpy are imported here and in the processes that tests start: where tests share the processors, a second
# thread mostly waits in a loop for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def olfl_data() -> Path:
    """The folder that `OLFL_DATA` names."""
    found = os.environ.get("OLFL_DATA")
    if not found:
        pytest.skip("OLFL_DATA is not set: it names a folder with mnist/, cifar-10/ and the other data sets")
    return Path(found)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server with the S3 protocol."""
    with s3_server(BUCKET) as url:
        yield url


@pytest.fixture
def s3_place(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an unused folder there; the environment points to the server."""
    point_at(monkeypatch, s3_endpoint)
    return f"s3://{BUCKET}/a study's place/{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never writes to the home folder, the cache or the tracking store of the user who runs it."""
    for name in ("OLFL_HOME", "OLFL_CACHE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


class _Packages(LoadScopeScheduling):  # type: ignore[misc]
    """Distribute modules; the tests that need the cluster stay in one process, which starts it once."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/remote" if nodeid.startswith("tests/remote/") else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Packages:
    return _Packages(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest packages first, so that the processes of `make test`, which share the modules, finish together."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in ("remote", "study"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI counts as a failure: {report.longrepr}"
    return report

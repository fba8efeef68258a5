"""What every test may use: the folder of given data sets; and in CI a skipped test is a failed one."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def olfl_data() -> Path:
    """The folder that `OLFL_DATA` names."""
    found = os.environ.get("OLFL_DATA")
    if not found:
        pytest.skip("OLFL_DATA is not set: it names a folder with mnist/, cifar-10/ and california-housing/")
    return Path(found)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never writes to the home folder of whoever runs it."""
    monkeypatch.delenv("OLFL_HOME", raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI counts as a failure: {report.longrepr}"
    return report

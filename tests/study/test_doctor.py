"""`olfl doctor` finds what would stop a study, and says what to do; `--chaos` kills a worker and the driver of a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from support.commands import olfl as in_a_new_process

from olfl_ray.spec import parse_fields
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Finding, Home, diagnose
from olfl_ray.study.doctor import EXAMPLE, check_conditional_writes


def before_ray(found: Iterator[Finding]) -> list[Finding]:
    """The findings of what needs no Ray."""
    return list(takewhile(lambda one: one.check not in ("data", "ray"), found))


def failed(found: list[Finding]) -> dict[str, str]:
    return {one.check: one.found for one in found if one.state == "failed"}


class Overwriting(LocalStorage):
    """A store that ignores the condition of a conditional write."""

    def create(self, key: str, data: bytes) -> bool:
        self.write(key, data)
        return True


class Losing(LocalStorage):
    """A store that reports success and keeps what was there."""

    def write(self, key: str, data: bytes) -> None:
        self.read(key)


def test_a_store_without_conditional_writes_is_found(tmp_path: Path) -> None:
    check_conditional_writes(LocalStorage(tmp_path))
    with pytest.raises(RuntimeError, match="8 of 8"):
        check_conditional_writes(Overwriting(tmp_path))
    with pytest.raises(RuntimeError, match="not visible"):
        check_conditional_writes(Losing(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_library_of_another_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"ray": "2.50.0", "optuna": "not installed"}
    monkeypatch.setattr("olfl_ray.study.doctor.version_of", lambda name: versions.get(name, "9999"))
    found = failed(before_ray(diagnose(home=Home.find(tmp_path))))["versions"]
    assert "ray 2.50.0, but " in found
    assert "optuna not installed" in found
    assert "numpy" not in found


def test_an_unreachable_store_and_tracking_server_are_found(tmp_path: Path) -> None:
    spec = parse_fields({**EXAMPLE, "tracking": {"name": "mlflow", "uri": "http://127.0.0.1:9"}})
    (tmp_path / "file").write_text("")
    found = failed(
        before_ray(diagnose(spec, home=Home.find(tmp_path / "home"), storage=str(tmp_path / "file" / "studies")))
    )
    assert found.keys() == {"storage", "tracking"}
    assert "127.0.0.1:9" in found["tracking"]


def test_chaos_does_not_go_with_a_job_server(tmp_path: Path) -> None:
    done = in_a_new_process("doctor", "--chaos", "--address", "http://127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--chaos" in done.stderr


def test_a_study_that_loses_a_worker_and_its_driver_is_audited(tmp_path: Path) -> None:
    done = in_a_new_process("doctor", "--chaos", "--json", "--storage", tmp_path / "kept", cwd=tmp_path)
    found = [Finding(**one) for one in json.loads(done.stdout)]
    assert (done.returncode, failed(found)) == (0, {})
    checks = [one.check for one in found]
    assert list(dict.fromkeys(checks)) == ["versions", "machine", "gpu", "storage", "tracking", "data", "ray", "chaos"]
    worker, driver, end, same = (one.found for one in found if one.check == "chaos")
    assert "killed" in worker
    assert "killed" in driver
    assert "6 trials" in end
    assert "exactly once" in end
    assert "bit for bit" in same
    assert not [path for path in tmp_path.rglob("*") if "doctor-" in path.name and path.is_file()]

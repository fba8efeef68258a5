"""A study may be kept on an object store: it is found by its name, goes on from there, and leaves no secret anywhere."""

import json
from pathlib import Path

import pytest
from support.commands import olfl
from support.object_store import BUCKET, point_at

from olfl_ray.bench.services import s3_server

SPEC = {
    "name": "far",
    "task": {"dataset": "digits", "batch_size": 16},
    "learner": {"method": "online", "steps": 40},
    "meta": {"init_steps": 20},
    "eval": {"every": 20},
    "replicates": 1,
    "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
    "arms": {"online": {"trials": 1}},
    "confirm": {"seeds": 1},
    "storage": f"s3://{BUCKET}/sweeps",
}


def test_a_study_on_s3_is_found_by_its_name_and_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    with s3_server(BUCKET) as url:
        point_at(monkeypatch, url)
        done = olfl("sweep", "run", "spec.yaml", "--home", tmp_path, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        more = olfl("sweep", "extend", "far", "--trials", 1, "--home", tmp_path, cwd=tmp_path)
        assert more.returncode == 0, more.stdout + more.stderr
        assert "online/0" not in more.stdout
        status = olfl("sweep", "status", "far", "--home", tmp_path, cwd=tmp_path)
        assert status.returncode == 0, status.stderr
        assert "study far" in status.stdout
    assert not (tmp_path / "studies" / "far" / "ledger").exists()
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"not-for-any-log" not in path.read_bytes(), path

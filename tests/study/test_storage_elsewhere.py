"""A study may be kept on an object store: it is found by its name, resumes from there, and leaves no secret anywhere."""

import json
from pathlib import Path

from support.commands import Run, olfl

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
}


def test_a_study_on_s3_is_found_by_its_name_and_extended(tmp_path: Path, s3_place: str, here: Run) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps({**SPEC, "storage": s3_place}))
    done = olfl("sweep", "run", "spec.yaml", "--home", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    more = olfl("sweep", "extend", "far", "--trials", 1, "--home", tmp_path, cwd=tmp_path)
    assert more.returncode == 0, more.stdout + more.stderr
    assert "online/0" not in more.stdout
    code, out, err = here("sweep", "status", "far", "--home", tmp_path)
    assert code == 0, err
    assert "study far" in out
    assert not (tmp_path / "studies" / "far" / "ledger").exists()
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"not-for-any-log" not in path.read_bytes(), path

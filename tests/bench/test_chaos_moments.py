"""The chaos benchmark's parts: its moments, its small disk, its triggers, its document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.conducting import study

from benchmarks.chaos.audit import Audit
from benchmarks.chaos.disk import small_disk
from benchmarks.chaos.document import document
from benchmarks.chaos.edges import Played, files_digest
from benchmarks.chaos.moments import FIRST, Moment, moments
from benchmarks.chaos.specs import chaos_spec, evolution_spec, failing_spec, small_spec
from benchmarks.chaos.stores import own_store
from benchmarks.chaos.watch import Watch, after, always, recorded, schema, written
from olfl_ray.ledger import Ledger, Proposed
from olfl_ray.methods import check_used
from olfl_ray.spec import StudySpec, trial_config
from olfl_ray.storage.protocol import TEMPORARY
from olfl_ray.study import Home
from olfl_ray.trial import TrialEnvironment, check

CLEAN = dict.fromkeys(("duplicates", "lost", "running", "wrong", "difference"), 0)


def found(**figures: int) -> Audit:
    return Audit(**{"trials": 4, "commits": 12, "runs": 5, "points": 100, **CLEAN, **figures})


def test_moments_have_unique_names_and_a_first_start_is_killed_every_tenth_of_a_second() -> None:
    all_of_them = moments(stores=("sqlite", "postgresql"))
    names = [(moment.family, moment.name) for moment in all_of_them]
    assert len(set(names)) == len(names)
    first = [moment for moment in all_of_them if moment.family == FIRST]
    assert [moment.name for moment in first] == [f"{index / 10:.2f} s" for index in range(1, 61)]
    for what in ("second", "moved"):
        assert {moment.harm for moment in all_of_them if getattr(moment, what)} >= {"driver", "disk"}
    for verb in ("extend", "retry"):
        assert {moment.harm for moment in all_of_them if moment.verb == verb} == {"driver", "machine", "disk"}
    for store in ("sqlite", "postgresql"):
        assert {moment.harm for moment in all_of_them if moment.store == store} == {"driver", "machine", "disk"}


def test_full_disk_refuses_writes_until_it_is_freed(tmp_path: Path) -> None:
    write = "import sys, pathlib\nfor line in sys.stdin: pathlib.Path(line.strip()).write_bytes(bytes(100_000))"
    with small_disk(tmp_path / "disk") as disk:
        (disk.folder / "before").write_bytes(b"1")
        child = subprocess.Popen(
            [sys.executable, "-c", write], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        disk.fill(lambda: [child.pid])
        _, said = child.communicate(f"{disk.folder / 'during'}\n")
        assert "OSError" in said
        disk.free()
        (disk.folder / "after").write_bytes(bytes(100_000))
        assert (disk.folder / "before").read_bytes() == b"1"


def test_triggers_detect_only_what_happened_since_the_start(tmp_path: Path) -> None:
    spec, home = study(), Home(tmp_path)
    storage = home.storage(spec.name)
    ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    (old := tmp_path / "studies" / spec.name / "page").touch()
    os.utime(old, (1, 1))
    watch = Watch(tmp_path, spec.name, own_store(tmp_path))
    assert always(watch)
    assert not any(trigger(watch) for trigger in (after(60), recorded("StudyCreated"), written("page"), schema))
    ledger.append(Proposed(trial="baseline/0", params={}, seeds=[1]))
    old.touch()
    (tmp_path / ".tmp-1-mlflow.db").touch()
    assert recorded("Proposed")(watch)
    assert not recorded("Proposed", 2)(watch)
    assert written("pag*")(watch)
    assert schema(watch)


def test_homes_are_equal_if_only_the_names_of_temporary_files_differ(tmp_path: Path) -> None:
    for name, token, content in (("a", "1", "x"), ("b", "2", "x"), ("c", "1", "y")):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / f"{TEMPORARY}{token}").write_text(content)
    digests = [files_digest(tmp_path / name) for name in ("a", "b", "c", "absent")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("played", "holds"),
    [
        ({"found": [found()]}, True),
        ({"found": [found(), found(lost=1)]}, False),
        ({"found": [found()], "touched": 1}, False),
        ({"found": [found()], "problems": ("ended with 2",)}, False),
    ],
)
def test_moment_holds_without_findings_and_the_document_counts_findings(played: dict, holds: bool) -> None:
    killed = Moment(family="end of a study", name="page", reached=always)
    full = Moment(family="disk full", name="page", reached=always, harm="disk")
    one = Played(moment=killed, phase="", **played)
    assert one.holds == holds
    text = document(command="make chaos", seed=0, played=[one, Played(moment=full, phase="disk full", found=[found()])])
    (total,) = [line for line in text.splitlines() if line.startswith("| **all**")]
    cells = [cell.strip() for cell in total.split("|")[3:-1]]
    sums = [sum(getattr(each, name) for each in one.found) for name in ("lost", "duplicates", "running")]
    assert cells[:2] == ["1", "1"]
    assert cells[5:8] == [str(value) for value in sums]
    assert cells[-2:] == [str(one.touched), str(len(one.problems))]


def test_killed_sweeps_use_all_their_settings(tmp_path: Path) -> None:
    passes = {"steps": 60, "trials": 1}
    long = (chaos_spec(tmp_path / "passes", **passes), evolution_spec(tmp_path / "passes", **passes))
    for spec in (*long, small_spec(), failing_spec(tmp_path / "flag")):
        study_spec = StudySpec.model_validate(spec)
        check_used(study_spec)
        for arm in study_spec.arms:
            check(trial_config(study_spec, arm, {}, seeds=(0,)), TrialEnvironment(cache=tmp_path))

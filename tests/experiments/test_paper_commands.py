"""`python -m experiments.paper run` and `table`, for real, on a small benchmark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.commands import experiment

from experiments.paper import Result, read_results, run_row, study_of, write_table
from olfl_ray import study

INDEX = """
rows:
  small:
    title: Digits, a small MLP
    short: {learner: {steps: 40}, meta: {init_steps: 10}, eval: {every: 20}}
    notes: [A note on the row.]
  large:
    title: Digits, a large MLP
"""
ROW = """
name: small
task: {dataset: digits, model: {name: mlp, hidden: [8]}, batch_size: 16}
learner: {steps: 4000, optimizer: {name: sgd, lr: 0.1}}
search:
  pruner: none
  parameters: {learner.optimizer.lr: {min: 0.05, max: 0.2, log: true}}
arms:
  baseline: {set: {learner.method: baseline}, trials: 2}
  offline: {set: {learner.method: offline}, trials: 2}
  online: {set: {learner.method: online}, trials: 2}
  idle: {set: {learner.method: baseline, learner.optimizer.weight_decay: 9.9, learner.optimizer.lr: 0.1}, trials: 2}
replicates: 1
checkpoint: {every_steps: 20}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rows, and a home in which one was run at fixed settings."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "rows").mkdir()
    (folder / "rows" / "rows.yaml").write_text(INDEX)
    (folder / "rows" / "small.yaml").write_text(ROW)
    fixed = ("--settings", "fixed", "--scale", "short", "--seeds", 2)
    done = experiment("run", "small", *fixed, "--home", "home", "--folder", "rows", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def begin(place: Path, home: str, seeds: int) -> None:
    """Start the row in a home, with no time for a trial."""
    no_time = ["budget.study_seconds=0.001"]
    spec = study_of("small", folder=place / "rows", settings="fixed", scale="short", seeds=seeds, overrides=no_time)
    run_row(spec, home=study.Home(place / home))


def table(place: Path, home: str) -> str:
    """The document, written in this process: a new one would take seconds to start."""
    docs = place / "docs"
    write_table(docs, docs / "summary.md", folder=place / "rows", home=study.Home(place / home))
    return (docs / "RESULTS.md").read_text()


def test_methods_share_fresh_seeds_that_no_search_saw(place: Path) -> None:
    trials = study.Study.open("paper-small-fixed-short", home=place / "home").state.trials.values()
    searched = {seed for trial in trials if not trial.id.confirming for seed in trial.seeds}
    reported = {
        arm: {seed for trial in trials if trial.id.arm == arm and trial.id.confirming for seed in trial.seeds}
        for arm in ("baseline", "offline", "online")
    }
    assert reported["baseline"] == reported["offline"] == reported["online"]
    assert len(reported["online"]) == 2
    assert not searched & reported["online"]


def test_document_shows_what_was_run_and_what_was_not(place: Path) -> None:
    options = ("--home", "home", "--folder", "rows", "--out", "docs", "--summary", "docs/summary.md")
    done = experiment("table", *options, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (place / "docs" / "RESULTS.md").read_text()
    assert len(re.findall(r"^\| Digits, a small MLP \| fixed \| short, 40 \| 2 \|", text, re.MULTILINE)) == 1
    assert "Not run at fixed settings: Digits, a large MLP.\n" in text
    assert "Not run at tuned settings: Digits, a small MLP; Digits, a large MLP.\n" in text
    assert "- **online (AdaLFL) against task loss**: " in text
    assert "- A note on the row." in text
    assert "2 trials at a time with 1 thread each" in text
    (result,) = read_results(place / "docs" / "results")
    assert [(one.arm, len(one.errors), len(one.smoothing), len(one.reached)) for one in result.methods] == [
        ("baseline", 2, 0, 2),
        ("offline", 2, 2, 2),
        ("online", 2, 2, 2),
        ("idle", 0, 0, 2),
    ]
    assert set(result.methods[-1].lost.values()) == {"no better than a constant"}, "its weights decay to nothing"
    assert set(result.methods[0].reached.values()) <= {20, 40}, "the baseline reaches its own last error"
    assert result.methods[0].rate == pytest.approx((0.1, 0.1)), "the task loss steps as far as the task loss"
    pictures = re.findall(r"\((pictures/.*?\.svg)\)", text)
    assert [path.split("-")[-1] for path in pictures] == ["fixed.svg", "training.svg", "losses.svg"]
    losses = (place / "docs" / "pictures" / "paper-small-fixed-short-losses.svg").read_text()
    assert re.findall(r">(after step .*|frozen)<", losses) == ["frozen", "after step 0", "after step 40"]
    for path in pictures:
        assert (place / "docs" / path).read_text().startswith("<svg")


def test_results_of_another_machine_are_kept(place: Path) -> None:
    """The document is the same where the studies themselves are not."""
    text = table(place, "home")
    assert table(place, "elsewhere") == text


def test_a_row_that_has_only_begun_here_leaves_what_was_kept(place: Path) -> None:
    text = table(place, "home")
    drawn = {path: path.read_text() for path in (place / "docs").rglob("*.svg")}
    begin(place, "begun", seeds=2)
    assert study.Study.open("paper-small-fixed-short", home=place / "begun").state.trials == {}
    assert table(place, "begun") == text
    assert {path: path.read_text() for path in drawn} == drawn


def test_a_whole_result_stays_until_the_study_here_is_whole(place: Path) -> None:
    text = table(place, "home")
    shutil.copytree(place / "home", place / "further")
    begin(place, "further", seeds=3)
    assert table(place, "further") == text
    kept = place / "docs" / "results" / "paper-small-fixed-short.json"
    older = Result.model_validate_json(kept.read_bytes())
    kept.write_text(older.model_copy(update={"seeds": 4}).model_dump_json())
    assert "incomplete: 2 of 3 seeds of online" in table(place, "further"), "neither is whole: what is here counts"
    assert table(place, "home") == text


def test_a_torn_result_and_a_folder_that_cannot_be_written_are_told(place: Path) -> None:
    torn = place / "torn" / "results" / "paper-small-fixed-short.json"
    torn.parent.mkdir(parents=True)
    torn.write_text('{"row": "small"')
    for docs, says in (("torn", "paper-small-fixed-short.json"), ("rows/small.yaml", "rows/small.yaml")):
        done = experiment(
            "table", "--home", "elsewhere", "--folder", "rows", "--out", docs, "--summary", "docs/summary.md", cwd=place
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert says in done.stderr


def test_running_a_finished_row_again_does_nothing(place: Path) -> None:
    spec = study_of("small", folder=place / "rows", settings="fixed", scale="short", seeds=2)
    assert run_row(spec, home=study.Home(place / "home")).nothing_to_do

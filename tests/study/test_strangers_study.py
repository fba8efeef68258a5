"""A study that a stranger handed over is looked at without harm: nothing is written through it, shown raw, or waited for."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run
from support.conducting import study as small_study

from olfl_ray.ledger import Began, DriverStarted, Ended, Event, Ledger, Proposed
from olfl_ray.ledger.codec import encode, seal
from olfl_ray.spec import printable
from olfl_ray.storage import LocalStorage, Storage, open_storage

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with one study, s, of a failed trial."""
    spec = small_study()
    storage = open_storage(tmp_path / "home" / "studies" / "s")
    ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, "s", {})
    ledger.append(DriverStarted(epoch=1, host=f"host{ESCAPE}", pid=1))
    ledger.append(Proposed(trial="online/0", params={"learner.optimizer.lr": 0.05}, seeds=[1, 2]))
    ledger.append(Began(trial="online/0", attempt=1))
    cause = f"=cmd|' /C calc'!A0 <script>alert(1)</script> {ESCAPE}"
    ledger.append(Ended(trial="online/0", state="failed", step=0, value=None, metrics={}, cause=cause))
    return tmp_path / "home"


def test_the_report_is_written_through_no_link(home: Path, tmp_path: Path, here: Run) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "trials.csv").write_text("mine")
    report = home / "studies" / "s" / "report"
    (report / "tables").mkdir(parents=True)
    (report / "tables" / "trials.csv").symlink_to(treasure / "trials.csv")
    (report / "pictures").symlink_to(treasure)
    code, _, err = here("sweep", "report", "s", "--home", home)
    assert code == 0, err
    assert not (report / "tables" / "trials.csv").is_symlink()
    assert not (report / "pictures").is_symlink()
    assert {file.name: file.read_text() for file in treasure.iterdir()} == {"trials.csv": "mine"}
    assert not list(report.parent.glob(".tmp-*"))

    os.rename(report, report.with_name("aside"))
    report.symlink_to(treasure)
    code, _, err = here("sweep", "report", "s", "--home", home)
    assert (code, err.count("\n"), "is a link" in err) == (2, 1, True), err
    assert {file.name: file.read_text() for file in treasure.iterdir()} == {"trials.csv": "mine"}


def test_a_link_within_a_study_leads_no_writer_elsewhere(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "study")
    storage.write("spec", b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study" / "trials").symlink_to(tmp_path / "elsewhere")
    writers: list[Callable[[], Any]] = [
        lambda: storage.write("trials/a/0", b"x"),
        lambda: storage.write_all({"trials/b": b"x"}),
        lambda: storage.create("trials/c", b"x"),
        lambda: storage.delete("trials/kept"),
    ]
    (tmp_path / "elsewhere" / "kept").touch()
    for write in writers:
        with pytest.raises(Exception, match="is a link"):
            write()
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["kept"]


def test_tables_for_people_hold_no_html_and_no_formula(home: Path, here: Run) -> None:
    assert here("sweep", "report", "s", "--home", home)[0] == 0
    tables = home / "studies" / "s" / "report" / "tables"
    (row,) = csv.DictReader((tables / "trials.csv").read_text(encoding="utf-8").splitlines())
    assert row["cause"].startswith("'=cmd")
    for file in (tables / "trials.csv", tables / "arms.csv", tables / "arms.md"):
        assert not re.search(r"<script|[\x00-\x08\x0b-\x1f\x7f-\x9f]", file.read_text(encoding="utf-8")), file


def test_no_escape_sequence_of_a_study_reaches_the_terminal(home: Path, here: Run) -> None:
    os.mkdir(home / "studies" / f"n{ESCAPE}")
    said = [here(*command, "--home", home) for command in (("sweep", "list"), ("sweep", "status", "s"))]
    said.append(here("sweep", "report", f"n{ESCAPE}", "--home", home))
    for _, out, err in said:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + err), (out, err)
    assert "\N{REPLACEMENT CHARACTER}]0;owned" in said[0][1]


def test_the_live_view_and_a_librarys_warning_pass_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    from olfl_ray.cli.terminal import log_to_terminal
    from olfl_ray.study.view import StudyView
    from olfl_ray.terminal import Terminal

    with StudyView(small_study(), Terminal()) as view:
        spec = small_study().model_dump(mode="json", by_alias=True)
        from olfl_ray.ledger import StudyState

        state = StudyState(name="s", digest="", spec=spec, versions={}, created_at=0.0)
        view.watch(DriverStarted(epoch=1, host=ESCAPE, pid=1), state)
    before = logging.lastResort
    try:
        log_to_terminal()
        logging.lastResort.handle(logging.makeLogRecord({"msg": ESCAPE, "levelno": logging.WARNING}))  # type: ignore[union-attr]
    finally:
        logging.lastResort = before
    out, err = capfd.readouterr()
    assert "driver started" in out
    assert "owned" in err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + err)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b[2Jb", "a\N{REPLACEMENT CHARACTER}[2Jb"),
        ("\x9b\x07\x00\r", "\N{REPLACEMENT CHARACTER}" * 4),
        ("née\n\t±", "née\n\t±"),
    ],
)
def test_text_keeps_its_letters_and_loses_what_moves_a_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown


def second(event: Event) -> bytes:
    return encode(2, "w", event)


def crafted() -> dict[str, bytes]:
    """Second events that pass every checksum."""
    deep = b"[" * 100_000 + b"]" * 100_000
    return {
        "a list": seal(b"[2]"),
        "no event": seal(b'{"number":2,"event":[]}\n'),
        "depth": seal(b'{"number":2,"event":{"kind":' + deep + b"}}\n"),
        "a text for a number": seal(
            b'{"number":2,"event":{"kind":"DriverStarted","time":0.0,"epoch":"1","host":"h","pid":1}}\n'
        ),
        "a number that no column holds": second(Proposed(trial="online/0", params={}, seeds=[2**70])),
        "params of another kind": seal(
            b'{"number":2,"event":{"kind":"Proposed","time":0.0,"trial":"online/0","params":[],"seeds":[1]}}\n'
        ),
        "a float of another kind": seal(b'{"number":2,"event":{"kind":"Revised","time":0.0,"spec":{"$float":[]}}}\n'),
        "out of turn": second(Ended(trial="online/7", state="failed", step=0, value=None, metrics={}, cause="c")),
    }


@pytest.mark.parametrize("kind", crafted())
@pytest.mark.parametrize("command", ["status", "report", "list"])
def test_a_crafted_ledger_is_one_sentence_that_names_the_file(kind: str, command: str, home: Path, here: Run) -> None:
    storage: Storage = open_storage(home / "studies" / "s")
    storage.write("ledger/000000002.json", crafted()[kind])
    code, out, err = here("sweep", command, *(["s"] if command != "list" else []), "--home", home)
    said = out if command == "list" else err
    assert (code, said.count("\n")) == (0 if command == "list" else 2, 1), said
    assert "ledger/000000002.json" in said
    assert "bug" not in said


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", seal(b'{"events":1}'), seal(b"[]\n"), seal(b'{"events":{}}\nx\n')]
)
def test_a_crafted_compaction_is_left_aside(content: bytes, home: Path) -> None:
    storage = open_storage(home / "studies" / "s")
    before = Ledger.load(storage).state
    storage.write("ledger/compacted.jsonl", content)
    assert Ledger.load(storage).state == before


@pytest.mark.parametrize(
    "event",
    [
        Proposed(trial="nowhere/1", params={}, seeds=[1]),
        Proposed(trial="online/1", params={"no.such": {"field": []}}, seeds=[1]),
        Ended(
            trial="online/1", state="finished", step=2**62, value=float("nan"), metrics={"test/error": []}, cause=None
        ),
    ],
    ids=["an arm that is not there", "a field that is not there", "values that are none"],
)
def test_a_study_with_odd_trials_is_still_reported_or_refused(event: Event, home: Path, here: Run) -> None:
    ledger = Ledger.load(open_storage(home / "studies" / "s"))
    if isinstance(event, Ended):
        ledger.append(Proposed(trial="online/1", params={"learner.optimizer.lr": 0.01}, seeds=[1]))
        ledger.append(Began(trial="online/1", attempt=1))
    ledger.append(event)
    for command in ("status", "report"):
        code, _, err = here("sweep", command, "s", "--home", home)
        assert code in (0, 2), err
        assert "bug" not in err


def test_a_pipe_in_a_study_is_not_waited_for(home: Path, here: Run) -> None:
    folder = home / "studies" / "s"
    (folder / "ledger" / "000000002.json").unlink()
    os.mkfifo(folder / "ledger" / "000000002.json")
    code, _, err = here("sweep", "status", "s", "--home", home)
    assert (code, "000000002.json" in err) == (2, True), err


def test_a_home_is_for_its_user_alone_whatever_the_umask(tmp_path: Path, here: Run) -> None:
    before = os.umask(0)
    try:
        assert here("sweep", "list", "--home", tmp_path / "new")[0] == 0
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

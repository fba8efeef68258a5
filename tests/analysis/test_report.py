"""The report's page: what it says, that nothing of a study runs in it, and that its figures are plotly's."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.recorded import BASE, ONLINE, add, add_confirmed, make_ledger, make_spec

from olfl_ray.analysis import as_markdown, final_table, write_report
from olfl_ray.analysis.canvas import style
from olfl_ray.ledger import DriverStarted, Examined, Ledger, Proposed
from olfl_ray.storage import Storage, open_storage

EVIL = "<script>alert(1)</script>"
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
JSON = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "study")


def examined(arm: str, **facts: Any) -> Examined:
    goals = {"task_loss": "minimize", "error": "minimize"}
    learns = arm != "baseline"
    return Examined(
        arm=arm,
        data="d" * 64,
        code={},
        task="classification",
        primary="error",
        goals=goals,
        units={},
        learns=learns,
        **facts,
    )


def record_all(storage: Storage) -> Ledger:
    """Three arms; every kind of end; hostile text wherever a study has text of its own."""
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    ledger.append(
        DriverStarted(epoch=1, host="node-7", pid=1, machine={"processor": "Abacus 9"}, versions={"torch": "9.9"})
    )
    splits = {"train": 640, "meta": 80, "selection": 80, "test": 200, "batch": 64}
    facts: dict[str, Any] = {
        "shape": [64],
        "outputs": 2,
        "classes": [750, 250],
        "splits": splits,
        "trivial": {"error": 0.25},
    }
    for arm in spec.arms:
        ledger.append(examined(arm, **facts))
    add_confirmed(ledger, storage, "baseline", BASE, curve=True)
    add_confirmed(ledger, storage, "online", ONLINE, curve=True)
    add(ledger, storage, "online/1", lr=0.01, value=0.07, state="pruned")
    add(ledger, storage, "online/2", lr=0.2, value=None, state="diverged")
    add(ledger, storage, "online/3", lr=0.1, value=0.13)
    add(ledger, storage, "offline/0", state="failed", value=None, cause=f"ValueError: {EVIL}\nTraceback\n  line 1")
    return ledger


def write(ledger: Ledger, storage: Storage, out: Path, **more: Any) -> str:
    more = {"importances": {"online": {"learner.optimizer.lr": 0.7, f"meta.{EVIL}": 0.3}}, **more}
    page = write_report(spec=make_spec(), state=ledger.state, storage=storage, out=out, **more)
    return page.read_text(encoding="utf-8")


def without_scripts(page: str) -> str:
    return SCRIPT.sub("", page)


def figures(page: str) -> dict[str, Any]:
    names = re.findall(r'<figure id="([^"]+)">', page)
    return dict(zip(names, map(json.loads, JSON.findall(page)), strict=True))


def test_page_answers_what_a_researcher_asks(storage: Storage, tmp_path: Path) -> None:
    notes = {
        arm: {"name": "birds", "rows": 1000, "source": "mine", "classes": ["owl", EVIL]} for arm in make_spec().arms
    }
    ledger = record_all(storage)
    page = without_scripts(
        write(ledger, storage, tmp_path / "out", data=notes, links={"online/3": "https://m.lan/run/1"})
    )
    text = html.unescape(re.sub(r"<[^>]+>", "|", page))
    # Data: examples, classes and shares, splits, the best constant prediction.
    for fact in ("birds", "1,000", "owl", "75.00%", "train 640, meta 80, validation 80, test 200", "error 0.2500"):
        assert fact in text, fact
    # Cost: six trials of 300 steps, the search trial with two seeds; batches of 64 of 640 examples; a quarter of the rate.
    (cost,) = re.findall(r"baseline\|+6\|+([^\n]+)", text)
    assert [cell for cell in cost.split("|") if cell][:2] == ["2,100", "210"]
    assert "× 4" in text
    # Seeds, failures with their cause, machine, versions, dates, runs.
    for fact in ("100|", "0.0800", "ValueError", "line 1", "Abacus 9", "torch 9.9", "node-7", "UTC", "--failed"):
        assert fact in text, fact
    assert '<a href="https://m.lan/run/1" rel="noreferrer">online/3</a>' in page
    tables = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    assert tables == {"arms.csv", "arms.md", "arms.parquet", "curves.parquet", "trials.csv", "trials.parquet"}
    assert all(f'href="tables/{name}"' in page for name in tables)


def test_tables_have_all_records_and_trials(storage: Storage, tmp_path: Path) -> None:
    ledger = record_all(storage)
    write(ledger, storage, tmp_path / "out")
    tables = tmp_path / "out" / "tables"
    assert pq.read_table(tables / "curves.parquet").num_rows == 10 * 3 * 5
    assert pq.read_table(tables / "trials.parquet").num_rows == len(ledger.state.trials)
    assert (tables / "arms.md").read_text(encoding="utf-8") == as_markdown(
        final_table(make_spec(), ledger.state, storage)
    )


def test_nothing_of_a_study_runs_and_nothing_is_requested(storage: Storage, tmp_path: Path) -> None:
    notes = {"baseline": {"name": EVIL, "rows": 5, "classes": []}}
    links = {"online/3": "javascript:alert(1)"}
    page = write(record_all(storage), storage, tmp_path / "out", data=notes, links=links)
    scripts = SCRIPT.findall(page)
    allowed = re.findall(r"'sha256-([^']+)'", page)
    hashes = {base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts}
    assert len(scripts) == 2
    assert hashes == set(allowed)
    rest = without_scripts(page)
    assert "default-src 'none'" in rest
    assert "unsafe-eval" not in rest
    assert EVIL not in rest
    assert "alert(1)" in rest  # as text
    assert not re.search(r"""(src|href)=["']?javascript:""", rest)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", rest)


def test_figures_follow_plotlys_schema_and_have_one_color_per_arm(storage: Storage, tmp_path: Path) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    found = figures(write(record_all(storage), storage, tmp_path / "out"))
    assert list(found) == [
        "seeds", "learning-curves", "gradients", "learned-loss-0", "learned-loss-1", "search-history", "importances",
        "parallel-1",
    ]  # fmt: skip
    for figure in found.values():
        go.Figure(figure)  # raises for a name or a value that plotly does not know
    for place, arm in enumerate(("baseline", "online")):
        color, _ = style(place)
        assert [t["line"]["color"] for t in found["learning-curves"]["data"] if t.get("name", "").startswith(arm)] == [
            color
        ]
        assert [t["line"]["color"] for t in found["gradients"]["data"] if t.get("name") == arm] == [color]
        assert [
            t["line"]["color"] for t in found["search-history"]["data"] if t.get("name") == f"{arm}, best so far"
        ] == [color]
    cosines = [trace["y"] for trace in found["gradients"]["data"] if trace.get("yaxis") == "y2"]
    assert cosines == [[0.25, 0.5, 0.75]] * 2


def test_search_history_starts_where_the_good_trials_are(storage: Storage, tmp_path: Path) -> None:
    ledger = make_ledger(storage, make_spec())
    for ordinal, value in enumerate((0.101, 0.103, 0.102, 0.104, 0.9, 0.8, 0.7)):
        add(ledger, storage, f"online/{ordinal}", value=value)
    figure = figures(write(ledger, storage, tmp_path / "out", importances={}))["search-history"]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < 0.101
    assert 0.104 < high < 0.7
    better, everything = (button["args"] for button in figure["layout"]["updatemenus"][0]["buttons"])
    assert better[1]["yaxis.range"] == [low, high]
    assert everything[1]["yaxis.range"][1] > 0.9
    (edge,) = (figure["data"][place] for place in better[2])
    assert [text.partition("</b>")[0] for text in edge["text"]] == ["<b>online/4", "<b>online/5", "<b>online/6"]


def test_arms_beyond_the_palette_differ_by_their_dash() -> None:
    assert len({style(place) for place in range(28)}) == 28


def test_study_without_trials_and_of_an_older_version_has_a_report(storage: Storage, tmp_path: Path) -> None:
    ledger = make_ledger(storage, make_spec())
    page = write(ledger, storage, tmp_path / "empty", importances={})
    assert "No trial has started yet" in page
    assert figures(page) == {}
    ledger.append(Proposed(trial="online/0", params={}, seeds=[0]))
    for event in (DriverStarted(epoch=1, host="h", pid=1), examined("online")):
        newer = ("machine", "versions", "shape", "outputs", "classes", "splits", "trivial")
        old = {name: value for name, value in event.to_json().items() if name not in newer}
        ledger.append(type(event).from_json(old))
    page = without_scripts(write(ledger, storage, tmp_path / "old", data={"online": {"name": "x", "rows": 3}}))
    assert "planned" in page
    assert "share" not in page.partition('id="data"')[2].partition('id="cost"')[0]


def test_plotly_and_jinja_are_loaded_only_to_write_a_page() -> None:
    code = "import sys, olfl_ray.analysis; print(sorted({'plotly', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if CHROMIUM is not None:  # `make test` needs no browser, and in CI a skipped test fails

    def test_a_browser_draws_every_figure_without_an_error(storage: Storage, tmp_path: Path) -> None:
        page = write(record_all(storage), storage, tmp_path / "out")
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=20000",
            "--dump-dom",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            (tmp_path / "out" / "index.html").as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        assert without_scripts(done.stdout).count('class="js-plotly-plot"') == len(figures(page))


def test_metrics_of_methods_and_weights_are_drawn_and_stand_in_the_table(storage: Storage, tmp_path: Path) -> None:
    spec = make_spec({"baseline": "baseline", "online": "online"})
    ledger = make_ledger(storage, spec)
    for arm in spec.arms:
        ledger.append(examined(arm))
        add(ledger, storage, f"{arm}/0")
    add(ledger, storage, "baseline/c0", test=[0.2], curve=True)
    more = {"phi/strength": 0.01, "selection/group_sparsity": 0.5, "test/group_sparsity": 0.5}
    for index in range(2):
        add(ledger, storage, f"online/c{index}", test=[0.1], curve=True, more=more)
    baseline, online = final_table(spec, ledger.state)
    assert not baseline.described
    assert [(one.metric, one.mean, one.n) for one in online.described] == [("group_sparsity", 0.5, 2)]
    page = write_report(spec=spec, state=ledger.state, storage=storage, out=tmp_path / "report", importances={})
    text = page.read_text(encoding="utf-8")
    assert "group_sparsity 0.5000 ± 0.0000" in text
    figures = [json.loads(html.unescape(own)) for own in JSON.findall(text)]
    titles = [figure["layout"].get("yaxis", {}).get("title", {}).get("text") for figure in figures]
    assert [title for title in titles if title in more] == ["phi/strength", "selection/group_sparsity"]

"""In a notebook a running study is one cell that is drawn again; elsewhere it is lines on standard output."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from support.conducting import study as small_study

from olfl_ray.ledger import DriverStarted, Ended, StudyState, TrialId, TrialState
from olfl_ray.study.view import NotebookView, StudyView, view_for


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """IPython as a kernel has it: what is displayed is kept."""
    shell = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher(parent=shell, shell=shell)
    monkeypatch.setattr(shell, "display_pub", publisher)
    monkeypatch.setattr(shell, "kernel", SimpleNamespace(), raising=False)
    yield SimpleNamespace(sent=publisher.outputs)
    InteractiveShell.clear_instance()


def state(**trials: str) -> StudyState:
    found = {
        f"online/{index}": TrialState(
            id=TrialId("online", str(index)), params={}, seeds=(1,), state=stage, step=5, value=0.25, proposed_at=0.0
        )
        for index, stage in enumerate(trials.values())
    }
    spec = small_study().model_dump(mode="json", by_alias=True)
    return StudyState(name="s<b>", digest="", spec=spec, versions={}, created_at=0.0, trials=found)  # type: ignore[arg-type]


def ended(trial: str, stage: str, cause: str | None = None) -> Ended:
    return Ended(trial=trial, state=stage, step=5, value=0.25, metrics={}, cause=cause)  # type: ignore[arg-type]


def test_one_cell_is_updated_and_holds_the_last_messages(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    view = view_for(small_study())
    assert isinstance(view, NotebookView)
    with view:
        view.watch(DriverStarted(epoch=1, host="h", pid=1), state())
        view.watch(ended("online/0", "failed", "ValueError: <boom>\nTraceback"), state(a="failed"))
    first, *updates = shell.sent
    assert updates
    assert {output["transient"]["display_id"] for output in shell.sent} == {first["transient"]["display_id"]}
    assert all(output["update"] for output in updates)
    html = updates[-1]["data"]["text/html"]
    assert "study s&lt;b&gt;" in html
    assert "ValueError: &lt;boom&gt;" in html
    assert "<td>online</td><td>0</td><td>0</td><td>0</td><td>0</td><td>1</td>" in html
    assert "1 of 10 trials" in html
    assert "text/html" not in capsys.readouterr().out


def test_many_events_are_few_drawings(shell: Any) -> None:
    with NotebookView(small_study()) as view:
        for _ in range(500):
            view.watch(ended("online/0", "finished"), state(a="finished"))
    assert 2 <= len(shell.sent) < 100


def test_without_a_kernel_it_is_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    view = view_for(small_study())
    assert type(view) is StudyView
    with view:
        view.watch(DriverStarted(epoch=1, host="h", pid=1), state())
        view.watch(ended("online/0", "finished"), state(a="finished"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("driver started on h (process 1)")
    assert lines[1].startswith("online/0 finished at step 5")

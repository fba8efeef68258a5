"""A picture of MLflow's page with a study's runs, by headless Chromium spoken to over its DevTools pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

__all__ = ["BROWSERS", "picture", "runs_of"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars"),
)
COLUMNS = (
    *("attributes.`Duration`", "metrics.`selection/error`", "metrics.`train/task_loss`", "metrics.`test/error`"),
    *("params.`learner.optimizer.lr`", "tags.`olfl.state`"),
)
VIEW = "demo"
"""Name of the shared view that the page is opened in; it says which columns the page has."""
SIZE = {"width": 1440, "height": 1180}
PATIENCE = 60.0
"""Seconds that the page may take."""
SHOWN = "[...document.querySelectorAll('[col-id=runName] a, [role=gridcell] a')].filter(link => link.innerText)"
UNFOLD = f"{SHOWN}[0].closest('[role=gridcell]').querySelector('button').click()"
HIDE_BANNER = "document.querySelector('[data-component-id$=\"shared_view.dismiss\"]').click()"


def picture(server: str, study: str, experiment: str, file: Path) -> bool:
    """Write a picture of a study's runs as MLflow's page shows them; false where no browser is installed.

    Args:
        server: URL of the MLflow server.
        study: Name of its parent run.
        experiment: Name of the experiment.
        file: The PNG; its folder is made.

    Raises:
        TimeoutError: The page did not show the runs in time.
    """
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        return False
    url = _share_view(server, study, experiment)
    with tempfile.TemporaryDirectory(prefix="olfl-page-", ignore_cleanup_errors=True) as profile:
        browser = _Browser(program, profile)
        try:
            browser.ask("Page.enable")
            # MLflow opens its assistant beside the runs the first time that a browser comes.
            for key, value in (("fab.autoOpenedOnFirstLoad", "true"), ("panelOpen", "false")):
                source = f"localStorage.setItem('mlflow.assistant.{key}_v1', '{value}')"
                browser.ask("Page.addScriptToEvaluateOnNewDocument", source=source)
            browser.ask("Emulation.setDeviceMetricsOverride", **SIZE, deviceScaleFactor=1, mobile=False)
            browser.ask("Page.navigate", url=url)
            browser.wait(f"{SHOWN}.length == 1")
            browser.evaluate(HIDE_BANNER)
            browser.evaluate(UNFOLD)
            browser.wait(f"{SHOWN}.length > 5")
            time.sleep(1.0)
            data = browser.ask("Page.captureScreenshot", format="png")["data"]
        finally:
            browser.close()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(base64.b64decode(data))
    return True


def runs_of(server: str, study: str, experiment: str) -> list[Run]:
    """A study's runs: its own, and one a trial."""
    client = MlflowClient(server)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], f"tags.`olfl.study` = '{study}'", max_results=1000))


def _share_view(server: str, study: str, experiment: str) -> str:
    """Put a shared view of the experiment on the server, with the study's runs in the columns above; its URL."""
    client = MlflowClient(server)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    view = {"selectedColumns": COLUMNS, "searchFilter": f"tags.`olfl.study` = '{study}'"}
    client.set_experiment_tag(found.experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))
    page = f"{server}/#/experiments/{found.experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={VIEW}"


class _Browser:
    """One page of a headless browser that lives in a profile of its own.

    Args:
        program: The browser.
        profile: An empty folder.
    """

    def __init__(self, program: str, profile: str) -> None:
        to_browser, commands = os.pipe()
        answers, from_browser = os.pipe()

        def as_fds_3_and_4() -> None:
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        command = [program, *QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_fds_3_and_4,
            pass_fds=(3, 4),
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._session, self._last = "", 0
        pages = self.ask("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to one command."""
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(
            json.dumps({"id": self._last, "method": method, "params": params, **session}).encode() + b"\0"
        )
        self._commands.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._last:
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition holds in the page."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"MLflow's page did not show the runs within {PATIENCE:g} s")
            time.sleep(0.2)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> bytes:
        data = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            data += byte
        return bytes(data)

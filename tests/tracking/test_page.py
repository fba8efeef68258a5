"""MLflow's page requires the URL that `olfl ui` printed, and serves no file outside the home folder."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.commands import start, wait_until
from support.conducting import study as small_study

from olfl_ray.errors import StudyError
from olfl_ray.ledger import Ledger
from olfl_ray.remote import locate
from olfl_ray.storage import Lease, open_storage
from olfl_ray.study import Home, Study

LIST = "/ajax-api/2.0/mlflow/artifacts/list?run_id="
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=10"


def status(url: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> int:
    """Status of the response to a client without a cookie."""
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, dict[str, str]]]:
    """A server for a home folder: its address, its secret, and one run per experiment, named by artifact location."""
    folder = tmp_path_factory.mktemp("ui")
    home, outside = folder / "home", folder / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("mine")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    places = {
        "home": (home / "artifacts").as_uri(),
        "outside": outside.as_uri(),
        "etc": "file:///etc",
        "up": f"{(home / 'artifacts').as_uri()}/../../outside",
        "s3": "s3://somebodys-bucket/x",
    }
    home.mkdir(exist_ok=True)
    runs = {}
    for name, place in places.items():
        made = client.create_run(client.create_experiment(name, place))
        runs[name] = made.info.run_id
    client.log_text(runs["home"], "hello", "note.txt")
    server = start("ui", "--home", home, "--port", 0, cwd=folder, log="log")
    log = folder / "log"
    try:
        wait_until(lambda: "?secret=" in log.read_text() or server.poll() is not None, 120)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?secret=(\S+)", log.read_text())
        assert found is not None, log.read_text()
        yield found[1], found[2], runs
    finally:
        os.kill(server.pid, signal.SIGINT)
        server.wait(30)


def test_the_url_leads_to_the_model_training_view(page: tuple[str, str, dict[str, str]]) -> None:
    address, secret, _ = page
    with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", f"/?secret={secret}")
        answer = connection.getresponse()
        answer.read()
    assert (answer.status, answer.headers["location"]) == (303, "/#/experiments?workflowType=machine_learning")


def test_other_users_of_the_machine_have_no_access(page: tuple[str, str, dict[str, str]]) -> None:
    url, secret, runs = page
    wrong = [{}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {secret}"}, {"Cookie": "olfl-1=x"}]
    create = json.dumps({"name": "theirs", "artifact_location": "file:///etc"}).encode()
    delete = json.dumps({"run_id": runs["home"]}).encode()
    for headers in wrong:
        for path in ("/", "/?secret=x", "/?secret=", SEARCH, LIST + runs["home"], "/get-artifact?path=note.txt"):
            assert status(url + path, headers) == 401
        as_json = {**headers, "Content-Type": "application/json"}
        assert status(f"{url}/api/2.0/mlflow/experiments/create", as_json, create) == 401
        assert status(f"{url}/api/2.0/mlflow/runs/delete", as_json, delete) == 401


def test_printed_url_opens_the_page_and_sets_a_cookie(page: tuple[str, str, dict[str, str]]) -> None:
    url, secret, runs = page
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with browser.open(f"{url}/?secret={secret}", timeout=30) as answer:
        assert answer.status == 200
        assert secret not in answer.url
    (cookie,) = jar
    assert cookie.has_nonstandard_attr("HttpOnly")
    with browser.open(url + LIST + runs["home"], timeout=30) as answer:
        assert [file["path"] for file in json.load(answer)["files"]] == ["note.txt"]


@pytest.mark.parametrize("where", ["outside", "etc", "up", "s3"])
def test_no_artifact_outside_the_home_folder_is_served_even_with_the_secret(
    where: str, page: tuple[str, str, dict[str, str]]
) -> None:
    url, secret, runs = page
    bearer: dict[str, Any] = {"Authorization": f"Bearer {secret}"}
    assert status(url + SEARCH, bearer) == 200
    assert status(url + LIST + runs["home"], bearer) == 200
    assert status(url + LIST + runs[where], bearer) == 403
    for file in ("secret.txt", "passwd"):
        assert status(f"{url}/get-artifact?path={file}&run_uuid={runs[where]}", bearer) == 403


def test_study_found_only_through_mlflow_is_read_and_never_run(
    page: tuple[str, str, dict[str, str]], s3_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, secret, runs = page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    peer = MlflowClient(url)
    for tag, value in (("study", "s"), ("trial", "study"), ("storage", s3_place)):
        peer.set_tag(runs["home"], f"olfl.{tag}", value)
    spec, place = small_study(), open_storage(f"{s3_place}/s")
    Ledger.create(place, spec.model_dump(mode="json", by_alias=True), spec.digest, "s", {})
    home = Home.find(tmp_path / "home")
    run: list[Any] = [
        lambda: Study.open("s", home=home).resume(progress=False),
        lambda: Study.open("s", home=home).retry(progress=False),
        lambda: Study.open("s", home=home).extend(1, progress=False),
        lambda: Study.open("s", home=home).stop(),
    ]
    for _ in range(2):
        assert locate("s", home=home).url == place.url
        assert Study.open("s", home=home).state.name == "s"
        for attack in run:
            with pytest.raises(StudyError, match="storage="):
                attack()
    assert len(Ledger.load(place).events) == 1
    locate("s", home=home, storage=s3_place)
    locate("s", home=home)  # a location given by the user is kept
    with Lease.acquire(place, "another driver"), pytest.raises(StudyError, match="held by another driver"):
        Study.open("s", home=home).resume(progress=False)

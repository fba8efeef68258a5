"""Services for tests and the demo: one that does not start is reported at once; the local cluster's command explains itself."""

import http.client
import os
import pwd
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest

from benchmarks.services.servers import postgres, postgres_programs, s3_server, wait_for
from benchmarks.services.signed import sign
from olfl_ray.errors import SetupError
from olfl_ray.storage import open_storage

PROGRAM = Path(__file__).parents[2] / "cluster" / "local" / "cluster.py"


def test_service_that_exits_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", "print('no room'); raise SystemExit(3)"], stdout=output)
    with pytest.raises(SetupError, match=r"the store ended with code 3; its log ends: no room"):
        wait_for(lambda: None, "the store", log, child)


def test_local_cluster_that_is_not_running_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, "kill-node", "1", "--folder", tmp_path]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert refused.stderr == f"cluster: {tmp_path}: no cluster runs here; start one with `up`\n"


@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
def test_database_requires_its_users_password_and_runs_no_program(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with postgres() as uri:
        parts = urlsplit(uri)
        (passfile,) = parse_qs(parts.query)["passfile"]
        assert os.stat(passfile).st_mode & 0o077 == 0
        place = f"host=127.0.0.1 port={parts.port}"
        others = ["postgres", "mlflow", "olfl", pwd.getpwuid(os.getuid()).pw_name]
        for who in others:
            for password in ("", who):
                with pytest.raises(psycopg.OperationalError):
                    psycopg.connect(f"{place} user={who} password='{password}' dbname=postgres passfile=/dev/null")
        own = f"{place} user=mlflow dbname=runs passfile={passfile}"
        with psycopg.connect(own, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (name text)")
            for attack in (
                f"COPY kept TO PROGRAM 'touch {tmp_path}/ran'",
                "COPY kept FROM '/etc/passwd'",
                "CREATE ROLE other SUPERUSER",
                "SELECT pg_read_file('/etc/passwd')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attack)
        started = (child for child in psutil.Process().children() if child.pid not in before)
        (server,) = (child for child in started if child.name() == "postgres")
        if os.geteuid() == 0:
            groups = Path(f"/proc/{server.pid}/status").read_text().partition("Groups:")[2].partition("\n")[0].split()
            assert groups == []
            assert 0 not in server.gids()
    assert not list(tmp_path.iterdir())


def test_s3_endpoint_accepts_only_one_key_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = "local", "its-secret"
    with s3_server("studies", keys) as url:

        def status(method: str, path: str, headers: dict[str, str] | None = None) -> int:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse().status
            connection.close()
            return answer

        assert status("GET", "/studies", sign("GET", f"{url}/studies", *keys)) == 200
        own = sign("GET", f"{url}/studies", *keys)
        assert status("GET", "/studies") == 403
        assert status("PUT", "/other") == 403
        assert status("POST", "/moto-api/reset") == 403
        assert status("GET", "/studies", sign("GET", f"{url}/studies", "local", "another")) == 403
        assert status("DELETE", "/studies", own) == 403
        assert status("GET", "/studies?list-type=2", own) == 403
        assert status("GET", "/studies", {**own, "X-Amz-Date": "20200101T000000Z"}) == 403
        for name, value in (("AWS_ENDPOINT_URL", url), ("AWS_ACCESS_KEY_ID", keys[0]), ("AWS_REGION", "us-east-1")):
            monkeypatch.setenv(name, value)
        for secret in (keys[1], "another"):
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            storage = open_storage("s3://studies/a study's place")
            if secret == keys[1]:
                assert storage.create("ledger/1 é+&", b"x")
                assert storage.keys() == ["ledger/1 é+&"]
            else:
                with pytest.raises(SetupError):
                    storage.keys()

"""Ray's job server: a study's attempts are submitted, queried, followed and stopped."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import ray
import requests
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from urllib3.exceptions import LocationValueError

from olfl_ray.errors import INTERRUPTED, SetupError, StudyError

__all__ = ["Attempt", "JobServer"]

State = Literal["running", "finished", "stopped", "failed"]
STUDY, DIGEST, STORAGE, SHARED, SPEC = "olfl.study", "olfl.digest", "olfl.storage", "olfl.shared", "OLFL_SPEC"
"""Names of a job's metadata, and of the environment variable with the spec."""
VERSION = "/api/version"
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
"""Seconds for connecting to a server and reading its version, and for any other response."""
STOP_SECONDS = 600
"""Seconds that a driver has to commit after the job server's SIGTERM, before it is killed."""
NOT_FOUND = 127
for talker in (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
):
    logging.getLogger(talker).setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One driver of a study, as the job server knows it.

    Args:
        study: The study.
        number: Number of the attempt, from 1.
        state: Whether it runs (or is about to), or how it ended.
        exit_code: The driver's exit code; None while it runs, or if it was killed.
        message: The job server's message about it.
        began: When it was submitted, in seconds since 1970.
        digest: The study's digest.
        storage: The folder or bucket that holds the study's folder; empty: the home folder of the driver's node.
        shared: Whether every machine can access that folder under the same path.
        spec: The spec with which it was submitted, as JSON; empty if it was submitted by the study's name.
    """

    study: str
    number: int
    state: State
    exit_code: int | None
    message: str
    began: float
    digest: str
    storage: str
    shared: bool
    spec: str

    @property
    def id(self) -> str:
        """The submission id."""
        return f"olfl-{self.study}-{self.number}"

    @property
    def live(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state == "running"


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client with an explicit address and token: Ray's own prefers RAY_ADDRESS, and has no timeout."""

    _ssl_context: Any

    def __init__(self, address: str, token: str, verify: str | bool) -> None:
        SubmissionClient.__init__(self, address, headers={"Authorization": f"Bearer {token}"}, verify=verify)
        if not token:
            self._headers.clear()  # without that header, Ray would look for a token itself
        self._ssl_context = self._ssl_context or True  # aiohttp does not accept None

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        patience = CONNECT_SECONDS if endpoint == VERSION else ANSWER_SECONDS
        return super()._do_request(method, endpoint, timeout=(CONNECT_SECONDS, patience), **options)


class JobServer:
    """A connection to the job server of a cluster.

    Args:
        address: Its URL.
        token: Ray's token; empty: none.
        token_source: Where the token was found, for messages.
        ca_file: CA certificates for an https:// address.

    Raises:
        SetupError: There is no such server, it runs another version of Ray, or refuses the token.
    """

    def __init__(self, address: str, *, token: str = "", token_source: str = "", ca_file: Path | None = None) -> None:
        self.address = address
        self._token_source = token_source
        if ca_file is not None and not ca_file.is_file():
            raise SetupError(f"ca_file: {ca_file} does not exist; name the file with the CA certificates")
        try:
            self._client = _Client(address, token, str(ca_file) if ca_file is not None else True)
            self._check_version()
        except SetupError:
            raise
        except Exception as error:
            raise self._explained(error) from None

    def attempts(self, study: str | None = None) -> list[Attempt]:
        """The attempts that it knows, of one study or of all, sorted by study and number."""
        jobs = self._ask("list_jobs")
        found = [attempt for job in jobs if (attempt := _attempt(job)) is not None]
        return sorted((a for a in found if study in (None, a.study)), key=lambda a: (a.study, a.number))

    def newest(self, study: str) -> Attempt | None:
        """A study's newest attempt."""
        return next(reversed(self.attempts(study)), None)

    def look(self, attempt: Attempt) -> Attempt:
        """The current state of an attempt."""
        found = _attempt(self._ask("get_job_info", attempt.id))
        if found is None:
            raise StudyError(f"job {attempt.id} at {self.address} is not a study's; ids olfl-... are reserved for olfl")
        return found

    def start(
        self,
        study: str,
        number: int,
        entrypoint: str,
        *,
        digest: str,
        storage: str,
        shared: bool,
        spec: str,
        working_dir: Path | None = None,
        py_modules: Sequence[Path] = (),
    ) -> Attempt | None:
        """Submit an attempt; None if somebody else has just submitted the attempt of that number.

        Args:
            study: The study.
            number: Number of the attempt.
            entrypoint: The driver's command, for the shell of the cluster's node.
            digest: The study's digest.
            storage: The folder or bucket that holds the study's folder; empty: the home folder of the driver's node.
            shared: Whether every machine can access that folder under the same path.
            spec: The spec as JSON, which the command reads from `OLFL_SPEC`; or empty.
            working_dir: Working folder of the driver and the trials.
            py_modules: Packages that they can import.

        Raises:
            SetupError: A folder does not exist or is too large, or the server refuses.
        """
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        runtime: dict[str, Any] = {"env_vars": environment | ({SPEC: spec} if spec else {})}
        if working_dir is not None:
            runtime["working_dir"] = str(working_dir)
        if py_modules:
            runtime["py_modules"] = [str(module) for module in py_modules]
        submission = f"olfl-{study}-{number}"
        try:
            self._ask(
                "submit_job",
                entrypoint=entrypoint,
                submission_id=submission,
                runtime_env=runtime,
                metadata={STUDY: study, DIGEST: digest, STORAGE: storage} | ({SHARED: "true"} if shared else {}),
            )
        except _Refused:
            if any(attempt.number == number for attempt in self.attempts(study)):
                return None
            raise
        found = _attempt(self._ask("get_job_info", submission))
        assert found is not None
        return found

    def stop(self, attempt: Attempt) -> None:
        """Request the server to send SIGTERM to an attempt's driver; returns at once."""
        self._ask("stop_job", attempt.id)

    def forget(self, study: str) -> None:
        """Delete the ended attempts of a study from the server, with their output."""
        for attempt in self.attempts(study):
            if not attempt.live:
                self._ask("delete_job", attempt.id)

    def logs(self, attempt: Attempt) -> str:
        """All that an attempt's driver has printed."""
        return str(self._ask("get_job_logs", attempt.id))

    def tail(self, attempt: Attempt) -> Iterator[str]:
        """The output of an attempt's driver as it is printed, until the driver exits."""
        loop = asyncio.new_event_loop()
        pieces = self._client.tail_job_logs(attempt.id)
        try:
            while True:
                piece = asyncio.ensure_future(anext(pieces), loop=loop)
                try:
                    yield loop.run_until_complete(piece)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    raise self._explained(error) from None
                finally:
                    piece.cancel()  # if Ctrl-C came while waiting for it
        finally:
            loop.run_until_complete(asyncio.gather(piece, return_exceptions=True))
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def host_names(self) -> list[str]:
        """Host names of the cluster's nodes."""
        answer = self._ask("_do_request", "GET", "/nodes?view=hostnamelist")
        return [str(name) for name in answer.json().get("data", {}).get("hostNameList", [])] if answer.ok else []

    def _check_version(self) -> None:
        try:
            answer = self._client._do_request("GET", VERSION)
            theirs = str(answer.json()["ray_version"])
        except (requests.exceptions.JSONDecodeError, KeyError, TypeError):
            raise SetupError(
                f"`cluster=`: {self.address} responds, but is not a Ray job server; give the address of the cluster's dashboard"
                " (8265 is its usual port)"
            ) from None
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise SetupError(
                f"`cluster=`: the cluster at {self.address} runs Ray {theirs}, but here it is {ray.__version__}; install "
                "the same olfl_ray and Ray on both"
            )

    def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, method)(*args, **options)
        except Exception as error:
            raise self._explained(error, method) from None

    def _explained(self, error: Exception, asked: str = "") -> SetupError:
        """A message for a failed request, with the next move; never the token."""
        where = f"`cluster=`: {self.address}"
        if isinstance(error, requests.exceptions.InvalidHeader):  # its own message quotes the token
            return SetupError(
                f"{where}: the token of {self._token_source} is not one ASCII string without spaces; put Ray's token there"
            )
        if isinstance(error, requests.exceptions.InvalidURL | LocationValueError):
            return SetupError(
                f"{where} is not an address; it must be http://HOST:PORT, Ray's job server (8265 is its usual port)"
            )
        reason = _reason(error)
        if isinstance(error, AuthenticationError):
            if not self._token_source:
                return SetupError(
                    f"{where} requires a token, and none was found; set RAY_AUTH_TOKEN_PATH to Ray's token file, or "
                    "token_file in the target"
                )
            return SetupError(
                f"{where} refuses the token of {self._token_source}; put the cluster's own there (`ray get-auth-token`"
                " on its head node prints it)"
            )
        if isinstance(error, requests.exceptions.SSLError):
            if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
                return SetupError(f"{where} does not use TLS; use http:// instead of https://")
            return SetupError(
                f"{where}: its certificate is not trusted ({reason}); name its CA's certificates in the target's ca_file, or "
                "correct the host"
            )
        if isinstance(error, requests.exceptions.RequestException | OSError) and not isinstance(error, ValueError):
            tls = "; is it https://?" if urlsplit(self.address).scheme == "http" and "aborted" in str(error) else ""
            return SetupError(f"{where} can't be reached ({reason}){tls}; start the cluster, or correct the address")
        if asked == "submit_job" and isinstance(error, ValueError):
            return SetupError(
                f"`working_dir=` or `py_modules=`: {reason}; name an existing folder that holds only code"
            )
        return _Refused(f"{where} refused ({reason}); see the log of its dashboard")


class _Refused(SetupError):
    """The server refused the request."""


def _attempt(job: JobDetails) -> Attempt | None:
    about = job.metadata or {}
    study, number = about.get(STUDY), str(job.submission_id or "").rpartition("-")[2]
    if study is None or job.submission_id != f"olfl-{study}-{number}" or not number.isdecimal():
        return None
    code, status = job.driver_exit_code, str(getattr(job.status, "value", job.status))
    states: dict[str, State] = {"SUCCEEDED": "finished", "STOPPED": "stopped", "FAILED": "failed"}
    return Attempt(
        study=study,
        number=int(number),
        state="stopped" if code == INTERRUPTED else states.get(status, "running"),
        exit_code=code,
        message=job.message or "",
        began=(job.start_time or 0) / 1000,
        digest=about.get(DIGEST, ""),
        storage=about.get(STORAGE, ""),
        shared=SHARED in about,
        spec=(job.runtime_env or {}).get("env_vars", {}).get(SPEC, ""),
    )


def _reason(error: Exception) -> str:
    """The last link of a chain of causes, briefly."""
    text = str(error)
    if found := re.search(r"\[Errno -?\d+\] ([^'\"<>()\[\]]+)", text):
        return found[1].strip()
    if found := re.search(r"certificate verify failed: ([^(]+)", text):
        return found[1].strip()
    if isinstance(error, requests.exceptions.Timeout):
        return "no response in time"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]

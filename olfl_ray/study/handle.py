"""The handle of one study: run it, show its state, get its results. The command line calls nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from olfl_ray.driver import (
    Home,
    StudyResult,
    check_failed,
    check_study,
    data_summaries,
    drive,
    extended,
    placed,
    remove,
    stop_driver,
    tried_again,
)
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Ledger
from olfl_ray.methods import complete
from olfl_ray.remote import Code, RayCluster, Submission, spec_on
from olfl_ray.spec import StudySpec, located, parse_fields, read_spec
from olfl_ray.storage import Storage
from olfl_ray.study.kept import Kept
from olfl_ray.study.plan import Plan, plan_of
from olfl_ray.study.remote_study import RemoteStudy
from olfl_ray.study.single import builders_in
from olfl_ray.study.view import StudyView, view_for

__all__ = ["Study"]

Progress = bool | StudyView
"""Whether a study is shown while it runs; or the view that shows it."""
HomeLocation = str | Path | Home | None
Cluster = str | bool | RayCluster | None


class Study(Kept):
    """One study, on this machine or on a cluster.

    `Study(name=..., task=..., search=..., ...)` takes the fields of a spec as mappings or as settings of `olfl_ray.spec`. A
    builder (`task.dataset`, `task.model`, `task.loss`, `task.metrics`, `learner.method`, `loss.name`, `search.sampler`,
    `tracking`) may be a function or a class of a module.

    Args:
        home: The home folder; None: `OLFL_HOME`, else `./.olfl`.
        cluster: URL of Ray's job server, or a target of the settings file, where the study runs; True: the settings' default;
            None: here.
        code: The user's own code, which goes with a job of the cluster.
        fields: The fields of a spec.

    Raises:
        SpecError: A field breaks a rule, or a builder can't be imported by other processes.
    """

    def __init__(
        self, *, home: HomeLocation = None, cluster: Cluster = None, code: Code | None = None, **fields: Any
    ) -> None:
        self._set(parse_fields(fields), home, cluster, code)

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        overrides: Sequence[str] = (),
        *,
        name: str | None = None,
        home: HomeLocation = None,
        cluster: Cluster = None,
        code: Code | None = None,
    ) -> Study:
        """The study of a spec file.

        Args:
            path: The file; `-` is standard input.
            overrides: `a.b=c` texts, the values in YAML.
            name: Replaces the spec's name.
            home: As for the class.
            cluster: As for the class.
            code: As for the class.

        Raises:
            SpecError: The file or a field of it breaks a rule.
        """
        spec = read_spec(path, overrides, name)
        with located(path, overrides):
            study = cls.from_spec(spec, home=home, cluster=cluster, code=code)
        study._source = (path, overrides)
        return study

    @classmethod
    def from_spec(
        cls, spec: StudySpec, *, home: HomeLocation = None, cluster: Cluster = None, code: Code | None = None
    ) -> Study:
        """The study of a spec; arguments as for the class.

        Raises:
            SpecError: A setting of a part that it names breaks a rule.
        """
        study = cls.__new__(cls)
        study._set(spec, home, cluster, code)
        return study

    @classmethod
    def open(
        cls,
        name: str,
        *,
        home: HomeLocation = None,
        cluster: Cluster = None,
        storage: str | None = None,
        code: Code | None = None,
        allow: Iterable[str] = (),
    ) -> Study:
        """A study that was begun.

        Args:
            name: The study.
            home: As for the class.
            cluster: As for the class.
            storage: Storage that holds its folder, such as s3://bucket/studies, where the home folder does not know it.
            code: As for the class.
            allow: Packages, modules or full names of builders that `model` and `learned` may call: the study's files are
                data, and whoever wrote them chose the builders that they name.

        Raises:
            StudyError: There is no such study.
        """
        study = cls.__new__(cls)
        study._set(None, home, cluster, code, name=name, storage=storage, allow=allow)
        if study._remote is None or study._remote.newest() is None:
            study._load()
        return study

    def _set(
        self,
        spec: StudySpec | None,
        home: HomeLocation,
        cluster: Cluster,
        code: Code | None,
        *,
        name: str = "",
        storage: str | None = None,
        allow: Iterable[str] = (),
    ) -> None:
        spec = None if spec is None else complete(spec, own=cluster is None or cluster is False)
        self._given, self.name, self._elsewhere = spec, name if spec is None else spec.name, storage
        self.home = home if isinstance(home, Home) else Home.find(home)
        self._remote: RemoteStudy | None = None
        if cluster is not None and cluster is not False:
            found = cluster
            if not isinstance(found, RayCluster):
                found = RayCluster.connect(None if found is True else found)
            self._remote = RemoteStudy(self.name, found, self.home, storage, code)
        elif code is not None:
            raise StudyError("code: goes with a job of a cluster; give cluster, or leave it out")
        self._allow = (*([allow] if isinstance(allow, str) else allow), *builders_in(spec))
        self._source: tuple[str | Path, Sequence[str]] | None = None
        self._kept: tuple[StudySpec, Ledger, Storage] | None = None
        self._as_recorded: Mapping[str, Any] = {}

    # What it is

    def plan(self) -> Plan:
        """What it would do: its resolved spec, the first points of each arm, its data. Checks all that can be checked
        before anything starts; on a cluster only the form.

        Raises:
            UserError: The spec, this machine or a service does not allow it.
        """
        given = self._given or self._load()[0]
        with self._located():
            if self._remote is not None:
                return plan_of(spec_on(given, self._remote.cluster))
            check_study(given, self.home)
            summaries = data_summaries(given, self.home)
        return plan_of(given, tuple(line for summary in summaries for line in summary.lines()))

    # Run it

    def run(self, *, progress: Progress = True) -> StudyResult:
        """Run what it lacks: start it, resume it, or find that nothing is left to do.

        Ctrl-C, in a notebook its stop button, commits and stops here; on a cluster the study continues.

        Args:
            progress: Whether it is shown while it runs, as lines or a table on standard output, in a notebook as one cell
                that is updated.

        Raises:
            UserError: The spec, this machine or another driver does not allow it; nothing was started.
        """
        if self._remote is not None:
            return self._remote.finish(self.submit(), progress)
        if self._given is None:
            return self.resume(progress=progress)
        with self._located():
            return self._drive(self._given, self._load()[1] if self.begun else None, progress)

    def resume(self, *, failed: bool = False, from_scratch: bool = False, progress: Progress = True) -> StudyResult:
        """Run what a begun study lacks.

        Args:
            failed: Run the failed trials again, each from its last commit, and no others.
            from_scratch: With `failed`: from the beginning.
            progress: As for `run`.

        Raises:
            UserError: As for `run`.
        """
        if from_scratch and not failed:
            raise StudyError("`from_scratch=True` goes with `failed=True`; add it")
        if self._remote is not None:
            return self._remote.finish(self.submit("resume", failed=failed, from_scratch=from_scratch), progress)
        spec, ledger = self._to_drive()
        if not failed:
            return self._drive(spec, ledger, progress)
        names, reopened = tried_again(ledger.state)
        return self._drive(spec, ledger, progress, retried=names, from_scratch=from_scratch, only=[*names, *reopened])

    def retry(self, *trials: str, from_scratch: bool = False, progress: Progress = True) -> StudyResult:
        """Try failed trials again, each from its last commit, and resume the study.

        Args:
            trials: `ARM/ORDINAL` of each.
            from_scratch: From the beginning.
            progress: As for `run`.

        Raises:
            UserError: One of them is not there or did not fail; or as for `run`.
        """
        if self._remote is not None:
            return self._remote.finish(self.submit("retry", trials=trials, from_scratch=from_scratch), progress)
        spec, ledger = self._to_drive()
        check_failed(trials, ledger.state)
        again = [trial for trial in trials if not ledger.state.trials[trial].retried]
        return self._drive(spec, ledger, progress, retried=again, from_scratch=from_scratch)

    def extend(self, trials: int, *, arm: str | None = None, progress: Progress = True) -> StudyResult:
        """Add search trials to every arm, or to one, and run them; the search keeps its history.

        Args:
            trials: More trials for each arm.
            arm: The arm that gets them; None: all.
            progress: As for `run`.

        Raises:
            UserError: As for `run`.
        """
        if self._remote is not None:
            return self._remote.finish(self.submit("extend", trials=trials, arm=arm), progress)
        spec, ledger = self._to_drive()
        return self._drive(extended(spec, trials, arm), ledger, progress)

    def stop(self, *, patience: float = 600.0) -> None:
        """Ask its driver, wherever it runs, to commit and stop; returns once it has.

        Args:
            patience: Seconds to wait.

        Raises:
            StudyError: No driver runs it, or it did not stop in time.
        """
        if self._remote is not None:
            self._remote.stop(patience)
            return
        _, ledger, storage = self._load()
        self.home.refuse_untrusted(self.name)
        stop_driver(ledger, storage, patience=patience)

    def delete(self, *, keep_runs: bool = False) -> int:
        """Delete its trials, results and report, and its runs in MLflow.

        Only runs with the study's identity are deleted, in each store that its spec ever named; where it named none, in that
        of MLFLOW_TRACKING_URI and in the home folder's. MLflow can restore them until `mlflow gc`. The records of a user's
        own tracker stay.

        Args:
            keep_runs: Whether its runs stay.

        Returns:
            Number of runs deleted.

        Raises:
            StudyError: A driver runs it.
            SetupError: A store does not respond; the study stays.
        """
        if self._remote is not None and (attempt := self._remote.newest()) is not None and attempt.live:
            raise StudyError(f"study {self.name!r}: is running on the cluster (job {attempt.id}); stop it first")
        spec, ledger, storage = self._load()
        self.home.refuse_untrusted(self.name)
        removed = remove(spec, ledger, storage, self.home, keep_runs=keep_runs)
        self._kept = None
        if self._remote is not None:
            self._remote.cluster.server.forget(self.name)
        return removed

    def submit(self, verb: str = "run", **arguments: Any) -> Submission:
        """Have the cluster do something, and return as soon as its job is submitted; a running driver continues.

        Args:
            verb: run, resume, retry or extend.
            arguments: Those of that method.

        Raises:
            UserError: The cluster refuses it, or the study has no cluster.
        """
        with self._located():
            return self._on_cluster().submit(self._given, verb, **arguments)

    def logs(self, *, follow: bool = False, attempt: int | None = None) -> Iterator[str]:
        """What its driver printed on the cluster, piece by piece.

        Args:
            follow: Follow until the driver ends.
            attempt: Number of the attempt; None: the newest.

        Raises:
            StudyError: There is no such attempt, or the study has no cluster.
        """
        return self._on_cluster().logs(attempt, follow=follow)

    # Inside

    def _to_drive(self) -> tuple[StudySpec, Ledger]:
        spec, ledger, storage = self._load()
        return placed(spec, storage, self.home), ledger

    def _drive(self, spec: StudySpec, ledger: Ledger | None, progress: Progress, **options: Any) -> StudyResult:
        view = progress if isinstance(progress, StudyView) else view_for(spec) if progress else None
        with view or nullcontext():
            return drive(spec, self.home, ledger, watch=None if view is None else view.watch, **options)

    def _on_cluster(self) -> RemoteStudy:
        if self._remote is None:
            raise StudyError(f"study {self.name!r}: is not on a cluster; open it with cluster=..., or run it here")
        return self._remote

    def _located(self) -> AbstractContextManager[None]:
        return nullcontext() if self._source is None else located(*self._source)

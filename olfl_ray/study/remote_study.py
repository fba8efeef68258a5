"""A study on a cluster: what its handle asks of the cluster's job server."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from olfl_ray import remote
from olfl_ray.driver import Home, StudyResult, load
from olfl_ray.errors import SetupError, StudyError
from olfl_ray.spec import StudySpec
from olfl_ray.study.view import StudyView, view_for

if TYPE_CHECKING:
    from olfl_ray.remote.jobs import Attempt

__all__ = ["RemoteStudy"]


class RemoteStudy:
    """One study on one cluster.

    Args:
        name: The study.
        cluster: The cluster.
        home: The home folder, which may know nothing of the study.
        storage: Storage that holds the study's folder, where it is named.
        code: Goes with a job.
    """

    def __init__(
        self, name: str, cluster: remote.RayCluster, home: Home, storage: str | None, code: remote.Code | None
    ) -> None:
        self.cluster = cluster
        self._name, self._home, self._storage, self._code = name, home, storage, code or remote.Code()

    def newest(self) -> Attempt | None:
        """The newest driver that was submitted; None where the cluster knows none."""
        return self.cluster.server.newest(self._name)

    def submit(self, given: StudySpec | None, verb: str, **arguments: Any) -> remote.Submission:
        """As `Study.submit`."""
        if verb == "run" and given is not None:
            return remote.submit(given, cluster=self.cluster, code=self._code)
        verbs: dict[str, Callable[..., remote.Submission]] = {
            "run": remote.resume_on,
            "resume": remote.resume_on,
            "retry": remote.retry_on,
            "extend": remote.extend_on,
        }
        if verb not in verbs:
            raise StudyError(f"verb: must be one of {', '.join(verbs)}, but it is {verb!r}; give one of them")
        return verbs[verb](
            self._name, cluster=self.cluster, home=self._home, storage=self._storage, code=self._code, **arguments
        )

    def accepted(self, attempt: Attempt, *, patience: float) -> Attempt:
        """As `remote.accepted`."""
        return remote.accepted(attempt, cluster=self.cluster, patience=patience)

    def finish(self, submission: remote.Submission, progress: bool | StudyView) -> StudyResult:
        """Follow a submission until its driver ends, and give the result.

        Raises:
            StudyError: The driver refused or was killed, or this machine can't see where the study is kept.
        """
        attempt = self.accepted(submission.attempt, patience=math.inf)
        return self.result(self.follow(attempt, progress))

    def result(self, attempt: Attempt) -> StudyResult:
        """What a study came to, after a driver that has ended.

        Raises:
            StudyError: The driver refused or was killed, or this machine can't see where the study is kept.
        """
        remote.locate(attempt.study, home=self._home, cluster=self.cluster)
        if attempt.state == "failed" and not remote.came_to_its_end(attempt, home=self._home):
            raise StudyError(remote.last_words(attempt, self.cluster))
        return remote.outcome(attempt, cluster=self.cluster, home=self._home)

    def seen(self, attempt: Attempt) -> bool:
        """Whether this machine sees where the study is kept."""
        try:
            remote.locate(attempt.study, home=self._home, cluster=self.cluster)
        except (remote.Unseen, SetupError):
            return False
        return True

    def follow(self, attempt: Attempt, progress: bool | StudyView, say: Callable[[str], Any] | None = None) -> Attempt:
        """Show a driver until it ends: live where the study is seen from here, else its own lines; the attempt then.

        Args:
            attempt: The driver's job.
            progress: As for `Study.run`.
            say: Takes its lines; None: standard output.
        """
        if not self.seen(attempt):
            for piece in self.logs(attempt.number, follow=attempt.live):
                if progress and (write := say or getattr(sys.stdout, "write", None)) is not None:
                    write(piece)
        elif attempt.live:
            view = progress if isinstance(progress, StudyView) else view_for(load(self._name, self._home)[0])
            with view:
                for event, state in remote.follow(attempt, cluster=self.cluster, home=self._home):
                    if progress:
                        view.watch(event, state)
        return self.cluster.server.look(attempt)

    def stop(self, patience: float) -> None:
        """As `Study.stop`."""
        remote.stop_on(self._name, cluster=self.cluster, home=self._home, storage=self._storage, patience=patience)

    def logs(self, attempt: int | None, *, follow: bool) -> Iterator[str]:
        """As `Study.logs`."""
        return remote.logs(self._name, cluster=self.cluster, attempt=attempt, follow=follow)

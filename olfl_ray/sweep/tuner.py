"""Ray Tune's side of a study: thin adapters around the conductor."""

from __future__ import annotations

import math
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.experimental.output import IS_NOTEBOOK
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from olfl_ray.errors import OlflError, SetupError
from olfl_ray.ledger import StopRequest, TrialState
from olfl_ray.sweep.cluster import amounts, running_ray
from olfl_ray.sweep.conductor import Conductor
from olfl_ray.worker import Assignment, Message
from olfl_ray.worker.trainable import LossLearning

__all__ = ["run_trials"]

Assign = Callable[[TrialState], Assignment]
MAX_LOSSES = 3
"""Consecutive losses of a trial's worker, without a new commit between them, that fail the trial."""


class _Receiver:
    """Passes a worker's results to the conductor, and keeps an error that stops the driver: Tune would wrap it.

    Args:
        conductor: Makes the decisions.
    """

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self.fatal: OlflError | None = None

    def receive(self, trial: Any, result: dict[str, Any]) -> bool:
        """Whether the trial continues."""
        message = Message.from_result(result)
        if message.commit is not None:
            trial.run_metadata.num_failures = 0  # so that Tune counts only consecutive losses
        with self.keeping():
            return self.conductor.receive(message)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep an error that stops the driver."""
        try:
            yield
        except OlflError as error:
            self.fatal = error
            raise


class _Searcher(Searcher):  # type: ignore[misc]
    """Passes the conductor's next trial to Tune."""

    def __init__(self, receiver: _Receiver, assign: Assign) -> None:
        super().__init__(metric="position", mode="max")
        self._receiver, self._assign = receiver, assign
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        conductor = self._receiver.conductor
        with self._receiver.keeping():
            if conductor.stop.made() or conductor.finished:
                return str(Searcher.FINISHED)
            trial = conductor.next()
            if trial is None:
                return None
            self._names[trial_id] = str(trial.id)
            return self._assign(trial).to_dict()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            with self._receiver.keeping():
                self._receiver.conductor.lost(
                    self._names[trial_id], f"worker lost {MAX_LOSSES} times without a new commit"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restore that is never requested: the ledger is the only state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only state."""


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Passes each message to the conductor, which decides whether the trial continues."""

    def __init__(self, receiver: _Receiver) -> None:
        super().__init__()
        self._receiver = receiver

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """A pending trial. (Tune's own choice iterates over all trials so far, at each of its steps.)

        Raises:
            OlflError: A fatal error arrived with a trial's last message, where Tune would attribute it to the trial.
        """
        if self._receiver.fatal is not None:
            raise self._receiver.fatal
        return next((trial for trial in tune_controller.get_live_trials() if trial.status == "PENDING"), None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(TrialScheduler.CONTINUE if self._receiver.receive(trial, result) else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "message" in result:
            self._receiver.receive(trial, result)


class _Silent(tune.ProgressReporter):  # type: ignore[misc]
    """Reports nothing: in a notebook Tune's own reporter clears the cell, also where its verbosity is 0."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False


def run_trials(conductor: Conductor, assign: Assign) -> None:
    """Run the study's trials on Ray until nothing is left or it is requested to stop, also by SIGINT and SIGTERM.

    Args:
        conductor: Makes the decisions.
        assign: Returns a trial's assignment for its worker.

    Raises:
        Fenced: Another driver has taken the study over.
        SetupError: The storage refused a write (for example a full disk).
    """
    wanted = amounts(conductor.spec.resources)

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        alone = {"GPU": math.ceil(wanted["GPU"])} if config["alone"] and "GPU" in wanted else {}
        return tune.PlacementGroupFactory([{**wanted, **alone}])

    receiver = _Receiver(conductor)
    with ExitStack() as stack:
        hangup = stack.enter_context(_ignoring_hangups())
        private = stack.enter_context(running_ray())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="olfl-tune-", dir=private))
        with _stopping_on_signals(conductor.stop, hangup=hangup):
            tuner = tune.Tuner(
                tune.with_resources(LossLearning, resources),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(receiver, assign),
                    scheduler=_Scheduler(receiver),
                    num_samples=-1,
                    max_concurrent_trials=conductor.spec.concurrency,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=scratch,
                    verbose=0,
                    progress_reporter=_Silent() if IS_NOTEBOOK else None,  # elsewhere Tune warns that it ignores one
                    failure_config=tune.FailureConfig(max_failures=MAX_LOSSES - 1),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            )
            try:
                tuner.fit()
            except Exception as error:
                if receiver.fatal is None:
                    raise _explained(error) from error
        if receiver.fatal is not None:
            raise receiver.fatal


def _explained(error: Exception) -> Exception:
    """Ray's errors that a user can fix (a lost cluster or embedded Ray) as such; else the error itself."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    lost = next((link for link in chain if isinstance(link, RayError | ConnectionError)), None)
    if lost is None:
        return error
    reason = (str(lost).strip() or type(lost).__name__).splitlines()[0][:200]
    return SetupError(
        f"Ray was lost ({type(lost).__name__}: {reason}); committed work is kept: check that the cluster, or this machine, "
        "has memory, disk and processes to spare, and resume the study"
    )


@contextmanager
def _ignoring_hangups() -> Iterator[bool]:
    """Ignore SIGHUP, also in Ray's processes, which inherit this: trials must commit after the terminal is closed.

    Yields whether a hangup stops the study: not if this process was started to ignore it (by nohup, for example), nor
    outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield before != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _stopping_on_signals(stop: StopRequest, *, hangup: bool) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP requests the study to stop; the next SIGINT or SIGTERM ends the driver at once.

    A signal that this process was started to ignore stays ignored. (Main thread only.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        for name in before:  # a closing terminal may send SIGHUP twice
            signal.signal(name, signal.SIG_IGN if name == signal.SIGHUP else end)
        stop.make()

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = [name for name in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(name) != signal.SIG_IGN]
    before = {name: signal.signal(name, ask) for name in [*names, *([signal.SIGHUP] if hangup else [])]}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(name, old)

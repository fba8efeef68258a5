"""What a study found: tables, trials, pictures, the report; and what it left to take away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.analysis import final_table
from olfl_ray.driver import Home, best_of, model_of, outputs_of, report_of, status_of, stored_lines, trials_of
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Ledger, StudyState
from olfl_ray.plugins import allows
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage
from olfl_ray.study.comparison import compared, comparison_frame, settings_frame
from olfl_ray.study.export import export_model
from olfl_ray.study.frames import Rows, arms_frame, curves_of, surfaces_of, trials_frame
from olfl_ray.study.overview import Overview, overview_of
from olfl_ray.study.plots import Plots
from olfl_ray.study.single import builders_of
from olfl_ray.study.trial_view import Trial
from olfl_ray.study.view import as_html, status_rows

if TYPE_CHECKING:
    import pandas as pd

    from olfl_ray.explain import Explanation
    from olfl_ray.losses import LearnedLoss
    from olfl_ray.study.transfer import Target, Transfer
    from olfl_ray.trial import Speed, TrainedModel

__all__ = ["Results"]


class Results(ABC):
    """The results of one study, up to the newest event each time they are asked for."""

    name: str
    """The study's name."""
    home: Home
    """The home folder."""
    _allow: tuple[str, ...] = ()

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether it was started before."""

    @abstractmethod
    def _load(self) -> tuple[StudySpec, Ledger, Storage]:
        """Its spec, ledger and storage, up to the newest event."""

    @property
    def plot(self) -> Plots:
        """The report's pictures as matplotlib axes."""
        return Plots(self)

    @property
    def state(self) -> StudyState:
        """Its trials."""
        return self._load()[1].state

    @property
    def total(self) -> int:
        """How many trials it has once nothing is left to do."""
        spec, ledger, _ = self._load()
        return trials_of(ledger.live, spec)

    @property
    def data(self) -> list[str]:
        """A line for each data set, with its number of examples and its classes."""
        return stored_lines(self._load()[2])

    def overview(self) -> Overview:
        """Its state: status, running trials with step, age and time left, each arm's best trial, failures with causes.

        Raises:
            StudyError: It has not begun.
        """
        spec, ledger, storage = self._load()
        return overview_of(
            spec,
            ledger,
            status=status_of(ledger, storage),
            total=trials_of(ledger.live, spec),
            location=storage.url,
            data=stored_lines(storage),
        )

    def loaded(self, arm: str | None = None) -> tuple[StudySpec, StudyState, Storage]:
        """Its spec, state and storage, up to the newest event.

        Args:
            arm: An arm that it must have.

        Raises:
            StudyError: It has not begun, or has no such arm.
        """
        spec, ledger, storage = self._load()
        if arm is not None and arm not in spec.arms:
            raise StudyError(f"arm: study {self.name!r} has no arm {arm!r}; it has {', '.join(spec.arms)}")
        return spec, ledger.state, storage

    @property
    def table(self) -> pd.DataFrame:
        """One row per arm: its winner on fresh seeds, and its paired comparison with the baseline."""
        spec, state, storage = self.loaded()
        return arms_frame(final_table(spec, state, storage))

    def trials(self, arm: str | None = None) -> pd.DataFrame:
        """One row per trial: its state, settings and metrics.

        Args:
            arm: Only this arm's; None: all.
        """
        spec, state, _ = self.loaded(arm)
        return trials_frame(spec, state, arm)

    @property
    def curves(self) -> Rows:
        """Every metric of every evaluation: `curves()` is a DataFrame, `curves.to_arrow()` an Arrow table; both take
        `trial`, `arm` and `metric`.
        """
        return curves_of(self.loaded()[2], lambda: self.state)

    @property
    def surfaces(self) -> Rows:
        """The learned losses on a grid of (target, output), at some moments of training; called as `curves`."""
        return surfaces_of(self.loaded()[2], lambda: self.state)

    def trial(self, name: str) -> Trial:
        """A trial.

        Args:
            name: `ARM/ORDINAL`, or `ARM/cN` of a confirming trial.

        Raises:
            StudyError: There is none.
        """
        trials = self.loaded()[1].trials
        if name not in trials:
            there = ", ".join(list(trials)[:4]) or "none yet"
            raise StudyError(f"study {self.name!r} has no trial {name!r}; it has {there}{', ...' * (len(trials) > 4)}")
        return Trial(self, trials[name])

    def best(self, arm: str | None = None) -> Trial:
        """The winner of an arm: its best finished search trial, by the search metric on the validation split.

        Args:
            arm: The arm; None: the best of all arms.

        Raises:
            StudyError: No trial has finished.
        """
        spec, state, _ = self.loaded(arm)
        best = best_of(spec, state) if arm is None else state.best(arm, spec.search.goal)
        if best is None:
            raise StudyError(
                f"study {self.name!r}: no search trial of {arm or 'any arm'} has finished; run more of it first"
            )
        return Trial(self, best)

    def compare(self, other: Results, *, arms: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Compare each arm's winner on fresh seeds with that of another study: one row per arm.

        Two arms are paired by seed only if both have the same test examples and splits (same data, `seed` and `task.split`), the
        metric measures the same in both, and they have at least two common seeds. Else the column `unpaired` gives the reason,
        and there is no difference.

        Args:
            other: The other study.
            arms: Arm of this study -> arm of the other; None: the arms that have the same name in both.

        Returns:
            Columns: other_arm, metric (this study's, on the test split), a_mean, a_sd, a_n (this study), b_mean, b_sd, b_n (the
            other), n, difference (b - a), low, high, p, detectable, unpaired.

        Raises:
            StudyError: There is no such arm, or no arm has the same name in both.
        """
        return comparison_frame(compared(self, other, arms))

    def diff(self, other: Results) -> pd.DataFrame:
        """The settings that affect results and differ from another study's: one row per dotted field, columns a (this) and b."""
        return settings_frame(self.loaded()[0], other.loaded()[0])

    def report(self) -> Path:
        """Write its report again, and return the page."""
        spec, state, storage = self.loaded()
        return report_of(spec, state, storage, self.home)

    def learned(self, trial: str, at: float = 1.0, *, allow: Iterable[str] = ()) -> LearnedLoss:
        """The learned loss of a finished trial as an `nn.Module`: called with (outputs, targets), gives a scalar.

        Args:
            trial: `ARM/ORDINAL` or `ARM/cN`; of its replicates, the first one's.
            at: When: a fraction of the training, 0.0 to 1.0, or as an integer a base step. It is recorded at each commit
                (`checkpoint.every_steps`); the last one until then counts.
            allow: As for `open`, for this call.

        Raises:
            DataError: The trial has not finished, has none, or a builder that is not allowed makes it.
        """
        from olfl_ray.worker import loss_at

        self.trial(trial)
        return loss_at(self.loaded()[2], trial, f"{self.name}/{trial}", at, self._allowed(allow))

    def explain(
        self, trial: str, at: float = 1.0, *, classes: int | None = None, allow: Iterable[str] = ()
    ) -> Explanation:
        """Explain a finished trial's learned loss: the nearest known losses, a formula, its faults, its changes in training.

        Gradients are compared on the range that the loss has seen (docs/explain.md).

        Args:
            trial: As of `learned`.
            at: As for `learned`; earlier times are also compared.
            classes: Number of classes on which gradients are compared; None: those of the trial's data set, which is read.
            allow: As for `open`, for this call.

        Raises:
            DataError: As for `learned`; or the loss can't be explained.
            UserError: The data set can't be read, and `classes` is not given.
        """
        from olfl_ray.explain import explain
        from olfl_ray.worker import losses_until

        config, own = self.trial(trial).config, self._allowed(allow)
        spec, _, storage = self.loaded()
        losses = losses_until(storage, trial, f"{self.name}/{trial}", at, own)
        if classes is None and losses[-1][1].task.classes:
            dataset = config.task.dataset.name
            if "task.dataset" in builders_of(config) and not allows(own, dataset):
                raise StudyError(
                    f"study {self.name!r} names {dataset!r}, which is code; give the number of classes (`classes=10`), or "
                    f"`allow={[dataset]}` if you trust who wrote it"
                )
            classes = outputs_of(config, self.home)
        return explain(
            losses,
            f"{self.name}/{trial}",
            classes=2 if classes is None else classes,
            spec=spec,
            arm=trial.partition("/")[0],
        )

    def transfer(
        self,
        targets: Sequence[Target],
        *,
        trials: Sequence[str] | None = None,
        overrides: Sequence[str] = (),
        name: str | None = None,
    ) -> Transfer:
        """Apply its learned losses, frozen, to other tasks; `run()` of the result runs them, `table` and `plot()` show them.

        Each task is an ordinary study, STUDY-to-TASK, with the arms `baseline` (the task loss), `same_compute` (the task loss with
        as many more steps as the most expensive loss's trial had base-learner passes) and one per loss. All have the searched
        fields, trials and seeds of the spec's baseline. Another call resumes them.

        Args:
            targets: The specs of the tasks, or their files.
            trials: `ARM/ORDINAL` or `ARM/cN` of each loss, the first replicate's; None: the winner of each arm with a learned loss.
            overrides: `a.b=c` texts, for each file.
            name: Replaces STUDY in the names of the studies.

        Raises:
            StudyError: There is no such trial, or no learned loss.
            SpecError: A spec breaks a rule.
        """
        from olfl_ray.study.transfer import transfer_of

        return transfer_of(self, targets, trials, overrides, name)

    def model(self, trial: str, *, replicate: int = 0, allow: Iterable[str] = ()) -> TrainedModel:
        """The base learner that a finished trial trained, with its input scaler and the names of its classes.

        It takes raw inputs. Its weights are those of the evaluation that counts (`eval.report`), on which the trial's test
        metrics were measured. The data set is read again, for the scaler and the classes.

        Args:
            trial: `ARM/ORDINAL` or `ARM/cN`.
            replicate: Which seed's; a confirming trial has one.
            allow: As for `open`, for this call.

        Raises:
            UserError: The trial has not finished, its data are not here, or a builder is not allowed.
        """
        config = self.trial(trial).config
        refused = [name for name in builders_of(config).values() if not allows(self._allowed(allow), name)]
        if refused:
            raise StudyError(
                f"study {self.name!r} names {' and '.join(map(repr, refused))}, which is code; give `allow={refused}` if you "
                "trust who wrote it"
            )
        return model_of(
            config,
            trial,
            f"{self.name}/{trial}",
            storage=self.loaded()[2],
            home=self.home,
            data=self._fingerprint(trial),
            replicate=replicate,
        )

    def pruned(self, trial: str, *, replicate: int = 0, allow: Iterable[str] = ()) -> TrainedModel:
        """The model of a finished trial without the channels that its weights ignore; its outputs are `model`'s, up to rounding.

        Args:
            trial: `ARM/ORDINAL` or `ARM/cN`.
            replicate: As for `model`.
            allow: As for `model`.

        Raises:
            UserError: As for `model`; or the base learner is no chain of layers.
        """
        from olfl_ray.trial import pruned_model

        return pruned_model(self.model(trial, replicate=replicate, allow=allow))

    def speed(self, trial: str, *, replicate: int = 0, allow: Iterable[str] = (), examples: int = 256) -> Speed:
        """How much faster a trial's pruned model is here, and how much smaller: both are timed in turn, in about a second.

        Args:
            trial: `ARM/ORDINAL` or `ARM/cN`.
            replicate: As for `model`.
            allow: As for `model`.
            examples: Inputs of one call.

        Raises:
            UserError: As for `pruned`.
        """
        from olfl_ray.trial import pruned_model, speed

        dense = self.model(trial, replicate=replicate, allow=allow)
        return speed(dense, pruned_model(dense), examples=examples)

    def export(
        self,
        trial: str,
        to: str | Path | None = None,
        *,
        format: str | None = None,
        replicate: int = 0,
        allow: Iterable[str] = (),
        pruned: bool = False,
    ) -> Path:
        """Write the base learner that a finished trial trained to one file; its path.

        `safetensors` holds the weights, and the builder, input scaler, classes and settings as JSON in its metadata:
        `olfl_ray.load_model` builds the model again. `pt2` (`torch.export.load`) and `onnx` hold the graph with the scaler inside,
        for batches of any size; they need neither `olfl_ray` nor the builder.

        Args:
            trial: `ARM/ORDINAL` or `ARM/cN`.
            to: The file; one that exists is replaced. None: STUDY-ARM-cN.FORMAT in the current folder.
            format: safetensors, pt2 or onnx; None: that of the file's suffix, else safetensors, or pt2 of a pruned model.
            replicate: As for `model`.
            allow: As for `model`.
            pruned: Write the smaller model of `pruned`, as pt2 or onnx.

        Raises:
            UserError: As for `model`; there is no such format, the model can't be traced, or the file can't be written.
        """
        return export_model(self, trial, to, format=format, replicate=replicate, allow=allow, pruned=pruned)

    def _repr_html_(self) -> str:
        if not self.begun:
            return as_html(["study", ""], [[self.name, "not begun"]])
        spec, state, _ = self.loaded()
        status = as_html(*status_rows(state, spec))
        frame = self.table.drop(columns=["trials", "failed"])
        table = frame.to_html(na_rep="", float_format="{:.4g}".format) if frame["n"].any() else ""
        return f"<b>{self!r}</b>{status}{table}"

    def _allowed(self, allow: Iterable[str]) -> tuple[str, ...]:
        return (*self._allow, *([allow] if isinstance(allow, str) else allow))

    def _fingerprint(self, trial: str) -> str:
        """Fingerprint of a trial's data; empty where its point sets an option of the data set."""
        own = self.loaded()[1].trials[trial]
        if any(field.startswith("task.dataset") for field in own.params):
            return ""
        facts = self.loaded()[1].facts.get(own.id.arm)
        return "" if facts is None else facts.data

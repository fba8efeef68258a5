"""A tracker that keeps a table of each trial as CSV."""

from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import Strict
from olfl_ray.storage import open_storage
from olfl_ray.tracking import Tracker


class Csv(Tracker):
    class Config(Strict):
        folder: str

    @property
    def location(self) -> str:
        return self.config.folder

    def check(self) -> None:
        open_storage(self.config.folder).keys()  # refuses what it can't read

    def open(self, identity: str) -> None:
        self.store = open_storage(f"{self.config.folder}/{self.study.spec.name}-{identity}")

    def deliver(self, trial: TrialState) -> None:
        if trial.attempt or trial.ended:  # the others are only planned
            self.store.write(f"{trial.id}.csv", self.table(trial))  # in place of what was there

    def undelivered(self, state: StudyState) -> int:
        self.open(state.identity)
        names = {str(trial.id): self.table(trial) for trial in state.trials.values()}
        return sum(
            not self.store.exists(f"{name}.csv") or self.store.read(f"{name}.csv") != table
            for name, table in names.items()
        )

    def table(self, trial: TrialState) -> bytes:
        rows = [row for committed in trial.commits for row in self.study.records(committed.commit)]
        lines = [f"{row['step']},{row['metric']},{row['replicate']},{row['value']!r}" for row in rows]
        return "\n".join(
            ["step,metric,replicate,value", *lines, *([f"# {trial.state}"] if trial.ended else []), ""]
        ).encode()

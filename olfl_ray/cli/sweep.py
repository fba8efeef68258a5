"""`olfl sweep ...`: run studies here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olfl_ray.cli.cluster import logs, show, submit
from olfl_ray.cli.documents import plan_document, print_json, result_document
from olfl_ray.cli.examples import examples
from olfl_ray.cli.look import add_looking
from olfl_ray.cli.options import (
    Address,
    Follow,
    Home,
    Json,
    Name,
    NewName,
    PyModules,
    Sets,
    SpecFile,
    Storage,
    WorkingDir,
    out,
)
from olfl_ray.cli.outcome import leave, notes_on, print_result
from olfl_ray.cli.output import errors, option, outliving
from olfl_ray.cli.transfer import add_transfer
from olfl_ray.errors import StudyError

if TYPE_CHECKING:
    from olfl_ray.driver import StudyResult
    from olfl_ray.study import Study

__all__ = ["sweep_app"]

sweep_app = typer.Typer(help="Run studies; show their state and results.", no_args_is_help=True)
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Start from step 0, not from the last commits.")]
sweep_app.command(
    "submit",
    epilog=examples(
        "olfl sweep submit sweeps/digits.yaml --address http://head:8265 --follow",
        "olfl sweep submit study.yaml --address lab --working-dir .",
    ),
)(submit)
sweep_app.command(
    "logs",
    epilog=examples(
        "olfl sweep logs digits --follow --address http://head:8265", "olfl sweep logs digits --attempt 1 --address lab"
    ),
)(logs)
add_looking(sweep_app)
add_transfer(sweep_app)


@sweep_app.command(
    "run",
    epilog=examples(
        "olfl sweep run sweeps/digits.yaml",
        "olfl sweep run sweeps/digits.yaml --dry-run",
        "olfl sweep run sweeps/digits.yaml --name small --set learner.steps=500",
    ),
)
def sweep_run(
    spec: SpecFile,
    name: NewName = None,
    set_: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the study and print its plan; start nothing.")
    ] = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Run a study, or resume it."""
    from olfl_ray.study import Study
    from olfl_ray.study.view import StudyView

    study = Study.from_yaml(spec, set_ or (), name=name, home=home)
    if dry_run and json:
        print_json(plan_document(study.plan()))
        return
    if dry_run:
        out.print(str(study.plan()), highlight=False, soft_wrap=True, markup=False)
        return
    url = study.spec.storage.url
    kept = f"{url}/{study.name}" if url else study.home.study_folder(study.name)
    with outliving(study.name, option("--home", study.home.path)):
        head = (f"study {study.name} in {kept}", *notes_on(study.spec))
        result = study.run(progress=StudyView(study.spec, errors if json else out, head))
        if json:
            _print_document(result)
        else:
            print_result(result, study.home, begun=True)


def _print_document(result: StudyResult) -> None:
    print_json(result_document(result))
    leave(result)


@sweep_app.command(
    "resume",
    epilog=examples(
        "olfl sweep resume digits",
        "olfl sweep resume digits --failed",
        "olfl sweep resume digits --address http://head:8265 --follow",
    ),
)
def sweep_resume(
    name: Name,
    failed: Annotated[
        bool, typer.Option("--failed", help="Retry only the failed trials, from their last commits.")
    ] = False,
    from_scratch: FromScratch = False,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Resume a study by its name."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "resume", follow, json, failed=failed, from_scratch=from_scratch)


@sweep_app.command(
    "retry",
    epilog=examples("olfl sweep retry digits online/3", "olfl sweep retry digits online/3 offline/0 --from-scratch"),
)
def sweep_retry(
    name: Name,
    trials: Annotated[list[str], typer.Argument(help="ARM/ORDINAL of each failed trial.")],
    from_scratch: FromScratch = False,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Retry failed trials, and resume their study."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "retry", follow, json, *trials, from_scratch=from_scratch)


@sweep_app.command(
    "extend", epilog=examples("olfl sweep extend digits --trials 8", "olfl sweep extend digits --trials 8 --arm online")
)
def sweep_extend(
    name: Name,
    trials: Annotated[int, typer.Option("--trials", help="More search trials for each arm.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Arm to extend; default: all arms.")] = None,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Add trials to every arm, or to one; the search keeps its history."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "extend", follow, json, trials, arm=arm)


@sweep_app.command(
    "stop", epilog=examples("olfl sweep stop digits", "olfl sweep stop digits --address http://head:8265")
)
def sweep_stop(
    name: Name, address: Address = None, storage: Storage = None, json: Json = False, home: Home = None
) -> None:
    """Stop a running study after a commit; it can be resumed."""
    from olfl_ray.study import Study

    study = Study.open(name, home=home, cluster=address, storage=storage)
    with (errors if json else out).status(f"{name}: its trials commit at their next evaluation and stop"):
        study.stop()
    if json:
        print_json({"study": name, "stopped": True})
        return
    where = option("--home", study.home.path) if address is None else option("--address", address)
    out.print(f"stopped; resume with: olfl sweep resume {name} {where}", highlight=False, soft_wrap=True, markup=False)


def _opened(
    name: Name,
    address: str | None,
    storage: str | None,
    working_dir: Path | None,
    py_module: list[Path] | None,
    follow: bool,
    home: Path | None,
) -> Study:
    """A study that is to be driven, here or on a cluster with the user's code."""
    from olfl_ray import remote
    from olfl_ray.study import Study

    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    if address is None and (code != remote.Code() or follow):
        raise StudyError("--working-dir, --py-module, --follow: go with --address; add it, or leave them out")
    return Study.open(name, home=home, cluster=address, storage=storage, code=code if address is not None else None)


def _go_on(study: Study, verb: str, follow: bool, json: bool, *trials: Any, **options: Any) -> None:
    """Resume a study: on this machine with its live view, or on a cluster."""
    from olfl_ray.study.view import StudyView

    if study.remote is not None:
        named = {"retry": "trials", "extend": "trials"}
        positional = {} if not trials else {named[verb]: trials if verb == "retry" else trials[0]}
        show(study, study.submit(verb, **positional, **options), follow, json=json)
        return
    with outliving(study.name, option("--home", study.home.path)):
        view = StudyView(study.spec, errors if json else out)
        result = getattr(study, verb)(*trials, **options, progress=view)
        if json:
            _print_document(result)
        else:
            print_result(result, study.home)

"""`olfl sweep ...`: run studies here, and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olfl_ray.cli.cluster import logs, show, submit
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Address, Follow, Home, Name, PyModules, Sets, SpecFile, Storage, WorkingDir, out
from olfl_ray.cli.outcome import notes_on, print_failures, print_notes, print_result, print_standing
from olfl_ray.cli.output import option, outliving
from olfl_ray.errors import StudyError

if TYPE_CHECKING:
    from olfl_ray.study import Study

__all__ = ["sweep_app"]

sweep_app = typer.Typer(help="Run and look at studies.", no_args_is_help=True)
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
    name: Annotated[str | None, typer.Option(help="Replaces the spec's name.")] = None,
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print; start nothing.")] = False,
    home: Home = None,
) -> None:
    """Run a study, or resume it."""
    from olfl_ray.study import Study
    from olfl_ray.study.view import StudyView

    study = Study.from_yaml(spec, set_ or (), name=name, home=home)
    if dry_run:
        out.print(str(study.plan()), highlight=False, soft_wrap=True, markup=False)
        return
    url = study.spec.storage.url
    kept = f"{url}/{study.name}" if url else study.home.study_folder(study.name)
    with outliving(study.name, option("--home", study.home.path)):
        view = StudyView(study.spec, out, (f"study {study.name} in {kept}", *notes_on(study.spec)))
        print_result(study.run(progress=view), study.home, begun=True)


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
        bool, typer.Option("--failed", help="Only the trials that failed, from their last commits.")
    ] = False,
    from_scratch: FromScratch = False,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    home: Home = None,
) -> None:
    """Resume a study by its name."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "resume", follow, failed=failed, from_scratch=from_scratch)


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
    home: Home = None,
) -> None:
    """Retry failed trials, and resume their study."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "retry", follow, *trials, from_scratch=from_scratch)


@sweep_app.command(
    "extend", epilog=examples("olfl sweep extend digits --trials 8", "olfl sweep extend digits --trials 8 --arm online")
)
def sweep_extend(
    name: Name,
    trials: Annotated[int, typer.Option("--trials", help="More search trials for each arm.")],
    arm: Annotated[str | None, typer.Option("--arm", help="The arm that gets them; default: all arms.")] = None,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    home: Home = None,
) -> None:
    """Add trials to every arm, or to one; the search keeps its history."""
    study = _opened(name, address, storage, working_dir, py_module, follow, home)
    _go_on(study, "extend", follow, trials, arm=arm)


@sweep_app.command(
    "stop", epilog=examples("olfl sweep stop digits", "olfl sweep stop digits --address http://head:8265")
)
def sweep_stop(name: Name, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Ask a running study to commit and stop; it can be resumed."""
    from olfl_ray.study import Study

    study = Study.open(name, home=home, cluster=address, storage=storage)
    with out.status(f"{name}: its trials commit at their next evaluation and stop"):
        study.stop()
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


def _go_on(study: Study, verb: str, follow: bool, *trials: Any, **options: Any) -> None:
    """Go on with a study: here, with its live view, or there, on a cluster."""
    from olfl_ray.study.view import StudyView

    if study.remote is not None:
        named = {"retry": "trials", "extend": "trials"}
        positional = {} if not trials else {named[verb]: trials if verb == "retry" else trials[0]}
        show(study, study.submit(verb, **positional, **options), follow)
        return
    with outliving(study.name, option("--home", study.home.path)):
        result = getattr(study, verb)(*trials, **options, progress=StudyView(study.spec, out))
        print_result(result, study.home)


@sweep_app.command("list", epilog=examples("olfl sweep list", "olfl sweep list --storage s3://bucket/studies"))
def sweep_list(address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """List the studies here, on a cluster, or in a storage."""
    from olfl_ray import study

    elsewhere = address is not None or storage is not None
    place = None if elsewhere else study.Home.find(home)
    found = study.list_studies(home=place, cluster=address, storage=storage)
    if place is not None and not found:
        out.print(f"no studies in {place.path}", highlight=False, soft_wrap=True, markup=False)
    for standing in found:
        print_standing(standing, elsewhere=elsewhere)


@sweep_app.command(
    "status", epilog=examples("olfl sweep status digits", "olfl sweep status digits --address http://head:8265")
)
def sweep_status(name: Name, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Show the state of a study."""
    from olfl_ray.study import Study
    from olfl_ray.study.view import status_view

    study = Study.open(name, home=home, cluster=address, storage=storage)
    spec, state, _ = study.loaded()
    out.print(status_view(state, spec))
    for line in study.data:
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    print_notes(spec)
    if study.remote is not None and (attempt := study.remote.newest()) is not None:
        server = study.remote.cluster.server.address
        out.print(f"attempt {attempt.number} on {server}: {attempt.state}", highlight=False, soft_wrap=True)
    where = option("--home", study.home.path) if address is None else option("--address", address)
    print_failures(state, where)
    if study.status == "interrupted":
        out.print("the driver exited without reporting a result; committed work is kept")
        out.print(f"resume: olfl sweep resume {name} {where}", highlight=False, soft_wrap=True, markup=False)


@sweep_app.command(
    "report", epilog=examples("olfl sweep report digits", "olfl sweep report digits --storage s3://bucket/studies")
)
def sweep_report(name: Name, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Write a study's report again."""
    from olfl_ray.study import Study

    page = Study.open(name, home=home, cluster=address, storage=storage).report()
    out.print(str(page), soft_wrap=True, highlight=False, markup=False)

"""`olfl doctor`: what a study needs of this machine and its services, line by line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olfl_ray.cli.documents import print_json
from olfl_ray.cli.options import Home, Json, Sets, Storage
from olfl_ray.cli.output import as_options, out

if TYPE_CHECKING:
    from olfl_ray.study import Finding

__all__ = ["doctor"]


def doctor(
    spec: Annotated[
        Path | None, typer.Argument(help="A study's spec, whose data, storage and tracking are checked.")
    ] = None,
    set_: Sets = None,
    storage: Storage = None,
    address: Annotated[
        str | None, typer.Option("--address", help="A cluster's job server, checked instead of Ray on this machine.")
    ] = None,
    chaos: Annotated[
        bool,
        typer.Option("--chaos", help="Also run a short study, kill a worker and the driver, and check the result."),
    ] = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Check versions, GPU, storage, tracking, data and Ray. The exit code is 1 if a study could not run."""
    from olfl_ray import study
    from olfl_ray.errors import StudyError
    from olfl_ray.spec import read_spec

    if chaos and address is not None:
        raise StudyError(
            "--chaos: does not go with --address; run it on a machine of the cluster, with RAY_ADDRESS=HEAD:6379, "
            "MLFLOW_TRACKING_URI=http://HOST:PORT and --storage"
        )
    place = study.Home.find(home)
    given = None if spec is None else read_spec(spec, set_ or ())
    findings: list[Finding] = []
    for found in study.diagnose(given, home=place, storage=storage, address=address, chaos=chaos):
        finding = replace(found, found=as_options(found.found))
        findings.append(finding)
        if not json:
            line = f"{finding.state:<8} {finding.check:<11} {finding.found}"
            out.print(line, highlight=False, soft_wrap=True, markup=False)
    if json:
        print_json(findings)
    if any(one.state == "failed" for one in findings):
        raise typer.Exit(1)

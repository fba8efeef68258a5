"""The library's errors speak of arguments; on the command line the same errors speak of options."""

import pytest

from olfl_ray.cli.output import as_options


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("choose another name with `name=`", "choose another name with --name"),
        ("`from_scratch=True` goes with `failed=True`", "--from-scratch goes with --failed"),
        ("`cluster=`: 'x' is no URL", "--address: 'x' is no URL"),
        ("give `storage=s3://b/a folder`", "give --storage 's3://b/a folder'"),
        ("give `allow=['mine:data', 'mine']` if you trust", "give --allow mine:data --allow mine if you trust"),
        ("give `classes=10`, or `format=`", "give --classes 10, or --format"),
        ("give either a spec or `source=STUDY/ARM/ORDINAL`", "give either a spec or --from STUDY/ARM/ORDINAL"),
        (
            "`0 < min < max` must hold; `olfl sweep resume s` resumes",
            "`0 < min < max` must hold; `olfl sweep resume s` resumes",
        ),
    ],
)
def test_arguments_become_options(message: str, shown: str) -> None:
    assert as_options(message) == shown

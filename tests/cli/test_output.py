"""Output in any encoding, to a closed pipe, to a full disk, or closed: it degrades, and no study ends because of it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from rich.table import Table
from support.commands import command

from olfl_ray.terminal import Terminal

ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TABLE = (
    "from olfl_ray.cli.output import out, outliving\n"
    "from rich.table import Table\n"
    "import sys, signal\n"
    "table = Table('error'); table.add_row('0.5 \\xb1 0.1 \\xe9')\n"
)
DRIVING = (
    f"{TABLE}with outliving('s', '--home h'):\n"
    "    for line in range(5000): out.print(f'line {line}')\n"
    "    out.print(table)\n"
    "open('done', 'w').close()\n"
)


def _python(code: str, folder: Path, shell: str = '"$@"', **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with a shell command."""
    import sys

    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}", "bash", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
        timeout=120,
        check=False,
    )


def test_unencodable_characters_degrade(tmp_path: Path) -> None:
    done = _python(f"{TABLE}out.print(table)", tmp_path, **ASCII)
    assert done.returncode == 0, done.stderr
    assert "0.5 +- 0.1 \\xe9" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ('"$@" | head -2', "Broken pipe"),
        ('"$@" > /dev/full', "No space left"),
        ('"$@" >&-', ""),
        ('"$@" 2>&- | head -2', ""),
        ('"$@" 2>&1 | head -2', ""),
        ('"$@" 2>/dev/full >/dev/full', ""),
        ('"$@" <&- >&- 2>&-', ""),
    ],
)
def test_study_continues_without_its_output_and_reports_it_once(tmp_path: Path, shell: str, said: str) -> None:
    done = _python(DRIVING, tmp_path, shell)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if said:
        assert done.stderr.count("olfl: ") == 1
        assert said in done.stderr
        assert "olfl sweep status s --home h" in done.stderr


def test_other_commands_end_silently_on_a_closed_pipe_and_report_a_full_disk(tmp_path: Path) -> None:
    endless = f"{TABLE}while True: out.print('line')"
    done = _python(endless, tmp_path, '"$@" | head -2')
    assert (done.returncode, done.stderr) == (141, "")
    full = subprocess.run(
        ["bash", "-c", '"$@" > /dev/full', "bash", *command("data", "list")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert full.returncode == 2
    assert "No space left" in full.stderr
    assert len(full.stderr.splitlines()) == 1


def test_terminal_without_a_size_shows_everything(tmp_path: Path) -> None:
    done = _python(f"{TABLE}out.print(table)", tmp_path, COLUMNS="0", LINES="0")
    assert "0.5 ± 0.1" in done.stdout
    for width in ("1", "x", "-3"):
        done = _python(f"{TABLE}out.print(table)", tmp_path, COLUMNS=width)
        assert done.returncode == 0
        assert done.stdout


def test_study_continues_without_its_terminal(tmp_path: Path) -> None:
    import sys

    ours, theirs = pty.openpty()
    code = DRIVING.replace("'line {line}')", "'line {line}'); line or (print('up', file=sys.stderr), input())")
    process = subprocess.Popen(
        [sys.executable, "-c", code.replace("input()", "open(0).readline()")],
        stdout=theirs,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    os.close(theirs)
    assert process.stderr is not None
    assert process.stderr.readline() == "up\n"
    os.close(ours)  # the terminal is gone: writing to it is an error
    _, said = process.communicate("\n", timeout=120)
    assert process.returncode == 0, said
    assert (tmp_path / "done").exists()
    assert said.count("olfl: ") == 1


def test_finished_sweeps_table_is_printed_in_ascii(tmp_path: Path) -> None:
    spec = {
        "name": "tiny",
        "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}},
        "learner": {"method": "baseline", "steps": 20},
        "eval": {"every": 10},
        "replicates": 1,
        "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
        "arms": {"baseline": {"trials": 1}},
        "confirm": {"seeds": 2},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    done = subprocess.run(
        ["bash", "-c", '"$@" | cat', "bash", *command("sweep", "run", "spec.yaml", "--home", tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, **ASCII},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"+-" in done.stdout
    assert done.stdout.isascii()
    assert b"3 of 3 trials" in done.stdout
    listed = subprocess.run(command("sweep", "list", "--home", tmp_path), capture_output=True, text=True, check=False)
    assert "tiny  3 of 3 trials ended" in listed.stdout


def test_row_of_the_final_table_is_one_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A metric other than the task's own adds a column."""
    from olfl_ray.analysis import ArmResult
    from olfl_ray.analysis.outcome import Outcome
    from olfl_ray.analysis.statistics import paired
    from olfl_ray.cli.outcome import print_winners

    def outcome(metric: str, values: list[float]) -> Outcome:
        own = dict(enumerate(values))
        difference = paired("baseline", own, {0: 0.1, 1: 0.3, 2: 0.2})
        return Outcome(metric=metric, goal="minimize", values=own, trivial=None, difference=difference)

    result = ArmResult(
        arm="baseline",
        trials={},
        confirming={},
        best="baseline/0",
        best_params={},
        selection_value=0.4057,
        test=outcome("task_loss", [2.5, 2.6, 2.8]),
        primary=outcome("error", [0.7, 0.8, 0.75]),
    )
    print_winners([result])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("baseline") and "0.4057" in line)
    assert "2.6333 ± 0.1528" in row
    assert "0.7500 ± 0.0500" in row


def test_markup_in_a_text_is_text() -> None:
    table = Table(title="[red]t[/nothing]")
    table.add_column("[bold]c[/x]")
    table.add_row("[/foo] :smile: [link=http://a]b")
    shown = io.StringIO()
    console = Terminal(file=shown, width=80)
    for one in (table, "[/foo] :smile:"):
        console.print(one)
    for text in ("[red]t[/nothing]", "[bold]c[/x]", "[/foo] :smile: [link=http://a]b"):
        assert text in shown.getvalue()
    assert shown.getvalue().splitlines()[-1] == "[/foo] :smile:"

"""Services for tests and the demo: one that does not come up is said at once; the local cluster's command explains itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from olfl_ray.bench.services import wait_for
from olfl_ray.errors import SetupError

PROGRAM = Path(__file__).parents[2] / "cluster" / "local" / "cluster.py"


def test_a_service_that_ends_early_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", "print('no room'); raise SystemExit(3)"], stdout=output)
    with pytest.raises(SetupError, match=r"the store ended with code 3; its log ends: no room"):
        wait_for(lambda: None, "the store", log, child)


def test_a_local_cluster_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, PROGRAM, "kill-node", "1", "--folder", tmp_path]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert refused.stderr == f"cluster: {tmp_path}: no cluster runs here; start one with `up`\n"

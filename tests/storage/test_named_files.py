"""Files that a user names (exports, pictures) are complete or not there, and an older one stays until then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from olfl_ray.storage import replace_file

FULL = """
import resource, signal, sys
from pathlib import Path
from olfl_ray.storage import replace_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    replace_file(Path(sys.argv[1]), bytes(5000))
except OSError as error:
    print(error.strerror)
"""


def test_a_file_that_does_not_fit_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"older")
    done = subprocess.run([sys.executable, "-c", FULL, file], capture_output=True, text=True, check=True, timeout=60)
    assert "too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert file.read_bytes() == b"older"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "model.pt2").symlink_to(tmp_path / "mine")
    replace_file(tmp_path / "model.pt2", b"model")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "model.pt2").read_bytes() == b"model"


def test_a_folder_is_refused_and_a_device_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        replace_file(tmp_path, b"model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "device").symlink_to(os.devnull)
    replace_file(tmp_path / "device", b"model")
    assert (tmp_path / "device").is_symlink()


def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        replace_file(tmp_path / "absent" / "model.pt2", b"model")
    assert list(tmp_path.iterdir()) == []

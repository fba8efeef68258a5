"""What an embedded Ray needs is found, or named in one sentence; its folder is private, and removed with its process."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import ray
from ray.tune.execution import class_cache

from olfl_ray.errors import SetupError
from olfl_ray.sweep import embedded
from olfl_ray.sweep.cluster import _check_address, connected, on_cluster, running_ray
from olfl_ray.sweep.embedded import BELOW, LONGEST, PREFIX, private_folder


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The only two temporary folders."""
    found = [tmp_path / "a", tmp_path / "b"]
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(embedded, "BELOW", 0)
    monkeypatch.setattr(embedded, "LONGEST", len(str(tmp_path)) + 2)
    monkeypatch.setattr(embedded, "_bases", lambda: found)
    return found


def test_short_temporary_folder_is_used_instead_of_a_long_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with private_folder() as folder:
        assert folder.parent in (Path("/tmp"), Path("/var/tmp"))
        assert len(os.fsencode(folder.parent)) + BELOW <= LONGEST
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_each_unusable_temporary_folder_is_named_with_its_reason(
    bases: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bases[0].rmdir()
    bases[1] = tmp_path / "too long"
    bases[1].mkdir()
    with pytest.raises(SetupError, match="TMPDIR") as caught:
        private_folder().__enter__()
    assert f"{bases[0]} is not a folder" in str(caught.value)
    assert f"{bases[1]} is too long" in str(caught.value)
    monkeypatch.setattr(embedded, "ROOM", 2**62)
    bases[1:] = [tmp_path]
    with pytest.raises(SetupError, match="MiB free"):
        private_folder().__enter__()


def test_read_only_temporary_folder_is_skipped(bases: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bases[0] and real(path, mode))
    with private_folder() as folder:
        assert folder.parent == bases[1]


def test_folders_of_dead_processes_are_removed_and_those_of_live_ones_are_kept(bases: list[Path]) -> None:
    code = (
        "import sys, time; from pathlib import Path; from olfl_ray.sweep import embedded\n"
        f"embedded._unfit = lambda base: ''; embedded._bases = lambda: [Path({str(bases[0])!r})]\n"
        "with embedded.private_folder() as folder:\n    print(folder, flush=True); time.sleep(100)"
    )
    aside = bases[0] / "mine"
    aside.mkdir()
    (bases[0] / f"{PREFIX}link").symlink_to(aside, target_is_directory=True)
    with ExitStack() as stack:
        others = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
            for _ in range(2)
        ]
        stack.callback(others[1].kill)
        folders = [Path(other.stdout.readline().strip()) for other in others if other.stdout]
        others[0].kill()
        others[0].wait()
        assert all(folder.is_dir() for folder in folders)
        with private_folder():
            assert [folder.is_dir() for folder in folders] == [False, True]
        assert aside.is_dir()


def test_missing_or_small_shared_memory_is_replaced_by_the_private_folder(tmp_path: Path) -> None:
    assert embedded._shared_memory(tmp_path, usual=tmp_path / "nowhere") == str(tmp_path)
    assert embedded._shared_memory(tmp_path, usual=tmp_path) is None


def test_too_few_open_files_are_refused_with_the_command_that_raises_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    with pytest.raises(SetupError, match="ulimit -n 1024"):
        embedded._check_open_files()


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("CLOSED", "refused"),
        ("nowhere.invalid:6379", "can't be reached"),
        ("head", "must be HOST:PORT"),
        ("head:port", "must be HOST:PORT"),
        ("ray://127.0.0.1:10001", "must be HOST:PORT"),
        ("http://127.0.0.1:8265", "olfl sweep submit"),
    ],
)
def test_address_without_a_cluster_is_refused_within_seconds(
    address: str, wanted: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if address == "CLOSED":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(SetupError, match=wanted) as caught, connected():
        pass
    assert str(caught.value).startswith("RAY_ADDRESS: ")
    assert time.monotonic() - began < 10
    assert capfd.readouterr() == ("", "")


def test_server_that_is_not_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olfl_ray.sweep.cluster.REACH_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SetupError, match="no Ray head"), connected():
            pass


def test_token_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(SetupError, match=f"chmod 600 {token}") as caught, connected():
        pass
    assert "a secret" not in str(caught.value)


def test_local_is_not_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert not on_cluster()


def test_failed_start_of_ray_is_one_sentence_with_its_log_folder_and_the_token_is_restored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert Path(os.environ["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o777 == 0o600
        raise OSError("no luck\nand a second line")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "that of a cluster")
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(SetupError, match=r"can't be started.*no luck") as caught, running_ray():
        pass
    assert "second line" not in str(caught.value)
    assert os.environ["RAY_AUTH_TOKEN"] == "that of a cluster"
    assert (found := re.search(rf"\S+{PREFIX}\S+-failed", str(caught.value)))
    with private_folder():
        assert not Path(found[0]).exists()
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]


def test_disabled_token_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with caplog.at_level(logging.WARNING), embedded._own_token(tmp_path):
        assert not (tmp_path / "token").exists()
    assert "RAY_AUTH_MODE" in caplog.text


class _Stop:
    def __init__(self) -> None:
        self.asked = 0

    def make(self) -> None:
        self.asked += 1


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_requests_a_stop_and_the_second_ends_while_hangups_are_ignored(first: signal.Signals) -> None:
    from olfl_ray.sweep.tuner import _ignoring_hangups, _stopping_on_signals

    stop = _Stop()
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with _ignoring_hangups() as hangup, _stopping_on_signals(stop, hangup=hangup):  # type: ignore[arg-type]
        signal.raise_signal(first)
        assert stop.asked == 1
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 143
    assert stop.asked == 1
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_signals_ignored_by_nohup_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    from olfl_ray.sweep.tuner import _ignoring_hangups, _stopping_on_signals

    stop = _Stop()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _ignoring_hangups() as hangup, _stopping_on_signals(stop, hangup=hangup):  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stop.asked == 0


def test_server_with_rays_protocol_passes_the_first_check() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        _check_address(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()

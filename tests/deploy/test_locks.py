"""What is installed is what was locked: each file by its hash, torch by its version from its own index, nothing else."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from support.deployment import CLUSTER, ROOT

LOCK, DEV, TORCH = (ROOT / f"requirements{name}.lock" for name in ("", "-dev", "-torch"))


def name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def entries(text: str) -> dict[str, str]:
    """Name -> the complete entry, including hashes."""
    return {name(entry): entry for entry in re.split(r"\n(?=\S)", text.strip())}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_each_entry_has_one_version_and_hashes_of_its_files() -> None:
    for lock in (LOCK, DEV):
        for entry in entries(lock.read_text()).values():
            assert re.match(r"[\w.-]+(\[[\w,]+\])?==[\w.!+]+ ", entry), entry
            assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)) >= 1, entry
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", lock.read_text())


def test_locks_satisfy_the_project_and_agree() -> None:
    run, dev, torch = (entries(lock.read_text()) for lock in (LOCK, DEV, TORCH))
    needed = {name(one) for one in project()["dependencies"]}
    extras = {name(one) for extra in project()["optional-dependencies"].values() for one in extra}
    assert torch.keys() == {"torch", "torchvision"}
    assert needed <= run.keys() | torch.keys()
    assert extras <= dev.keys()
    assert not (run.keys() | dev.keys()) & torch.keys()
    assert {key: dev.get(key) for key in run} == run


def test_every_install_requires_hashes_and_uses_torchs_index_only_for_torch() -> None:
    for file in (ROOT / "Makefile", CLUSTER / "docker" / "Dockerfile"):
        text = file.read_text().replace("\\\n", " ")
        assert not re.search(r"extra-index|EXTRA_INDEX", text), file
        installs = re.findall(r"pip install [^\n&]*", text)
        assert installs
        for install in installs:
            locked = "--require-hashes" in install and "--no-deps" in install
            own = "--no-deps --no-build-isolation" in install
            tool = install.endswith("pip-audit")  # in a separate environment
            assert locked or own or tool or "requirements-torch.lock" in install, install
            assert ("TORCH_INDEX_URL" in install) == ("requirements-torch.lock" in install), install

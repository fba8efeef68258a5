"""No file that deploys this package contains a secret, and no image has a name without a fixed version."""

import re
import stat
import subprocess
from pathlib import Path

import pytest
from support.deployment import CLUSTER, COMPOSE, MANIFESTS, RAY_UP, documents, walk

TRACKED = sorted(
    path
    for path in CLUSTER.rglob("*")
    if path.is_file() and not {"secrets", "__pycache__"} & set(path.relative_to(CLUSTER).parts)
)
SECRET = re.compile(r"password|secret|token|access_key|api_key|credential", re.IGNORECASE)
SHAPES = {
    "a password in a URL": re.compile(r"://[^/\s:@]+:[^/\s@$]+@"),
    "a key of AWS": re.compile(r"\bA(KIA|SIA)[A-Z0-9]{12,}"),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY"),
    "a random text": re.compile(r"\b(?=[A-Za-z0-9+/]*[0-9])(?=[A-Za-z0-9+/]*[A-Za-z])[A-Za-z0-9+]{32,}\b"),
}


def test_patterns_match_secrets() -> None:
    examples = ["postgresql://mlflow:hunter2@db/mlflow", "AKIA" + "ABCD" * 4, "BEGIN RSA PRIVATE KEY", "0a1b2c3d" * 4]
    for (name, shape), example in zip(SHAPES.items(), examples, strict=True):
        assert shape.search(example), name


@pytest.mark.parametrize("path", TRACKED, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_no_file_contains_a_secret(path) -> None:
    for name, shape in SHAPES.items():
        found = shape.search(path.read_text())
        assert found is None, f"{name}: {found}"


@pytest.mark.parametrize("path", [COMPOSE, *MANIFESTS, *RAY_UP], ids=lambda path: path.name)
def test_fields_named_like_secrets_contain_references(path) -> None:
    for document in documents(path):
        for place, value in walk(document):
            name = place.rpartition(".")[2]
            if isinstance(value, dict) and isinstance(value.get("name"), str) and "value" in value:
                name, value = value["name"], value["value"]  # an entry of a pod's env
            if SECRET.search(name) and isinstance(value, str):
                assert value.startswith(("/", "~", "olfl-", "./secrets/", "token", "required")), f"{place}: {value!r}"


def test_images_are_pinned_to_a_version() -> None:
    found = [
        value
        for path in [COMPOSE, *MANIFESTS, *RAY_UP]
        for document in documents(path)
        for place, value in walk(document)
        if re.search(r"\.(worker_)?image$", place)
    ]
    dockerfile = (CLUSTER / "docker" / "Dockerfile").read_text()
    found += re.findall(r"PYTHON_IMAGE=(\S+)", dockerfile)
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}", "cpu"]
    assert len(found) > 10
    for image in found:
        assert re.search(r":\d+\.\d+", image), image


def _run(script: Path, folder: Path) -> dict[str, str]:
    subprocess.run([script, folder], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_secrets_are_created_once_and_readable_by_one_user(tmp_path: Path) -> None:
    script, folder = CLUSTER / "docker" / "make-secrets.sh", tmp_path / "secrets"
    made = _run(script, folder)
    assert _run(script, folder) == made
    assert set(made) == set(documents(COMPOSE)[0]["secrets"])
    assert re.fullmatch(r"[0-9a-f]{64}", made["ray_token"])
    assert re.fullmatch(r"AWS_ACCESS_KEY_ID=[0-9a-f]{20}\nAWS_SECRET_ACCESS_KEY=[0-9a-f]{48}\n", made["s3.env"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_created_secrets_are_ignored_by_git_and_the_image() -> None:
    assert "/secrets/" in (CLUSTER / ".gitignore").read_text().splitlines()
    ignored = (CLUSTER / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert [line for line in ignored if line.startswith("!cluster")] == ["!cluster/docker/ray-job.sh"]

"""Storage is a string or a section, with one meaning; no password in a spec is stored, repeated or accepted."""

import json

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.spec import StorageSpec, StudySpec, parse_spec, without_secrets

LEAST = {"name": "x", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
SECRET = "hunter2"
HOLDING = [
    f"s3://key:{SECRET}@bucket/studies",
    f"postgresql+psycopg://olfl:{SECRET}@db/mlflow",
    f"postgresql://olfl:{SECRET}/#@x@db/mlflow",
    f"postgresql://db/mlflow?user=olfl&password={SECRET}",
    f"mysql://:{SECRET}@db",
    f"http://olfl:{SECRET}@mlflow:5000",
    f"https://{SECRET}@mlflow",
    f"https://mlflow/?a=b&access_token={SECRET}",
    f"HTTPS://{SECRET}@mlflow\n",
]
PLAIN = [
    "/a/folder:b@c",
    "file:///a/b:c@d",
    "s3://bucket/a:b@c",
    "postgresql://olfl@db/mlflow",
    "http://mlflow:5000/a@b",
    "sqlite:///home/mlflow.db",
    "databricks://profile",
    "package.module:builder",
]


@pytest.mark.parametrize("given", [None, "s3://b/f", {"url": "s3://b/f"}, {"url": "/nfs/olfl", "shared": True}])
def test_storage_is_a_place_or_a_section_and_touches_no_digest(given: object) -> None:
    spec = parse_spec(json.dumps({**LEAST, "storage": given}).encode())
    wanted = StorageSpec(**given) if isinstance(given, dict) else StorageSpec(url=given)  # type: ignore[arg-type]
    assert spec.storage == wanted
    assert parse_spec(json.dumps(spec.model_dump(mode="json", by_alias=True)).encode()) == spec
    assert spec.digest == parse_spec(json.dumps(LEAST).encode()).digest


@pytest.mark.parametrize("url", HOLDING)
@pytest.mark.parametrize(
    "field", ["storage", "storage.url", "tracking.uri", "task.dataset.source", "arms.a.set.task.x"]
)
def test_a_password_is_refused_without_being_repeated(url: str, field: str) -> None:
    with pytest.raises(SpecError, match="the URL holds a password") as caught:
        parse_spec(json.dumps(LEAST).encode(), overrides=["arms={a: {trials: 1}}", f"{field}={json.dumps(url)}"])
    assert caught.value.field == field
    assert SECRET not in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_password_is_refused_in_a_spec_that_is_built_in_python_too() -> None:
    with pytest.raises(SpecError, match=r"^storage\.url: the URL holds"):
        StudySpec.model_validate({**LEAST, "storage": {"url": HOLDING[0]}})


def test_a_mistyped_override_does_not_repeat_a_password() -> None:
    with pytest.raises(SpecError, match="not of the form") as caught:
        parse_spec(json.dumps(LEAST).encode(), overrides=[f"tracking.uri:{HOLDING[1]}"])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", PLAIN)
def test_what_holds_no_password_is_left_alone(url: str) -> None:
    assert without_secrets(url) == url
    assert parse_spec(json.dumps({**LEAST, "tracking": {"uri": url}}).encode()).tracking[0].options["uri"] == url


def test_in_a_sentence_only_the_password_is_hidden() -> None:
    shown = without_secrets(
        f"can't connect to postgresql://olfl:{SECRET}@db/mlflow (timeout), nor http://u:{SECRET}@m:1/x"
    )
    assert shown == "can't connect to postgresql://olfl:***@db/mlflow (timeout), nor http://***@m:1/x"

"""What is specific to an object store: lost responses, refusals, and secrets that must never be printed."""

from __future__ import annotations

import pickle
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.object_store import BUCKET, Reply, ask, point_at, relay

from olfl_ray.errors import SetupError
from olfl_ray.storage import Storage, open_storage
from olfl_ray.storage.refusals import reason_and_move

CALLS = {
    "read": lambda storage: storage.read("a"),
    "write": lambda storage: storage.write("a", b"1"),
    "create": lambda storage: storage.create("a", b"1"),
    "list": lambda storage: storage.keys(),
    "list a folder": lambda storage: storage.keys("ledger/"),
    "look for": lambda storage: storage.exists("a"),
    "delete": lambda storage: storage.delete("a"),
    "open": lambda storage: storage.open("a"),
}

REFUSED = """
import sys, time
from olfl_ray.errors import SetupError
from olfl_ray.storage import open_storage
began = time.monotonic()
try:
    storage = open_storage(sys.argv[1])
    storage.create("a", b"1") if sys.argv[2] == "create" else storage.read("a")
except SetupError as error:
    print(round(time.monotonic() - began), error, flush=True)
"""

FORKER = """
import os, sys
from olfl_ray.errors import SetupError
from olfl_ray.storage import open_storage
storage = open_storage(sys.argv[1])
storage.write("a", b"1")
if os.fork() == 0:
    try:
        storage.read("a")
    except SetupError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""

WRITER = """
import sys
from olfl_ray.storage import open_storage
storage = open_storage(sys.argv[1])
print("ready", flush=True)
for turn in range(10**9):
    storage.write("object", b"ab"[turn % 2 : turn % 2 + 1] * 12_000_000)
    storage.create(f"created/{turn}", b"c" * 100_000)
"""


@pytest.fixture
def store(s3_place: str) -> Storage:
    return open_storage(s3_place)


@pytest.fixture
def closed() -> Iterator[str]:
    """URL of a port that refuses connections; it is bound, so that no other process can listen there."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def lose_first_puts() -> Reply:
    """For each key, the first put succeeds and its response is lost."""
    puts: Counter[str] = Counter()

    def reply(method: str, path: str) -> int | None:
        puts[path] += method == "PUT"
        return 0 if method == "PUT" and puts[path] == 1 else None

    return reply


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a study/x/", "s3://my.bucket-1/a study/x"),
        ("gs://some_bucket/olfl", "gs://some_bucket/olfl"),
    ],
)
def test_url_is_normalized(text: str, url: str) -> None:
    assert open_storage(text).url == url
    assert open_storage(url).url == url


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///a", "s3://Bucket/a", "s3://b", "s3://bucket/../up", "s3://bucket/a//b", "s3://bucket/a?b=c",
     "s3://bucket/a#b", "gs://bucket:80/a", "s3://bucket/a\nb"],
)  # fmt: skip
def test_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match=r"storage: .* must be (s3|gs)://bucket/folder"):
        open_storage(url)


def test_password_in_a_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="holds a user or a password") as in_spec:
        open_storage("s3://me:hunter2@bucket/a")
    point_at(monkeypatch, "http://me:hunter2@127.0.0.1:9")
    with pytest.raises(SetupError, match="AWS_ENDPOINT_URL: the URL holds a user or a password") as in_environment:
        open_storage("s3://bucket/a").keys()
    assert "hunter2" not in str(in_spec.value) + str(in_environment.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", r"AWS_ENDPOINT_URL: '127.0.0.1:9000' must be http://HOST:PORT"),
        ("AWS_ENDPOINT_URL", "http://a b/", "AWS_ENDPOINT_URL: 'http://a b/' must be"),
        ("AWS_SESSION_TOKEN", "secret\n", "AWS_SESSION_TOKEN: it contains a space, a line break"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n", "AWS_SECRET_ACCESS_KEY: it contains a space, a line break"),
        ("AWS_REGION", "us east", "AWS_REGION: it contains a space"),
        ("AWS_SKIP_SIGNATURE", "maybe", r'failed to parse "maybe" as boolean\); correct that setting'),
    ],
)
def test_invalid_environment_variable_is_named(
    store: Storage, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match=message) as caught:
        store.keys()
    assert "secret\n" not in str(caught.value)


def test_missing_service_account_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(SetupError, match=rf"{tmp_path}/key.json.*correct that setting"):
        open_storage("gs://bucket/a").keys()


def test_pickled_storage_holds_no_credentials(store: Storage) -> None:
    store.write("a", b"1")
    packed = pickle.dumps(store)
    assert b"not-for-any-log" not in packed
    assert pickle.loads(packed).read("a") == b"1"
    assert "not-for-any-log" not in repr(store)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_missing_bucket_is_named(call, s3_place: str, s3_endpoint: str) -> None:
    with pytest.raises(SetupError, match=rf"{s3_endpoint} has no bucket 'nowhere'\); create it") as caught:
        call(open_storage("s3://nowhere/olfl"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_refused_credentials_are_named(call, store: Storage, s3_endpoint: str) -> None:
    ask(s3_endpoint, "POST", "/moto-api/reset-auth", b"0")
    try:
        with pytest.raises(SetupError, match=r"refuses the credentials|denies permission") as caught:
            call(store)
    finally:
        ask(s3_endpoint, "POST", "/moto-api/reset-auth", b"inf")
    assert re.search(r"set AWS_ACCESS_KEY_ID, .* (again|to others)$", str(caught.value))
    assert "not-for-any-log" not in str(caught.value)


def test_unresponsive_store_is_one_message_within_half_a_minute(spawn, s3_place: str, closed: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
        gone = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_METADATA_ENDPOINT": closed}
        cases = [
            ({"AWS_ENDPOINT_URL": closed}, "s3://bucket/a", f"({closed} does not answer); check the network and AWS"),
            ({"AWS_ENDPOINT_URL": silent}, "s3://bucket/a", f"({silent} does not answer); check the network and AWS"),
            (
                {
                    "GOOGLE_BASE_URL": closed,
                    "GOOGLE_BEARER_TOKEN": "any",
                },  # without a token, the client looks for the cloud's
                "gs://bucket/a",
                f"({closed} does not answer); check the network and GOOGLE_BASE_URL",
            ),
            (gone, "s3://bucket/a", "(there are no credentials); set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        ]
        children = [
            (spawn(REFUSED, url, call, env=env), text) for env, url, text in cases for call in ("create", "read")
        ]
        lines = [child.communicate()[0].strip() for child, _ in children]
    for line, (_, text) in zip(lines, children, strict=True):
        seconds, _, message = line.partition(" ")
        assert text in message
        assert int(seconds) <= 30, line


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (301, r"bucket 'studies' is in another region\); set AWS_REGION"),
        (401, r"refuses the credentials\); set AWS_ACCESS_KEY_ID"),
        (403, r"denies permission\); let these credentials list, read, write and delete in bucket 'studies'"),
    ],
)
def test_response_without_a_code_is_classified_by_its_status(
    store: Storage, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, status: int, message: str
) -> None:
    with relay(s3_endpoint, lambda method, path: status) as url:
        point_at(monkeypatch, url)
        for call in CALLS.values():
            with pytest.raises(SetupError, match=message):
                call(open_storage(store.url))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("SlowDown", "is overloaded or unavailable: SlowDown"),
        ("ExpiredToken", "refuses the credentials: ExpiredToken"),
        ("RequestTimeTooSkewed", "finds this machine's clock wrong"),
        ("QuotaExceeded", "QuotaExceeded"),
    ],
)
def test_response_is_classified_by_its_code(code: str, reason: str) -> None:
    answer = f"Generic S3 error: status 400\n<Error><Code>{code}</Code><AWSAccessKeyId>AKIAX</AWSAccessKeyId></Error>"
    reason_found, move = reason_and_move(answer, "s3", "studies", "")
    assert reason_found in (f"Amazon S3 {reason}", reason)
    assert move
    assert "AKIAX" not in reason_found + move


def test_short_outage_is_retried(
    store: Storage, s3_endpoint: str, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a", b"1")
    point_at(monkeypatch, closed)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(open_storage(store.url).read("a")))
    reader.start()
    time.sleep(1.0)
    with relay(s3_endpoint, port=int(closed.rpartition(":")[2])):
        reader.join()
    assert found == [b"1"]


def test_create_whose_response_was_lost_wins_on_retry(
    store: Storage, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(s3_endpoint, lose_first_puts()) as url:
        point_at(monkeypatch, url)
        flaky = open_storage(store.url)
        assert flaky.create("ledger/1.json", b"mine")
        assert not flaky.create("ledger/1.json", b"mine")
    point_at(monkeypatch, s3_endpoint)
    assert store.read("ledger/1.json") == b"mine"


def test_losing_create_whose_response_was_lost_stays_lost_even_with_equal_bytes(
    store: Storage, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.create("begun.json", b"{}")
    store.write("written.json", b"{}")
    with relay(s3_endpoint, lose_first_puts()) as url:
        point_at(monkeypatch, url)
        assert not open_storage(store.url).create("begun.json", b"{}")
        assert not open_storage(store.url).create("written.json", b"{}")


def test_conflict_without_a_stored_object_is_retried(
    store: Storage, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def conflict_at_first(method: str, path: str) -> int | None:
        asked.append(method)
        return 409 if len(asked) == 1 else None

    with relay(s3_endpoint, conflict_at_first) as url:
        point_at(monkeypatch, url)
        assert open_storage(store.url).create("a", b"1")
    assert asked[:3] == ["PUT", "HEAD", "PUT"]


def test_store_that_ignores_if_none_match_is_refused(
    store: Storage, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(s3_endpoint, hide="if-none-match") as url:
        point_at(monkeypatch, url)
        with pytest.raises(SetupError, match="overwrites despite `If-None-Match"):
            open_storage(store.url).create("a", b"1")


def test_killed_writer_leaves_only_complete_objects(spawn, store: Storage) -> None:
    for delay in (0.02, 0.11, 0.23):
        child = spawn(WRITER, store.url)
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        child.kill()
        child.wait()
        for key in sorted(store.keys()):
            data = store.read(key)
            assert (len(data), len(set(data))) == (12_000_000 if key == "object" else 100_000, 1)


def test_forked_process_is_refused_before_it_hangs(spawn, store: Storage) -> None:
    (line,) = spawn(FORKER, store.url).communicate(timeout=30)[0].splitlines()
    assert re.fullmatch(rf"{store.url}/a: this process was forked .* spawn or forkserver", line)


def test_folders_of_one_bucket_are_separate(s3_place: str) -> None:
    inner, outer = open_storage(f"{s3_place}/x"), open_storage(s3_place)
    open_storage(f"{s3_place}/xy").write("b", b"2")
    inner.write("a", b"1")
    assert inner.keys() == ["a"]
    assert outer.keys() == ["x/a", "xy/b"]
    within = s3_place.removeprefix(f"s3://{BUCKET}/")
    assert {f"{within}/x/a", f"{within}/xy/b"} <= set(open_storage(f"s3://{BUCKET}").keys())


def test_opening_sends_no_request(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    point_at(monkeypatch, closed)
    began = time.monotonic()
    assert open_storage("s3://bucket/a").url == "s3://bucket/a"
    assert time.monotonic() - began < 1

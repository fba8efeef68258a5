"""Object stores, s3:// and gs://: one object per key; `create` is a conditional put."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import GCSStore, S3Store

from olfl_ray.errors import SetupError
from olfl_ray.storage.environment import endpoint
from olfl_ray.storage.protocol import check_key
from olfl_ray.storage.refusals import reason_and_move

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

__all__ = ["ObjectStorage"]

_PLACE = re.compile(r"(s3|gs)://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?", re.ASCII | re.DOTALL)

# A dead endpoint costs one refused connection (_PATIENCE) or one missing answer (_SILENCE).
_PATIENCE = timedelta(seconds=6)
_SILENCE = timedelta(seconds=10)
_RETRIES: RetryConfig = {
    "max_retries": 8,
    "retry_timeout": _PATIENCE,
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
_PAUSE = 0.1  # seconds between two attempts of a conditional put
_PART, _AT_ONCE = 5 * 2**20, 2  # bytes per part, concurrent parts: a part must be uploaded within _SILENCE
_WRITER = "olfl-writer"

_runs_in: list[int] = []


class ObjectStorage:
    """A bucket, or a folder in one. Credentials and endpoint come from the environment (AWS_..., GOOGLE_...).

    It relies on what Amazon S3 and Google Cloud Storage guarantee: a write is visible to readers at once, and of several
    concurrent conditional puts one wins. An endpoint that lets `create` overwrite is refused at the first `create`. Objects
    of more than 5 MiB are uploaded in parts and become visible with the last part; parts of a killed writer are never
    listed, and a lifecycle rule of the bucket can remove them. Thread-safe. A process that was forked from one that used it
    is refused, because it lacks the threads that do the work (processes that Ray starts are not forked).

    Args:
        url: `s3://bucket/folder` or `gs://bucket/folder`; the folder is optional.

    Raises:
        SetupError: The URL has another form, or holds a password.
    """

    def __init__(self, url: str) -> None:
        self.url, self._scheme, self._bucket, self._folder = _parse(url)
        self._bucket_seen = self._condition_kept = False

    def __repr__(self) -> str:
        return f"ObjectStorage({self.url!r})"

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str]]:
        return ObjectStorage, (self.url,)

    def read(self, key: str) -> bytes:
        with self._explained(check_key(key), "read"):
            return obstore.get(self._store, key).bytes().to_bytes()

    def write(self, key: str, data: bytes) -> None:
        with self._explained(check_key(key), "write"):
            obstore.put(self._store, key, data, chunk_size=_PART, max_concurrency=_AT_ONCE)

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(max(1, len(objects))) as pool:
            list(pool.map(self.write, objects.keys(), objects.values()))

    def create(self, key: str, data: bytes) -> bool:
        mine, end = secrets.token_hex(8), time.monotonic() + _PATIENCE.total_seconds()
        with self._explained(check_key(key), "create"):
            while True:
                try:
                    self._put_where_none_is(key, data, mine)
                except AlreadyExistsError:
                    pass
                except GenericError:
                    if time.monotonic() > end:
                        raise
                else:
                    self._require_condition(key, data, mine)
                    return True
                # The response to a successful put may be lost, and a store busy with another writer's put may report
                # `exists` for an object that is not there yet. So the stored object decides who won; if none is there, try again.
                writer = self._writer(key)
                if writer is not None:
                    return writer == mine
                if time.monotonic() > end:
                    raise SetupError(f"{self.url}/{key}: the store neither creates it nor has it; start again")
                time.sleep(_PAUSE)

    def keys(self, prefix: str = "") -> list[str]:
        if prefix:
            check_key(prefix.removesuffix("/"))
        folder = prefix.rpartition("/")[0]
        with self._explained(folder, "list"):
            found = [entry["path"] for page in obstore.list(self._store, folder or None) for entry in page]
        return sorted(key for key in found if key.startswith(prefix))

    def folders(self) -> list[str]:
        with self._explained("", "list"):
            return sorted(obstore.list_with_delimiter(self._store)["common_prefixes"])

    def exists(self, key: str) -> bool:
        with self._explained(check_key(key), "look for"):
            try:
                obstore.head(self._store, key)
            except FileNotFoundError:
                self._require_bucket(key)
                return False
        return True

    def delete(self, key: str) -> None:
        with self._explained(check_key(key), "delete"):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                self._require_bucket(key)

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key))

    @cached_property
    def _store(self) -> S3Store | GCSStore:
        client: ClientConfig = {
            "allow_http": endpoint(self._scheme).startswith("http://"),
            "connect_timeout": timedelta(seconds=4),
            "read_timeout": _SILENCE,
            "timeout": timedelta(hours=1),
        }
        if self._scheme == "gs":
            return GCSStore(self._bucket, prefix=self._folder, client_options=client, retry_config=_RETRIES)
        return S3Store(
            self._bucket,
            prefix=self._folder,
            conditional_put="etag",
            client_options=client,
            retry_config=_RETRIES,
        )

    def _put_where_none_is(self, key: str, data: bytes, writer: str) -> None:
        obstore.put(self._store, key, data, mode="create", use_multipart=False, attributes={_WRITER: writer})

    def _writer(self, key: str) -> str | None:
        """Token of the `create` that wrote the stored object; empty if another method wrote it, None if there is none."""
        try:
            found = obstore.get(self._store, key, options={"head": True})
        except FileNotFoundError:
            return None
        return found.attributes.get(_WRITER, "")

    def _require_condition(self, key: str, data: bytes, mine: str) -> None:
        """Check once that the store refuses to create the same object again: otherwise two drivers could both win."""
        if self._condition_kept:
            return
        try:
            self._put_where_none_is(key, data, mine)
        except AlreadyExistsError:
            self._condition_kept = True
        except GenericError:
            return  # The object was created; the next `create` checks again.
        else:
            raise SetupError(
                f"{self.url}: this store overwrites despite `If-None-Match: *`, so two drivers could both"
                " run one study; use one with conditional writes"
            )

    def _require_bucket(self, key: str) -> None:
        """Raise if the bucket itself is missing, which a response without a body does not reveal."""
        if not self._bucket_seen:
            for _ in obstore.list(self._store, key):
                break
            self._bucket_seen = True

    @contextmanager
    def _explained(self, key: str, verb: str) -> Iterator[None]:
        """Replace the store's error by what it refused, and the next move."""
        place = f"{self.url}/{key}".rstrip("/")
        if not _runs_in:
            _runs_in.append(os.getpid())
        if _runs_in[0] != os.getpid():
            raise SetupError(
                f"{place}: this process was forked from one that uses object storage, and cannot {verb} it;"
                " start processes by spawn or forkserver"
            )
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            answer = str(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in answer:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from None
            reason, move = reason_and_move(answer, self._scheme, self._bucket, endpoint(self._scheme))
            raise SetupError(f"{place}: cannot {verb} it ({reason}); {move}") from error


def _parse(url: str) -> tuple[str, str, str, str | None]:
    """The normal form of a URL, and its scheme, bucket and folder."""
    scheme, _, rest = url.partition("://")
    form = f"{scheme}://bucket/folder"
    if "@" in rest.partition("/")[0]:
        raise SetupError(
            f"storage: the {scheme}:// URL holds a user or a password; give {form}, and set credentials in the environment"
        )
    parts = _PLACE.fullmatch(f"{scheme.lower()}://{rest}")
    if parts is None or any(mark in rest for mark in "?#"):
        raise SetupError(
            f"storage: {url!r} must be {form}: a bucket's name in lowercase letters, digits, `.`, `_` and `-`, then a"
            " path without `?` and `#`"
        )
    folder = (parts[3] or "").rstrip("/")
    if folder:
        try:
            check_key(folder)
        except ValueError as error:
            raise SetupError(f"storage: {url!r} must be {form}: {error}") from None
    return f"{parts[1]}://{parts[2]}" + (f"/{folder}" if folder else ""), parts[1], parts[2], folder or None

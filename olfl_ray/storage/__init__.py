"""Storage of bytes: atomic writes, create-if-absent, and a lease for the one driver of a study."""

from olfl_ray.storage.environment import HTTP_URL
from olfl_ray.storage.folders import fresh_folder
from olfl_ray.storage.lease import Lease
from olfl_ray.storage.local import LocalStorage, expanded, make_folder, replace_file, writable_folder
from olfl_ray.storage.location import POINTER, UNTRUSTED, is_relative, is_untrusted, open_folder, open_storage
from olfl_ray.storage.protocol import TEMPORARY, Storage, check_key

__all__ = [
    "HTTP_URL",
    "POINTER",
    "TEMPORARY",
    "UNTRUSTED",
    "Lease",
    "LocalStorage",
    "Storage",
    "check_key",
    "expanded",
    "fresh_folder",
    "is_relative",
    "is_untrusted",
    "make_folder",
    "open_folder",
    "open_storage",
    "replace_file",
    "writable_folder",
]

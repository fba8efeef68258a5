"""Named clusters from a user's settings file: their job server, and their storage of studies and runs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from olfl_ray.errors import SetupError
from olfl_ray.spec import NAME, StoragePlace, StorageSpec, Strict, parse_as, without_secrets
from olfl_ray.storage import HTTP_URL, expanded

__all__ = ["Settings", "Target", "Token", "find_target", "read_settings", "settings_file", "token_of"]

SETTINGS, ADDRESS = "OLFL_CONFIG", "RAY_ADDRESS"
TOKEN, TOKEN_FILE, AUTH_MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
"""Environment variables of Ray."""


class Target(Strict):
    """One cluster."""

    address: str
    """URL of Ray's job server, such as http://head:8265."""
    storage: StoragePlace = StorageSpec()
    """Where its studies are stored, for specs that name no storage; they can be found there after the cluster has ended."""
    tracking: str | None = None
    """MLflow tracking URI, for specs that name none."""
    token_file: str | None = None
    """File of mode 600 with Ray's token; null: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."""
    ca_file: str | None = None
    """CA certificates for an https:// address; null: those that the requests package trusts."""

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, value: Any) -> Any:
        if isinstance(value, dict) and {"token", "password"} & value.keys():
            raise ValueError("a token must not be in this file; name its file with token_file, or set RAY_AUTH_TOKEN")
        return value

    @field_validator("address", "storage", "tracking")
    @classmethod
    def _no_passwords(cls, value: Any) -> Any:
        url = value.url if isinstance(value, StorageSpec) else value
        if url is not None and without_secrets(url) != url:
            raise ValueError("the URL holds a password or token; remove it, and set it in the environment")
        return value

    @field_validator("address")
    @classmethod
    def _a_url(cls, value: str) -> str:
        if not HTTP_URL.fullmatch(value):
            raise ValueError(f"{value!r} must be http://HOST:PORT or https://HOST:PORT, Ray's job server; correct it")
        return value.rstrip("/")


class Settings(Strict):
    """The user's settings file."""

    default: str | None = None
    """The target of submit and logs without an address, if RAY_ADDRESS names no job server."""
    targets: dict[Annotated[str, Field(pattern=NAME)], Target] = Field(default_factory=dict)
    """Clusters by name."""

    @model_validator(mode="after")
    def _default_is_there(self) -> Settings:
        if self.default is not None and self.default not in self.targets:
            raise ValueError(f"default: there is no target {self.default!r}; there are: {_names(self)}")
        return self


@dataclass(frozen=True)
class Token:
    """Ray's token, which is never printed.

    Args:
        value: The token; empty: none was found.
        source: Where it was found, for messages.
    """

    value: str = field(repr=False)
    source: str = ""


def settings_file() -> Path:
    """`OLFL_CONFIG`, else ~/.config/olfl/config.yaml."""
    return expanded(os.environ.get(SETTINGS) or "~/.config/olfl/config.yaml")


def read_settings() -> Settings:
    """The user's settings; empty if there is no file.

    Raises:
        UserError: The file can't be read or breaks a rule.
    """
    path = settings_file()
    if path.exists() and not path.is_file():  # opening a pipe could block
        raise SetupError(f"{path}: is not a regular file; make it a file that you own")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if SETTINGS in os.environ:
            raise SetupError(f"{SETTINGS}: {path} is not there; write it, or unset the variable") from None
        return Settings()
    except OSError as error:
        raise SetupError(f"{path}: can't be read ({error.strerror}); make it a file that you own") from None
    return parse_as(Settings, data, source=str(path)) if data.strip() else Settings()


def find_target(address: str | None = None) -> tuple[str, Target]:
    """The name and settings of the cluster that a command uses; a cluster without a target is named by its URL.

    Args:
        address: URL of Ray's job server, or the name of a target; None: `RAY_ADDRESS` if it is such a URL, else the
            settings' default.

    Raises:
        UserError: There is none.
    """
    if address is None and os.environ.get(ADDRESS, "").lower().startswith(("http://", "https://")):
        address = os.environ[ADDRESS]
    if address is not None and (":" in address or "/" in address or "@" in address):
        return address, _of_url(address)
    settings = read_settings()
    name = settings.default if address is None else address
    if name is None:
        raise SetupError(
            f"`cluster=`: none was given, {ADDRESS} is not an http:// URL and {settings_file()} has no default; name the URL of"
            " Ray's job server, such as http://head:8265, or a target of that file"
        )
    if name not in settings.targets:
        raise SetupError(
            f"`cluster=`: {name!r} is neither a URL (http://HOST:8265) nor a target in {settings_file()}; there are: "
            f"{_names(settings)}"
        )
    return name, settings.targets[name]


def token_of(target: Target) -> Token:
    """Ray's token for a cluster: the target's file, else `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH`, ~/.ray/auth_token.

    Raises:
        SetupError: The file can't be read or can be read by other users, or the token is not one ASCII string without spaces.
    """
    if target.token_file is not None:
        return _token_in(expanded(target.token_file))
    if os.environ.get(AUTH_MODE, "").lower() == "disabled":
        return Token("")
    if value := os.environ.get(TOKEN, "").strip():
        return _token(value, TOKEN)
    if path := os.environ.get(TOKEN_FILE):
        return _token_in(expanded(path))
    usual = expanded("~/.ray/auth_token")
    return _token_in(usual) if usual.exists() else Token("")


def _token_in(path: Path) -> Token:
    try:
        mode = path.stat().st_mode & 0o777
        value = path.read_text().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SetupError(f"{path}: the token can't be read ({reason}); put Ray's token there, with mode 600") from None
    if mode & 0o077:
        raise SetupError(f"{path}: other users can read this token (mode {mode:o}); make it yours: chmod 600 {path}")
    return _token(value, str(path))


def _token(value: str, source: str) -> Token:
    if not re.fullmatch(r"[!-~]+", value):
        raise SetupError(f"{source}: holds no token (one ASCII string without spaces); put Ray's token there")
    return Token(value, source)


def _of_url(address: str) -> Target:
    if without_secrets(address) != address or "@" in address:
        raise SetupError(
            f"`cluster=`: the URL holds a user or a password; remove it, and give Ray's token with {TOKEN_FILE}"
        )
    if not HTTP_URL.fullmatch(address):
        raise SetupError(
            f"`cluster=`: {address!r} must be http://HOST:PORT or https://HOST:PORT, Ray's job server (8265 is its usual "
            "port), or a target's name"
        )
    return Target(address=address)


def _names(settings: Settings) -> str:
    return ", ".join(settings.targets) or "none yet"

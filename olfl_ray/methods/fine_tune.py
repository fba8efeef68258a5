"""Ordinary training from the weights of a trained base learner: its backbone with new heads, on another task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import Strict, as_tuple

__all__ = ["FineTune", "TrainedStart"]

MODEL, DIGEST, PARTS = "learner.options.model", "learner.options.digest", "learner.options.parts"


class TrainedStart(Learnable):
    """Has no phi; only `start` differs from plain training.

    Args:
        weights: By name, the parameters that do not start at their initial values.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def start(self, theta: Params) -> Params:
        """The given weights, and the initial values of the others."""
        return {name: self.weights[name].to(value) if name in self.weights else value for name, value in theta.items()}


class FineTune(Method):
    """Ordinary training on the task loss that starts from a trained base learner's backbone."""

    class Config(Strict):
        """Its settings."""

        model: Annotated[str, Field(min_length=1)]
        """File that `olfl trial export` wrote, as safetensors; a complete path, which every worker can read."""
        digest: Annotated[str, Field(pattern=r"^([0-9a-f]{12,64})?$")] = ""
        """The first digits of the SHA-256 of its content, at least 12: a study is about one content. Required; the message for one
        that is missing says it."""
        parts: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = ("backbone",)
        """Submodules whose parameters are taken from it; the others start as they are initialised."""

    phi = "nothing"

    def learnable(self, setting: Setting) -> Learnable:
        """The start.

        Raises:
            SpecError: There is no such file, it has another content, or its weights don't fit the base learner.
        """
        given, parts = self._read(), self.config.parts
        wanted = [name for name in setting.theta if f"{name}.".startswith(tuple(f"{part}." for part in parts))]
        if not wanted:
            raise SpecError(
                PARTS, f"names {', '.join(parts)}, but the base learner has no parameters there; correct it"
            )
        for name in wanted:
            if name not in given:
                raise SpecError(MODEL, f"{self.config.model} has no {name}; build the same backbone")
            if given[name].shape != setting.theta[name].shape:
                there, here = tuple(given[name].shape), tuple(setting.theta[name].shape)
                raise SpecError(
                    MODEL, f"{self.config.model} has {name} of shape {there}, here it is {here}; build the same"
                )
        return TrainedStart({name: given[name] for name in wanted})

    def _read(self) -> dict[str, Tensor]:
        if not Path(self.config.model).is_absolute():
            raise SpecError(
                MODEL, f"is {self.config.model!r}, which a worker would look for elsewhere; give the complete path"
            )
        try:
            content = Path(self.config.model).read_bytes()
        except OSError as error:
            raise SpecError(MODEL, f"{self.config.model} can't be read ({error.strerror}); export a trial") from None
        digest = hashlib.sha256(content).hexdigest()
        if not self.config.digest:
            raise SpecError(
                DIGEST, f"needs a digest of the file, so that a study is about one content; set digest: {digest[:12]}"
            )
        if not digest.startswith(self.config.digest):
            raise SpecError(
                DIGEST, f"is {self.config.digest}, but {self.config.model} has {digest[:12]}; name the right file"
            )
        try:
            found = load(content)
        except SafetensorError as error:
            raise SpecError(MODEL, f"{self.config.model} is no safetensors file ({error}); export a trial") from None
        return {name.removeprefix("module."): value for name, value in found.items()}

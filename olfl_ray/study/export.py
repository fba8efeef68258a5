"""A trial's trained model as a file, and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.errors import DataError, SetupError
from olfl_ray.storage import replace_file

if TYPE_CHECKING:
    from olfl_ray.study.results import Results
    from olfl_ray.trial import TrainedModel

__all__ = ["export_model", "load_model"]


def export_model(
    study: Results,
    trial: str,
    to: str | Path | None,
    *,
    format: str | None,
    replicate: int,
    allow: Iterable[str],
    pruned: bool = False,
) -> Path:
    """What `Study.export` does."""
    from olfl_ray.trial import FORMATS, model_to_bytes

    suffix = "" if to is None else Path(to).suffix.removeprefix(".")
    if suffix and format is None and suffix not in FORMATS:
        raise DataError(f"to: {to} names no format by its suffix; use one of {', '.join(FORMATS)}, or give `format=`")
    form = format or suffix or ("pt2" if pruned else FORMATS[0])
    if suffix in FORMATS and suffix != form:
        raise DataError(f"format: is {form!r}, but the file is {to}; name a file with the suffix .{form}")
    file = Path(f"{study.name}-{trial.replace('/', '-')}.{form}" if to is None else to)
    model = (study.pruned if pruned else study.model)(trial, replicate=replicate, allow=allow)
    own = study.trial(trial)
    about = {
        "study": study.name,
        "trial": trial,
        "digest": study.loaded()[0].digest,
        "seed": own.seeds[replicate],
        "metrics": {name: values[replicate] for name, values in own.record.metrics.items() if len(values) > replicate},
        "settings": own.config.model_dump(mode="json", by_alias=True),
    }
    data = model_to_bytes(model, form, about)
    try:
        replace_file(file, data)
    except OSError as error:
        raise SetupError(f"to: {file} can't be written ({error.strerror}); name another file") from None
    return file


def load_model(path: str | Path, *, allow: Iterable[str] = ()) -> TrainedModel:
    """The model of a safetensors file that `Study.export` wrote: an `nn.Module`, raw inputs in, logits or predictions out.

    Args:
        path: The file.
        allow: Packages, modules or full names (`package.module:builder`) of builders that may be called. The file is data, and
            whoever wrote it chose the builder that it names: one that is not allowed is refused.

    Raises:
        DataError: It is no such file, its builder can't be imported, or it is not allowed.
    """
    from olfl_ray.trial import read_model

    return read_model(Path(path), [allow] if isinstance(allow, str) else allow)

"""The benchmark's document: Markdown, Parquet and a figure, named by date."""

from __future__ import annotations

import contextlib
import datetime
import io
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from olfl_ray.machine import processor, version_of
from olfl_ray.storage import LocalStorage

__all__ = ["write_document"]

LIMIT = 8 / 3
"""A plain step is 3 passes (forward, and backward at twice the cost); base step, meta pass and one more product are 8."""
SHOWN = ("torch", "higher", "torchopt", "betty-ml")


def write_document(
    out: Path,
    stem: str,
    rows: Sequence[Mapping[str, Any]],
    profiles: Mapping[str, Sequence[tuple[str, float]]],
    missing: Mapping[str, Mapping[str, str]],
    *,
    command: str,
    device: str = "cpu",
) -> Path:
    """Write `STEM-DATE.md`, `.parquet` and `.png` into `out`; without pyarrow or matplotlib theirs is omitted.

    Args:
        out: Folder; created if it does not exist.
        stem: Start of the files' names.
        rows: One measurement each.
        profiles: Network -> operators and their share of an online step.
        missing: Network -> contestants that were not run, and why.
        command: The command that was run.
        device: The device that was used.

    Returns:
        The Markdown file.
    """
    folder = LocalStorage(out)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    name = f"{stem}-{day}"
    with contextlib.suppress(ModuleNotFoundError):
        folder.write(f"{name}.parquet", _table(rows))
    with contextlib.suppress(ModuleNotFoundError):
        folder.write(f"{name}.png", _picture(rows))
    lines: list[str] = [
        f"# The online step against peers, {day}",
        "",
        f"Command: `{command}`. One base step on the learned loss (SGD) with its "
        "meta-gradient and the step of phi (Adam), float32, random data; `plain step` is `torch.optim.SGD` on the "
        "cross-entropy, of the same network. Contestants take turns in every round; `ratio` is the median over rounds of "
        "the time over the plain step's in the same round; the spread is half the distance between quartiles. Memory is "
        "the peak above what was there before the first of two steps, in a fresh process each: of tensors (what PyTorch's "
        "allocator hands out, to the byte; the memory ratio is of these), and of the process (resident). On a CPU every "
        "contestant's process keeps the memory that it frees, as trials do (`keep_freed_memory`). The error is the "
        f"gradient's relative distance from float64 reverse over reverse, on 8 rows. Arithmetic's limit for the ratio is 8/3 = "
        f"{LIMIT:.2f}, or less where the first layer weighs much: its input needs no gradient.",
        "",
        f"Machine: {_machine(device)}, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; " + ", ".join(f"{name} {version_of(name)}" for name in SHOWN) + ".",
        "Betty does not unroll: its default differentiates implicitly and by differences, which is another quantity, so "
        "no error is given.",
        "",
        f"![ratio to a plain step]({name}.png)",
        "",
    ]
    for network in dict.fromkeys(row["network"] for row in rows):
        chosen = [row for row in rows if row["network"] == network]
        lines += [
            f"## {network}, batch {chosen[0]['rows']}",
            "",
            "| contestant | median ms | spread ms | ratio | tensors MB | memory ratio | resident MB | gradient error |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in chosen),
            *(
                f"| {name} | not run: {reason.replace('|', '/')} | | | | | | |"
                for name, reason in missing[network].items()
            ),
            "",
        ]
        if network in profiles:
            ratio = next(row["ratio"] for row in chosen if row["contestant"] == "ours: auto")
            lines += [
                f"Where the time of `ours: auto` goes; it takes {ratio:.2f} plain steps, {ratio / LIMIT - 1:+.0%} of 8/3:",
                "",
                "| operator | share |",
                "|---|---|",
                *(f"| `{name}` | {share:.1%} |" for name, share in profiles[network]),
                "",
            ]
    folder.write(f"{name}.md", "\n".join(lines).encode())
    return out / f"{name}.md"


def _line(row: Mapping[str, Any]) -> str:
    tensors, resident = (
        "" if row[name] is None else f"{row[name] / 1e6:.1f}" for name in ("tensor_bytes", "resident_bytes")
    )
    over = "" if row["tensor_ratio"] is None else f"{row['tensor_ratio']:.2f}"
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    return (
        f"| {row['contestant']} | {row['median_ms']:.3f} | {row['spread_ms']:.3f} | {row['ratio']:.2f} "
        f"| {tensors} | {over} | {resident} | {error} |"
    )


def _machine(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"{processor()}, {torch.get_num_threads()} threads"


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), content)
    return content.getvalue()


def _picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    names = [name for name in dict.fromkeys(row["contestant"] for row in rows) if name != "plain step"]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        heights = {row["network"]: row["ratio"] for row in rows if row["contestant"] == name}
        at = [index + (place - (len(names) - 1) / 2) * width for index, _ in enumerate(networks)]
        axes.bar(at, [heights.get(network, math.nan) for network in networks], width, label=name, color=f"C{place}")
    axes.axhline(LIMIT, color="gray", linewidth=1, linestyle="--")
    axes.set_xticks(range(len(networks)), networks)
    axes.set_ylabel("time over a plain step's")
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 3, 4, 6, 8, 12], ["1", "2", "3", "4", "6", "8", "12"])
    axes.minorticks_off()
    axes.legend(ncols=2, fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, dpi=130, format="png")
    return content.getvalue()

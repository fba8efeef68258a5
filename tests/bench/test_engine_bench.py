"""The engine's benchmark runs with every contestant, and its document and table agree."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import benchmarks.engine.timing as engine_bench
from benchmarks.engine.contestants import CONTESTANTS, Arena, Contestant, entered
from benchmarks.engine.peak import peak_memory
from benchmarks.engine.timing import bench_engine, profile
from olfl_ray.errors import UserError

NEEDED = (
    "olfl_ray torch torchgen functorch torchvision numpy PIL pydantic pydantic_core annotated_types typing_inspection "
    "typing_extensions ruamel safetensors sympy mpmath filelock fsspec jinja2 markupsafe networkx packaging setuptools "
    "optree"
)
"""Modules: this package, torch, torchvision, pydantic, ruamel.yaml, safetensors, and their dependencies."""


@pytest.mark.filterwarnings("ignore")  # of the peers
def test_quick_benchmark_writes_document_table_and_figure(tmp_path: Path) -> None:
    lines: list[str] = []
    document = bench_engine(tmp_path, quick=True, networks=["linear"], say=lines.append)
    rows = {row["contestant"]: row for row in pq.read_table(document.with_suffix(".parquet")).to_pylist()}
    assert list(rows) == entered("cpu")
    assert {"higher", "TorchOpt"} <= set(rows)
    assert len(lines) == len(rows)
    assert rows["plain step"]["ratio"] == 1.0
    for name, row in rows.items():
        assert row["median_ms"] > 0
        assert f"| {name} | {row['median_ms']:.3f} |" in document.read_text()
        if row["error"] is not None:
            assert row["error"] < (1e-4 if CONTESTANTS[name].exact else 0.5)
    assert rows["ours: auto"]["error"] is not None
    assert document.with_suffix(".png").stat().st_size > 1000


def test_memory_is_measured_in_a_separate_process() -> None:
    few, many = (peak_memory("MLP 784-1000-10", rows, "ours: exact, low") for rows in (16, 4096))
    hidden = 4080 * 1000 * 4  # for the additional examples
    assert few.resident is not None
    assert many.resident is not None
    for more in (many.tensors - few.tensors, many.resident - few.resident):
        assert hidden < more < 20 * hidden


def test_low_needs_at_most_a_quarter_more_tensor_memory_than_a_plain_step() -> None:
    low, plain = (peak_memory("LeNet-5", 128, name, resident=False) for name in ("ours: exact, low", "plain step"))
    assert low.tensors <= 1.25 * plain.tensors


def test_benchmark_runs_with_little_more_than_torch_installed(tmp_path: Path) -> None:
    """A machine with a GPU often has little else: only the packages below, and their dependencies."""
    script = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "from importlib.metadata import packages_distributions\n"
        "absent = set(packages_distributions()) - set(sys.argv[2].split())\n"
        "class Few(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return None if name.partition('.')[0] in absent else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Few\n"
        "from pathlib import Path\n"
        "from benchmarks.engine.timing import bench_engine\n"
        "print(bench_engine(Path(sys.argv[1]), quick=True, networks=['linear']))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), NEEDED], check=True, timeout=300)
    assert [path.suffix for path in tmp_path.iterdir()] == [".md"]


def test_failing_contestant_stops_no_other_and_the_document_is_written_after_each_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_compiler(arena: Arena) -> Callable[[], None]:
        def step() -> None:
            raise RuntimeError("no C compiler\nset CC")

        return step

    def interrupted(arena: Arena) -> Callable[[], None]:
        if arena.module[-1].in_features == 1000:  # the second network's
            raise KeyboardInterrupt
        return engine_bench.CONTESTANTS["plain step"].start(arena)

    few = {name: CONTESTANTS[name] for name in ("plain step", "ours: auto", "ours: reverse")}
    few |= {"compiled": Contestant(start=without_compiler), "stopped": Contestant(start=interrupted)}
    monkeypatch.setattr(engine_bench, "CONTESTANTS", few)
    monkeypatch.setattr(engine_bench, "entered", lambda device: list(few))
    with pytest.raises(KeyboardInterrupt):
        bench_engine(tmp_path, quick=True, networks=["linear", "MLP 784-1000-10"], say=lambda line: None)
    (document,) = tmp_path.glob("*.md")
    assert "| compiled | not run: RuntimeError: no C compiler |" in document.read_text()
    assert "| stopped | " in document.read_text()
    assert "MLP" not in document.read_text().split("## ", 1)[1]


def test_profile_names_the_operators() -> None:
    shares = profile("linear", 16)
    assert any(name.startswith("aten::") for name, _ in shares)
    assert 0.5 < sum(share for _, share in shares) <= 1.0
    assert [share for _, share in shares] == sorted((share for _, share in shares), reverse=True)


def test_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^networks: there is no 'VGG'; use some of linear, "):
        bench_engine(tmp_path, networks=["VGG"])


@pytest.mark.parametrize(
    ("device", "folder", "wanted"),
    [
        ("foo", ".", "device: 'foo' is none that is measured; use cpu, cuda or cuda:N"),
        ("meta", ".", "device: 'meta' is none that is measured"),
        ("cuda:99", ".", "device: 'cuda:99' was asked for, but torch sees "),
        ("cpu", "/proc/x", "--out: /proc/x can't be written"),
    ],
)
def test_unusable_device_or_folder_is_refused_before_the_benchmark(
    tmp_path: Path, device: str, folder: str, wanted: str
) -> None:
    with pytest.raises(UserError) as refused:
        bench_engine(tmp_path / folder, networks=["linear"], device=device)
    assert str(refused.value).startswith(wanted)

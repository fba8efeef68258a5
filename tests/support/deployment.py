"""The files of `cluster/`: YAML documents, and the pods in Kubernetes manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
COMPOSE = CLUSTER / "compose.yaml"
MANIFESTS = sorted(path for path in (CLUSTER / "kuberay").glob("*.yaml") if path.stem != "kustomization")
RAY_UP = sorted((CLUSTER / "ray-up").glob("*.yaml"))
SCRIPTS = sorted([*CLUSTER.glob("*/*.sh"), *CLUSTER.glob("*/*.sbatch")])


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def everything() -> list[dict[str, Any]]:
    """Every document of every manifest."""
    return [document for path in MANIFESTS for document in documents(path)]


def pods(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and spec of each pod that a manifest starts."""
    spec = document.get("spec", {})
    name = f"{document['kind']} {document['metadata'].get('name') or document['metadata']['generateName']}"
    if document["kind"] == "RayJob":
        yield f"{name} submitter", spec["submitterPodTemplate"]["spec"]
        spec = spec["rayClusterSpec"]
    if "headGroupSpec" in spec:
        yield f"{name} head", spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]["spec"]
    elif "template" in spec:
        yield name, spec["template"]["spec"]


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document with its dotted path."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}.{index}")

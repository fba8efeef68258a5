"""`ray up` accepts the cluster files: they pass Ray's own loader and schema, and only ssh is reachable."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from support.deployment import CLUSTER, RAY_UP, documents


@pytest.fixture(params=RAY_UP, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    return documents(path)[0]


def test_ray_accepts_the_cluster_file(config) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_refuses_an_unknown_field(config) -> None:
    config["available_node_types"]["cpu"]["min_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate_config(prepare_config(config))


def test_workers_are_spot_instances_and_start_at_zero(config) -> None:
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"]:
            assert "SPOT" in str(kind["node_config"]).upper(), name
            assert kind["min_workers"] == 0, name


def test_no_port_is_opened_and_each_machine_has_a_role(config) -> None:
    assert "IpPermissions" not in config["provider"].get("security_group", {})
    assert not any("0.0.0.0" in command for command in config["head_start_ray_commands"])
    roles = {}
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        roles[name] = str(node["IamInstanceProfile"] if "IamInstanceProfile" in node else node["serviceAccounts"])
    assert roles["head"] != roles["cpu"] == roles["gpu"]


def test_image_has_what_a_head_needs_to_start_workers() -> None:
    dockerfile = (CLUSTER / "docker" / "Dockerfile").read_text().split()
    locked = (CLUSTER.parent / "requirements.lock").read_text()
    assert {"openssh-client", "rsync"} <= set(dockerfile)
    for package in ("boto3", "google-api-python-client", "google-auth-httplib2"):
        assert f"\n{package}==" in locked
    assert {"--requirement", "requirements.lock"} <= set(dockerfile)

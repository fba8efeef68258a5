"""The compose file opens ports only on loopback, checks each service, and takes secrets from files."""

from typing import Any

import pytest
from support.deployment import COMPOSE, documents

WHOLE = documents(COMPOSE)[0]
SERVICES: dict[str, dict[str, Any]] = WHOLE["services"]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def test_ports_are_published_on_loopback(service) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_web_pages_and_the_bucket_are_published() -> None:
    assert {port for service in SERVICES.values() for port in service.get("ports", [])} == {
        "127.0.0.1:8265:8265",
        "127.0.0.1:5000:5000",
        "127.0.0.1:8333:8333",
    }


def test_each_service_has_a_healthcheck_and_no_new_privileges(service) -> None:
    assert {"test", "interval", "timeout", "retries", "start_period"} == set(service["healthcheck"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_secrets_are_files_that_the_script_creates(service) -> None:
    script = (COMPOSE.parent / "docker" / "make-secrets.sh").read_text()
    for name in service["secrets"]:
        assert WHOLE["secrets"][name] == {"file": f"./secrets/{name}"}
        assert f"keep {name}" in script


def test_service_reads_only_its_own_secrets(service) -> None:
    text = f"{service.get('command')} {service.get('entrypoint')} {service.get('environment')}"
    for name in WHOLE["secrets"]:
        assert (f"/run/secrets/{name}" in text) == (name in service["secrets"])


def test_dependencies_and_volumes_of_services_exist(service) -> None:
    for name, wait in service.get("depends_on", {}).items():
        assert "healthcheck" in SERVICES[name]
        assert wait == {"condition": "service_healthy"}
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in WHOLE["volumes"]


def test_ray_nodes_require_the_token() -> None:
    for name in ("head", "worker", "gpu-worker"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"

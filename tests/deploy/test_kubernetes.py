"""Kubernetes accepts the manifests, and its pods run without root, without privileges and with memory limits.

No package has schemas of KubeRay's two kinds: their pods are checked against Kubernetes' own schema, their other fields
against the names in KubeRay's API reference (1.5).
"""

import re
from typing import Any

import kubernetes_validate
import pytest
from support.deployment import CLUSTER, documents, everything, pods

VERSIONS = ["1.31", "1.37"]
PODS = [pytest.param(spec, id=name) for document in everything() for name, spec in pods(document)]
KNOWN = {
    "RayJob": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus"
        " entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML"
        " shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished"
    ),
    "RayCluster": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec"
        " headServiceAnnotations managedBy rayVersion suspend workerGroupSpecs"
    ),
    "head": "enableIngress headService labels rayStartParams resources serviceType template",
    "worker": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams replicas resources"
        " scaleStrategy suspend template"
    ),
    "autoscaler": (
        "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode version"
        " volumeMounts"
    ),
}


def _named(kind: str, found: dict[str, Any]) -> None:
    assert set(found) <= set(KNOWN[kind].split()), kind


@pytest.mark.parametrize("version", VERSIONS)
def test_plain_manifests_and_every_pod_follow_the_schema(version) -> None:
    for document in everything():
        if document["apiVersion"] != "ray.io/v1":
            kubernetes_validate.validate(document, version, strict=True)
        for name, spec in pods(document):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
            try:
                kubernetes_validate.validate(pod, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{name}: {error}")


def test_schema_refuses_an_unknown_field() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [], "tolerationz": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="tolerationz"):
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)


def test_fields_of_kuberay_are_in_its_reference() -> None:
    found = [document for document in everything() if document["apiVersion"] == "ray.io/v1"]
    assert {document["kind"] for document in found} == {"RayCluster", "RayJob"}
    for document in found:
        _named(document["kind"], document["spec"])
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        _named("RayCluster", cluster)
        _named("head", cluster["headGroupSpec"])
        _named("autoscaler", cluster.get("autoscalerOptions", {}))
        for group in cluster["workerGroupSpecs"]:
            _named("worker", group)
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_requires_a_token_and_runs_the_locked_version() -> None:
    locked = (CLUSTER.parent / "requirements.lock").read_text()
    for document in everything():
        if document["apiVersion"] == "ray.io/v1":
            cluster = document["spec"].get("rayClusterSpec", document["spec"])
            assert cluster["authOptions"] == {"mode": "token"}
            assert re.search(rf"^ray(\[.*\])?=={re.escape(cluster['rayVersion'])} ", locked, re.M)


@pytest.mark.parametrize("spec", PODS)
def test_pod_has_no_root_no_privileges_and_a_memory_limit(spec) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_services_have_probes() -> None:
    served = [document for document in everything() if document["kind"] in ("Deployment", "StatefulSet")]
    assert len(served) == 2
    for document in served:
        for container in document["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_referenced_objects_exist() -> None:
    kustomization = documents(CLUSTER / "kuberay" / "kustomization.yaml")[0]
    for name in kustomization["resources"]:
        assert (CLUSTER / "kuberay" / name).is_file(), name
    made = {generated["name"] for generated in kustomization["configMapGenerator"]}
    accounts = {document["metadata"]["name"] for document in everything() if document["kind"] == "ServiceAccount"}
    for document in everything():
        for name, spec in pods(document):
            assert spec.get("serviceAccountName", "olfl") in accounts, name
            for container in spec["containers"]:
                for source in container.get("envFrom", []):
                    assert source.get("configMapRef", {"name": "olfl"})["name"] in made, name


def test_secrets_are_referenced_and_never_created() -> None:
    kustomization = documents(CLUSTER / "kuberay" / "kustomization.yaml")[0]
    assert "secretGenerator" not in kustomization
    assert not [document for document in everything() if document["kind"] == "Secret"]


def test_each_kind_of_pod_has_its_own_account_and_only_the_autoscaler_a_token() -> None:
    accounts: dict[str, set[str]] = {}
    for document in everything():
        for name, spec in pods(document):
            role = "worker" if name.split()[-1] in ("cpu", "gpu") else name.split()[-1]
            accounts.setdefault(spec["serviceAccountName"], set()).add(role)
            autoscales = document.get("spec", {}).get("enableInTreeAutoscaling", False) and role == "head"
            assert spec["automountServiceAccountToken"] is autoscales, name
        if document["kind"] == "ServiceAccount":
            assert document["automountServiceAccountToken"] is False
    assert all(len(roles) == 1 for roles in accounts.values()), accounts


def test_traffic_between_pods_requires_a_policy() -> None:
    policies = {
        document["metadata"]["name"]: document["spec"]
        for document in everything()
        if "NetworkPolicy" in document["kind"]
    }
    denied = policies["default-deny"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        for way in ("ingress", "egress"):
            for rule in spec.get(way, []):
                assert rule.get("from") or rule.get("to"), name
                everywhere = any(peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for peer in rule.get("to", []))
                assert not everywhere or {port["port"] for port in rule["ports"]} <= {443, 6443}, name
    assert "egress" not in policies["postgres"]

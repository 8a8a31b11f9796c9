"""The manifests fit the published schemas, and name only what the code has."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from export.cli import _parser as export_parser
from pxserve.cli.flags import parser as client_parser
from serving.api.health import LIVENESS
from serving.cli import parser as server_parser
from serving.config import Config, flag_of, read_file
from serving.telemetry.table import TABLE
from tests.deploy.manifests import DEPLOY, KUBECTL, KUBERNETES, KUSTOMIZED, Document, containers, whole

KUBERNETES_VERSION = "1.32"
CUSTOM = {"ServingRuntime", "InferenceService", "ScaledObject", "ServiceMonitor", "PrometheusRule"}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
RECONNECT_WITHIN_S = 600.0
LAST_WORDS_S = 10  # the engine's end and the replies that are on their way
PARSERS = {"pxserve-server": server_parser, "pxserve-export": export_parser, "pxserve": client_parser}


@cache
def objects() -> list[tuple[str, Document]]:
    return whole()


def served() -> list[tuple[str, Document, Document]]:
    """Name, object and container of every server in the manifests."""
    found = [(name, doc, c) for name, doc in objects() for c in containers(doc)]
    return [(name, doc, c) for name, doc, c in found if c["name"] in ("server", "kserve-container")]


def config_of(name: str, container: Document) -> Config:
    """The settings that a server in the manifests runs with: its ConfigMap's file, then its flags."""
    args = list(container.get("args", []))
    values: dict[str, Any] = {}
    if "--config" in args:
        place = args.index("--config")
        args = args[:place] + args[place + 2 :]
        overlay = KUBERNETES / "overlays" / name.partition(":")[0] / "pxserve.toml"
        values = read_file(overlay if overlay.exists() else KUBERNETES / "base" / "pxserve.toml")
    given = vars(server_parser().parse_args(args))
    known = Config.__dataclass_fields__
    return Config(**{**values, **{k: v for k, v in given.items() if k in known and v is not None}})


def test_every_object_fits_the_published_schema() -> None:
    checked = 0
    for name, document in objects():
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
            checked += 1
        else:
            assert "/" in document["apiVersion"], name
    assert checked >= 8


@pytest.mark.skipif(KUBECTL is None, reason="kubectl renders them")
def test_every_kustomization_renders() -> None:
    rendered = {name.partition(":")[0] for name, _ in objects()}
    assert {path.name for path in KUSTOMIZED if path.parent.name != "components"} <= rendered


def test_servers_run_with_settings_that_the_server_has() -> None:
    assert len(served()) >= 2
    for name, _, container in served():
        config = config_of(name, container)
        assert config.models
        assert config.engine == "process"


def test_probes_ask_ports_and_services_that_exist() -> None:
    for name, _, container in served():
        config = config_of(name, container)
        port = int(config.listen.rpartition(":")[2])
        opened = {entry["containerPort"] for entry in container["ports"]}
        assert port in opened, name
        asked = {kind: asked_by(container[kind], port) for kind in PROBES if kind in container}
        assert asked["livenessProbe"] == LIVENESS, name
        assert asked["readinessProbe"] == "", name
        assert asked.get("startupProbe", LIVENESS) == LIVENESS, name


def asked_by(probe: Document, port: int) -> str:
    """The service that a probe asks for, by the kubelet or (where there is TLS) by the client."""
    if "grpc" in probe:
        assert probe["grpc"]["port"] == port
        return str(probe["grpc"].get("service", ""))
    name, *arguments = probe["exec"]["command"]
    given = PARSERS[name]().parse_args(arguments)
    assert given.command == "health"
    assert given.target == f"localhost:{port}"
    assert given.tls
    return str(given.service)


def test_services_lead_to_the_ports_of_the_server() -> None:
    named = {entry["name"]: entry["containerPort"] for _, _, c in served() for entry in c["ports"]}
    services = [document for _, document in objects() if document["kind"] == "Service"]
    assert any(service["spec"].get("clusterIP") == "None" for service in services)
    for service in services:
        for entry in service["spec"]["ports"]:
            assert named[entry["targetPort"]] == entry["port"]


def test_a_pod_has_time_to_drain() -> None:
    for name, document, container in served():
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            needed_s = pause_s + config_of(name, container).drain_s + LAST_WORDS_S
            assert pod["terminationGracePeriodSeconds"] >= needed_s, name


def test_threads_are_as_many_as_the_cpu_limit() -> None:
    for name, document, container in served():
        if document["kind"] == "Deployment":
            assert config_of(name, container).threads == int(container["resources"]["limits"]["cpu"])


def test_containers_are_confined() -> None:
    for name, document in objects():
        for container in containers(document):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"]["drop"] == ["ALL"], name
            assert container["resources"]["limits"]["memory"], name
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["automountServiceAccountToken"] is False


def test_commands_of_containers_parse() -> None:
    for _, document in objects():
        for container in containers(document):
            if "command" in container:
                name, *arguments = container["command"]
                PARSERS[name]().parse_args(arguments)


def test_every_replica_makes_its_clients_look_for_others() -> None:
    """Else replicas that were added get no traffic: connections of gRPC last."""
    for name, _, container in served():
        assert 0 < config_of(name, container).max_connection_age_s <= RECONNECT_WITHIN_S, name


@pytest.mark.parametrize("component", ["tls", "tokens"])
def test_flags_of_the_components_exist_and_name_what_is_mounted(component: str) -> None:
    text = (KUBERNETES / "components" / component / "kustomization.yaml").read_text()
    flags = {f"--{flag_of(name)}" for name in Config.__dataclass_fields__}
    added = dict(re.findall(r"value: (--[a-z-]+)=(\S+)", text))
    mounts = re.findall(r"mountPath: (\S+)", text)
    assert added.keys() <= flags
    assert set(added) == {"tls": {"--tls-cert", "--tls-key"}, "tokens": {"--tokens"}}[component]
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in added.values())


@pytest.mark.skipif(KUBECTL is None, reason="kubectl renders them")
def test_the_secure_overlay_answers_nothing_without_tls_and_a_token() -> None:
    [(name, deployment, container)] = [found for found in served() if found[0] == "secure:Deployment"]
    config = config_of(name, container)
    assert config.tls_cert
    assert config.tokens
    assert config.no_reflection
    pod = deployment["spec"]["template"]["spec"]
    assert {"pxserve-tls", "pxserve-tokens"} <= {
        v.get("secret", {}).get("secretName") for v in pod["volumes"]
    }
    for mount in container["volumeMounts"]:
        assert mount.get("readOnly") or mount["mountPath"] == "/tmp"
        assert "subPath" not in mount, "files of a subPath are never replaced"
    ports = [p for n, s in objects() if n == "secure:Service" for p in s["spec"]["ports"]]
    assert all("appProtocol" not in port for port in ports)


@pytest.mark.parametrize("path", [p for p in DEPLOY.rglob("*.yaml") if "autoscaling" in p.parts], ids=str)
def test_metrics_of_the_autoscalers_exist(path: Path) -> None:
    known = {metric.name for metric in TABLE}
    assert set(re.findall(r"\bpxserve_[a-z_]+", path.read_text())) <= known


def test_replicas_scale_on_the_backlog() -> None:
    scaled = {
        document["kind"]: str(document["spec"])
        for _, document in objects()
        if document["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")
    }
    assert len(scaled) == 2
    assert all("pxserve_backlog_seconds" in text for text in scaled.values())


@pytest.mark.skipif(KUBECTL is None, reason="kubectl renders them")
def test_the_gpu_overlay_gives_each_process_one_gpu() -> None:
    [(name, deployment, container)] = [found for found in served() if found[0] == "gpu:Deployment"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "pxserve:gpu"
    assert config_of(name, container).device == "cuda:0"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["nodeSelector"]
    assert pod["tolerations"]
    assert {document["kind"] for found, document in objects() if found.startswith("gpu:")} >= {
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    }

"""The manifests of deploy/, parsed; and rendered where kubectl is at hand."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZED = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
KUBECTL = shutil.which("kubectl")

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """The objects of one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def plain() -> Iterator[tuple[Path, Document]]:
    """Every object that is written out whole: no patches, no values of charts."""
    for path in sorted([*KUBERNETES.rglob("*.yaml"), *(DEPLOY / "kserve").glob("*.yaml")]):
        for document in documents(path):
            overlaid = "overlays" in path.parts and document.get("kind") == "Deployment"
            if "kind" in document and path.name != "kustomization.yaml" and not overlaid:
                yield path, document


def rendered(folder: Path) -> list[Document]:
    """What ``kubectl apply -k`` would send."""
    assert KUBECTL is not None
    shown = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(shown.stdout) if document]


def containers(document: Document) -> list[Document]:
    """Containers of a Deployment or of a ServingRuntime, those that prepare included."""
    if document["kind"] == "ServingRuntime":
        return list(document["spec"]["containers"])
    if document["kind"] != "Deployment":
        return []
    pod = document["spec"]["template"]["spec"]
    return [*pod["containers"], *pod.get("initContainers", [])]


def whole() -> list[tuple[str, Document]]:
    """Objects as a cluster would get them: the plain files, and what kubectl renders of them."""
    found = [(f"{path.name}:{document['kind']}", document) for path, document in plain()]
    if KUBECTL is not None:
        for folder in KUSTOMIZED:
            if folder.parent.name != "components":
                found += [(f"{folder.name}:{doc['kind']}", doc) for doc in rendered(folder)]
    return found

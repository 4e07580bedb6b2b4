"""The deployment files fit each other and the code, and hold no secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.environment import Environment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra/deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
TAPIR = COMPOSE["services"]["tapir"]
# The secrets that docs/deploy.md says how to make.
SECRETS = {"tapir-postgres", "tapir-dask", "tapir-store"}


def manifests() -> list[dict[str, Any]]:
    """Every Kubernetes object of the kustomization."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def containers() -> Iterator[dict[str, Any]]:
    for manifest in manifests():
        yield from (
            manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        )


def values(tree: Any, key: str) -> Iterator[Any]:
    """What stands under a key, anywhere in a tree."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(tree, list):
        for item in tree:
            yield from values(item, key)


def settings() -> dict[str, str]:
    data: dict[str, str] = next(m for m in manifests() if m["kind"] == "ConfigMap")["data"]
    return data


def hosts(environment: dict[str, str]) -> set[str]:
    """Names of other services in URLs."""
    found = re.findall(r"(?:tls|http|postgresql\+\w+)://(?:\w+@)?([\w-]+)", repr(environment))
    return set(found)


def test_compose_names_only_services_secrets_and_volumes_that_it_has() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        assert hosts(service.get("environment", {})) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()


def test_compose_publishes_on_loopback_only() -> None:
    published = [port for found in values(COMPOSE["services"], "ports") for port in found]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_kubernetes_names_only_services_and_secrets_that_are_there() -> None:
    services = {one["metadata"]["name"] for one in manifests() if one["kind"] == "Service"}
    assert hosts(settings()) | hosts({"all": repr(manifests())}) == services
    named = {ref["name"] for ref in values(manifests(), "secretKeyRef")}
    named |= {ref["name"] for ref in values(manifests(), "secretRef")}
    named |= {ref["secretName"] for ref in values(manifests(), "secret")}
    assert named == SECRETS
    text = (ROOT / "docs/deploy.md").read_text()
    assert all(f"secret generic {name}" in text for name in SECRETS)


def test_both_run_the_same_commands_with_the_same_settings() -> None:
    composed = {name: one.get("command") for name, one in COMPOSE["services"].items()}
    assert {one["name"]: one.get("command") for one in containers()} == composed
    assert settings().keys() == TAPIR["environment"].keys()


def test_the_worker_serves_the_pool_that_prefect_yaml_deploys_to() -> None:
    text = (ROOT / "prefect.yaml").read_text()
    pools = {one["work_pool"]["name"] for one in yaml.safe_load(text)["deployments"]}
    command = TAPIR["command"]
    assert pools == {command[command.index("--pool") + 1]}
    # What prefect.yaml asks of a worker's environment, the image sets.
    image = (DEPLOY / "Dockerfile").read_text()
    assert all(f"{name}=" in image for name in re.findall(r"\{\{ \$(\w+) \}\}", text))


def test_no_secret_is_written_down() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${POSTGRES_PASSWORD:?")
    for container in containers():
        for variable in container.get("env", ()):
            assert "PASSWORD" not in variable["name"] or "value" not in variable
    files = [*DEPLOY.glob("*.yaml"), *KUBERNETES.iterdir()]
    assert not [file for file in files if re.search(r"://\w+:[^@/\s]+@", file.read_text())]


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, str]:
    """The environment of compose's Dask services, with certificates made as the docs say."""
    subprocess.run([DEPLOY / "certificates.sh", tmp_path / "secrets"], check=True)
    folder = f"{tmp_path / 'secrets'}/"
    declared = {
        name: str(value).replace("/run/secrets/", folder)
        for name, value in TAPIR["environment"].items()
        if name.startswith("DASK_")
    }
    return {**os.environ, **declared, "TAPIR_HOME": str(tmp_path)}


def test_dask_with_certificates_serves_who_has_one(
    certified: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:

        def dask(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", *arguments]
            process = subprocess.Popen(
                command, env=certified, cwd=tmp_path, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            return process

        written = tmp_path / "scheduler.json"
        local = ("--host", "127.0.0.1", "--no-dashboard")
        scheduler = COMPOSE["services"]["dask-scheduler"]["command"][1:4]
        dask(*scheduler, *local, "--port", "0", "--scheduler-file", str(written))
        _wait_for(written)
        address = yaml.safe_load(written.read_text())["address"]
        assert address.startswith("tls://")
        dask("worker", address, *local, "--nthreads", "1", "--no-nanny")
        asking = (
            "import sys; from pathlib import Path; from infra.environment import Environment\n"
            "client = Environment(Path(), dask=sys.argv[1]).client()\n"
            "print(client.submit(sum, [19, 23]).result(timeout=60))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", asking, address],
            cwd=ROOT, env=certified, capture_output=True, text=True, timeout=90, check=True,
        )  # fmt: skip
        assert answer.stdout.strip() == "42"
        with pytest.raises(TypeError, match="TLS"):
            Environment(tmp_path, dask=address).client()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, "the scheduler did not start"
        time.sleep(0.1)

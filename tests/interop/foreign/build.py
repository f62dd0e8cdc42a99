"""Builds the peers into a cache outside the repository. No toolchain: a reason to skip; a failed build: a failure.

The cache is XDG_CACHE_HOME/punchbridge/interop; a folder's sources are copied there, so that no lock file or build
product is left beside them. CARGO_BUILD_JOBS and GOMAXPROCS are obeyed. Knows no protocol.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = REPOSITORY / "tests" / "interop" / "peers"
BUILD_SECONDS = 3600
"""A cold rust-libp2p on one slow core needs about 20 minutes."""
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h: a build command that ends so misses something here; its last line says what."""


class BuildFailed(RuntimeError):
    """A peer did not compile; the text ends with the tool's last lines."""


class Missing(RuntimeError):
    """A toolchain is not here; the text says which."""


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "punchbridge" / "interop"


@dataclass(frozen=True)
class Recipe:
    """How one folder of `peers` becomes a program. `product` is a path in the copied folder."""

    folder: str
    tool: str
    commands: Sequence[Sequence[str]]
    product: str
    argv: Callable[[Path], list[str]]

    @property
    def home(self) -> Path:
        return cache() / self.folder

    def missing(self) -> str | None:
        """Why it cannot be built here, None when it can."""
        return None if shutil.which(self.tool) else f"no {self.tool} on this machine"

    def digest(self) -> str:
        found = hashlib.sha256(repr(self.commands).replace(sys.executable, "python").encode())
        for path in sorted((SOURCES / self.folder).rglob("*")):
            if path.is_file():
                found.update(path.name.encode() + b"\0" + path.read_bytes())
        return found.hexdigest()

    def ready(self) -> bool:
        stamp = self.home / "stamp"
        return stamp.exists() and stamp.read_text() == self.digest() and (self.home / self.product).exists()

    def build(self) -> Path:
        """Returns the product, built anew only when the sources changed. Raises Missing, BuildFailed."""
        product = self.home / self.product
        if self.ready():
            return product
        why = self.missing()
        if why is not None:
            raise Missing(why)
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "stamp").unlink(missing_ok=True)
        if (SOURCES / self.folder).exists():
            shutil.copytree(SOURCES / self.folder, self.home, dirs_exist_ok=True)
        for command in self.commands:
            done = subprocess.run(
                command,
                cwd=self.home,
                env={**os.environ, "PROTOC": _protoc()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
            if done.returncode == UNAVAILABLE:
                raise Missing((done.stderr.splitlines() or ["a build command says so without a reason"])[-1])
            if done.returncode != 0:
                tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
                raise BuildFailed(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
        (self.home / "stamp").write_text(self.digest())
        return product


def _protoc() -> str:
    """PROTOC for prost's build scripts: the caller's, the system's, or a wrapper of the one in grpcio-tools."""
    found = os.environ.get("PROTOC") or shutil.which("protoc")
    if found:
        return found
    wrapper = cache() / "protoc"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grpc_tools.protoc "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def _program(product: Path) -> list[str]:
    return [str(product)]


def _node(product: Path) -> list[str]:
    """js-libp2p 3 needs Node 22: the package brings one, whatever the machine has."""
    brought = sorted((product.parent / "node_modules").glob("node-linux-*/bin/node"))
    return [str(brought[0]) if brought else "node", str(product)]


KASPA = "kaspa-p2p-lib@2.1.0"
"""As in peers/kaspa/Cargo.toml; its own two programs are installed unchanged."""
QUICK = ("--config", "profile.release.opt-level=1", "--config", "profile.release.debug=false")
"""The same profile, so that both share what is compiled."""
GHZ = "github.com/bojand/ghz/cmd/ghz@v0.120.0"

RECIPES = {
    "go": Recipe("go", "go", [["go", "build", "-trimpath", "-o", "peer", "."]], "peer", _program),
    "rust": Recipe(
        "rust",
        "cargo",
        [["cargo", "build", "--release", "--target-dir", "target"]],
        "target/release/punchbridge-interop-peer",
        _program,
    ),
    "js": Recipe(
        "js",
        "npm",
        [["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]],
        "main.js",
        _node,
    ),
    "kaspa": Recipe(
        "kaspa",
        "cargo",
        [
            ["cargo", "build", "--release", "--target-dir", "target"],
            ["cargo", "install", "--root", ".", "--target-dir", "target", *QUICK, KASPA],
        ],
        "target/release/punchbridge-interop-kaspa",
        _program,
    ),
    "official": Recipe("official", "apt-get", [[sys.executable, "fetch.py"]], "VERSION", _program),
    "h2load": Recipe("h2load", "apt-get", [[sys.executable, "fetch.py"]], "root/usr/bin/h2load", _program),
    "ghz": Recipe("ghz", "go", [["sh", "-c", f'GOBIN="$PWD" go install -trimpath {GHZ}']], "ghz", _program),
}
PYTHON = {
    "ours": "ours.py",
    "py": "stock.py",
    "rpc": "rpc.py",
    "host": "host.py",
    "node": "kaspanode.py",
    "grpcio": "plain.py",
}
SECOND = {
    "grpcjs": ("js", "grpc.js"),
    "kaspa_p2p_server": ("kaspa", "bin/kaspa_p2p_server"),
    "kaspa_p2p_client": ("kaspa", "bin/kaspa_p2p_client"),
}
"""Another program of a recipe's folder."""


def _recipe(kind: str) -> tuple[Recipe, Path]:
    """The recipe that builds a kind, and its program there."""
    folder, product = SECOND.get(kind, (kind, ""))
    recipe = RECIPES[folder]
    return recipe, recipe.home / (product or recipe.product)


def unavailable(kind: str) -> str | None:
    """Why a peer of this kind cannot be started now, None when it can."""
    if kind in PYTHON:
        return None
    recipe, _ = _recipe(kind)
    if recipe.ready():
        return None
    return recipe.missing() or f"the {kind} peer is not built; run scripts/interop build {recipe.folder}"


def no_engine() -> str | None:
    """Why ours speaks no QUIC here, None when it does."""
    return (
        None if find_spec("punchbridge_quic") else "the QUIC engine (native/quic) is not built; see scripts/setup-env"
    )


def command(kind: str) -> list[str]:
    """How to start a peer. Raises Missing when it is not built."""
    if kind in PYTHON:
        return [sys.executable, str(SOURCES / "py" / PYTHON[kind])]
    recipe, product = _recipe(kind)
    if not recipe.ready():
        raise Missing(unavailable(kind) or "")
    return recipe.argv(product)

"""The house rules that no linter checks: sizes, what the package holds, what must not stand in a tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_LINES = 400
FUNCTION_LINES = 60
PUBLIC_METHODS = 20
SOURCES = sorted(
    path
    for folder in ("bridge", "node", "relay", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb" not in path.parts
)


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name
        elif isinstance(node, ast.ClassDef):
            methods = [
                one
                for one in node.body
                if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and not one.name.startswith("_")
            ]
            assert len(methods) <= PUBLIC_METHODS, node.name


@pytest.mark.parametrize("path", [one for one in SOURCES if one.stat().st_size], ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", sorted((ROOT / "scripts/lab").glob("*.py")), ids=name_of)
def test_the_lab_knows_no_program(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not {name.partition(".")[0] for name in names} & {
            "runs",
            "punchbridge",
            "punchbridge_node",
            "punchbridge_relay",
        }


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    """A clone works anywhere: no home of a developer, no download address of a package, no lock file with such."""
    words = [
        "/home/" + r"\w",
        "/root/" + r"\.",
        "files.python" + "hosted",
        "pypi" + r"\.org",
        "index-" + "url",
        "--find-" + "links",
    ]
    bad = re.compile("|".join(words))
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}:{number}" for number, line in enumerate(text.splitlines(), 1) if bad.search(line)]
    assert not found


def test_generated_and_private_files_are_not_tracked() -> None:
    # What the programs of a recorded run said on stderr is evidence, not a leftover.
    found = [path for path in tracked() if path.relative_to(ROOT).parts[0] != "logs"]
    bad = [name_of(path) for path in found if path.suffix in (".pyc", ".key", ".log") or ".venv" in path.parts]
    assert not bad


def test_no_two_test_files_are_one_module() -> None:
    """Folders without `__init__.py` share their names; pytest takes none of the tests when one is there twice."""
    alone = [path for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    names = Counter(path.name for path in alone)
    assert [path for path in alone if names[path.name] > 1] == []


def test_package_holds_exactly_three_top_level_names() -> None:
    """What is installed begins with `punchbridge`; a short name such as `node` would collide with others' packages."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    folders = [path.parent.name for where in settings["where"] for path in (ROOT / where).glob("*/__init__.py")]
    found = {name for name in folders if any(fnmatchcase(name, pattern) for pattern in settings["include"])}
    assert found == {"punchbridge", "punchbridge_node", "punchbridge_relay"}


@pytest.mark.parametrize("folder", ["bridge", "node", "relay"])
def test_no_package_is_imported_under_its_folders_name(folder: str) -> None:
    """Python started in the checkout could import each class twice, once under each name."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "import it by that name" in done.stderr


def test_every_room_has_its_layer() -> None:
    """import-linter checks the rooms that it is told of; one that is missing could import anything."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "rooms"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    generated_or_door = {"_pb", "__init__", "__main__", "__pycache__", "py"}
    rooms = {path.name.partition(".")[0] for path in (ROOT / "bridge").iterdir()} - generated_or_door
    assert named == {f"punchbridge.{room}" for room in rooms} | {"punchbridge_node", "punchbridge_relay"}


def test_every_package_folder_is_installed() -> None:
    """A folder of modules without __init__.py would work from a checkout and be missing in an installation."""
    bare = [
        name_of(path.parent)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] != "scripts" and not (path.parent / "__init__.py").exists()
    ]
    assert not bare


def test_the_version_is_said_once() -> None:
    """Whoever tells the version reads it from `punchbridge.version`; so does the build, without importing anything."""
    from punchbridge.version import __version__

    files = [*SOURCES, ROOT / "pyproject.toml"]
    # The protocol version of identify happens to be spelt alike; it is a fact of the wire (libp2p specs, identify).
    said = re.compile(rf"(?<![\d.])(?<!ipfs/){re.escape(__version__)}(?![\d.])")
    found = [name_of(path) for path in files if said.search(path.read_text())]
    assert found == ["bridge/version.py"]


@pytest.mark.parametrize("name", ["punchbridge", "punchbridge.cli", "punchbridge_relay"])
def test_importing_the_front_doors_is_cheap(name: str) -> None:
    code = f"import sys, {name}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert not {"libp2p", "grpc", "trio", "cyclopts", "rich"} & set(loaded.split())


def test_dependencies_have_their_reasons() -> None:
    """Each direct dependency has a line in docs/dependencies.md, and an exact pin in constraints.txt."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *settings["dependencies"],
        *(one for group in settings["optional-dependencies"].values() for one in group),
    ]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    pins = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    for one in wanted:
        name = re.split(r"[<>=!~ \[]", one, maxsplit=1)[0]
        assert f"| {name} |" in page, name
        assert name == "punchbridge" or name.lower() in pins, name

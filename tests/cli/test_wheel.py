"""What a user installs: the wheel and the source distribution hold the same files, and the programs run from them.

The build takes the tracked files as a clone has them, links included. The fresh environment borrows the dependencies
of this one, so that nothing is downloaded and nothing is compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import punchbridge
from tests.cli.calls import shouted
from tests.cli.programs import LOCAL, LOOPBACK, ROOT, Program

FOLDERS = {"punchbridge": "bridge", "punchbridge_node": "node", "punchbridge_relay": "relay"}
BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]), file=sys.stderr)"
CALL = """
import sys, punchbridge
with punchbridge.open(listen=[sys.argv[1]], allow_private=True, allow=punchbridge.ANYONE) as b:
    with b.channel(sys.argv[2]) as channel:
        print(channel.unary_unary("/test.Echo/Shout")(b"from the wheel", timeout=60).decode())
print(punchbridge.__version__, punchbridge.__file__)
"""

pytestmark = pytest.mark.timeout(600)


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    return [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]


def build(kind: str, tree: Path, out: Path) -> Path:
    """Runs a build backend hook as pip does, without a network; returns the one file that it made."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=tree, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = [path for path in out.iterdir() if path.suffix == (".whl" if kind == "build_wheel" else ".gz")]
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution of the tracked files."""
    base = tmp_path_factory.mktemp("made")
    tree = base / "tree"
    for name in tracked():
        # The evidence of recorded runs is large and in no package.
        if not name.startswith("logs/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    return build("build_wheel", tree, base), build("build_sdist", tree, base)


@pytest.fixture(scope="module")
def place(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it."""
    root = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(made[0])], check=True)
    return root


def site(root: Path) -> Path:
    (found,) = (root / "lib").glob("python3*/site-packages")
    return found


def test_the_links_of_src_are_kept_by_a_clone() -> None:
    told = subprocess.run(["git", "ls-files", "-s", "src"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    modes = {line.split("\t")[1]: line.split()[0] for line in told.splitlines()}
    assert modes == {f"src/{name}": "120000" for name in FOLDERS}
    assert {name: os.readlink(ROOT / "src" / name) for name in FOLDERS} == {
        name: f"../{folder}" for name, folder in FOLDERS.items()
    }


def test_the_wheel_holds_every_module_as_a_file_and_is_for_any_machine(made: tuple[Path, Path]) -> None:
    wheel = made[0]
    assert wheel.name == f"punchbridge-{punchbridge.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    assert not [one.filename for one in entries if (one.external_attr >> 28) == 0o12], "a link in the wheel"
    held = {one.filename for one in entries if ".dist-info/" not in one.filename}
    wanted = {
        f"{name}/{path.removeprefix(folder + '/')}"
        for name, folder in FOLDERS.items()
        for path in tracked()
        if path.startswith(f"{folder}/") and path.endswith((".py", ".pyi", "/py.typed"))
    }
    assert held == wanted
    assert {f"{name}/py.typed" for name in FOLDERS} <= held
    assert any(name.endswith("_pb2.pyi") for name in held)


def test_a_wheel_made_from_the_source_distribution_is_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(made[1]) as archive:
        assert not [one.name for one in archive if one.issym() or one.islnk()]
        archive.extractall(tmp_path / "from", filter="data")
    (tree,) = (tmp_path / "from").iterdir()
    out = tmp_path / "out"
    out.mkdir()
    again = build("build_wheel", tree, out)
    assert again.name == made[0].name
    with zipfile.ZipFile(again) as here, zipfile.ZipFile(made[0]) as there:
        assert {one: here.read(one) for one in here.namelist() if ".dist-info/" not in one} == {
            one: there.read(one) for one in there.namelist() if ".dist-info/" not in one
        }


def test_nothing_but_our_names_lands_in_site_packages(place: Path) -> None:
    names = {path.name for path in site(place).iterdir()}
    assert names == {*FOLDERS, f"punchbridge-{punchbridge.__version__}.dist-info"}
    scripts = {path.name for path in (place / "bin").iterdir() if path.name.startswith("punchbridge")}
    assert scripts == {"punchbridge", "punchbridge-relay", "punchbridge-listener", "punchbridge-dialer"}


@pytest.fixture
def installed(place: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """The environment variables and the folder of programs of the installation, dependencies within reach."""
    # Folders named by a .pth file have their own .pth files ignored: the checkout of this test stays out of reach.
    borrowed = site(place) / "borrowed.pth"
    borrowed.write_text("\n".join(dict.fromkeys(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))))
    del environment["PYTHONPATH"]
    yield environment, place / "bin"
    borrowed.unlink()


def test_programs_and_a_grpc_call_run_from_the_wheel(
    installed: tuple[dict[str, str], Path], server: str, tmp_path: Path
) -> None:
    environment, folder = installed
    running: list[Program] = []

    def start(*arguments: str) -> Program:
        running.append(Program(arguments, environment, tmp_path, (str(folder / "punchbridge"),)))
        return running[-1]

    try:
        relay = start("relay", "--listen", LOOPBACK, "--lan", "--json").event("relay.listening")["addrs"][0]
        exposed = start("expose", server, "--relay", relay, *LOCAL, "--open")
        target = exposed.line()
        forwarded = start("forward", target, *LOCAL)
        assert shouted(forwarded.line(), b"over the wheel") == b"OVER THE WHEEL"
        called = subprocess.run(
            [folder / "python", "-c", CALL, LOOPBACK, target],
            env=environment, cwd=tmp_path, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert called.returncode == 0, called.stderr
        answer, told = called.stdout.splitlines()
        assert answer == "FROM THE WHEEL"
        version, _, home = told.partition(" ")
        assert version == punchbridge.__version__
        assert Path(home).is_relative_to(folder.parent)
        for program in reversed(running):
            assert program.stop()[0] == 0
    finally:
        for program in running:
            program.kill()

"""Fetches gRPC's own Python interop client and server from Debian's source package `grpc`, and makes them runnable.

    fetch.py     in the folder to fill; leaves tree/ (the unmodified sources, their compiled protos) and VERSION

apt fetches the package by a source list of its own, derived from the machine's; nothing of the system is changed, and
only the upstream archive's files below are unpacked. Ends with 69 (EX_UNAVAILABLE) and a reason on stderr when this
machine has no apt, or apt no sources.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNAVAILABLE = 69
HERE = Path(__file__).resolve().parent
APT = Path("/etc/apt")
ORIGINS = ("Debian", "Ubuntu")
WANTED = {
    "src/python/grpcio_tests/": ("tests/interop/", "tests_aio/interop/", "tests/unit/test_common.py"),
    "src/proto/grpc/testing/": ("empty.proto", "messages.proto", "test.proto"),
}
"""Prefix to take off (protos keep it, since they import each other by it): what to unpack below it."""


def unavailable(why: str) -> int:
    print(why, file=sys.stderr)
    return UNAVAILABLE


def distribution_uris() -> set[str]:
    """Where this machine gets its distribution's packages from; other repositories seldom have sources."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = (line.split() for line in told.splitlines())
    return {pair[1].rstrip("/") for pair in pairs if len(pair) == 2 and pair[0] in ORIGINS}


def stanzas(uris: set[str]) -> Iterator[tuple[str, str]]:
    """(kind of file, entry) of the machine's own sources (sources.list(5)), each turned into one of sources."""
    for path in (APT / "sources.list", *sorted((APT / "sources.list.d").glob("*.list"))):
        for line in path.read_text().splitlines() if path.exists() else ():
            if re.match(r"deb\s", line) and any(word.rstrip("/") in uris for word in line.split()):
                yield "list", re.sub(r"^deb\s", "deb-src ", line)
    for path in sorted((APT / "sources.list.d").glob("*.sources")):
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        for entry in re.split(r"\n\s*\n", text):
            known = any(word.rstrip("/") in uris for word in entry.split())
            if known and re.search(r"(?im)^Types:.*\bdeb\b", entry) and not re.search(r"(?im)^Enabled:\s*no", entry):
                yield "sources", re.sub(r"(?im)^Types:.*$", "Types: deb-src", entry.strip()) + "\n"


def download(folder: Path) -> None:
    """The source package's files, checked by apt. Raises CalledProcessError."""
    parts, lists = folder / "parts", folder / "lists"
    for made in (parts, lists / "partial", folder / "cache" / "archives" / "partial"):
        made.mkdir(parents=True)
    for kind, entry in stanzas(distribution_uris()):
        with (parts / f"distribution.{kind}").open("a") as file:
            file.write(f"{entry}\n")
    if not list(parts.iterdir()):
        raise LookupError("apt knows no package list of Debian or Ubuntu here; run apt-get update")
    apt = ["apt-get", "-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}"]
    apt += ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={folder / 'cache'}"]
    subprocess.run([*apt, "update"], cwd=folder, check=True)
    subprocess.run([*apt, "source", "--download-only", "grpc"], cwd=folder, check=True)


def unpack(archive: Path, tree: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
            for prefix, wanted in WANTED.items():
                if member.isfile() and inside.startswith(tuple(prefix + one for one in wanted)):
                    member.name = inside if prefix.startswith("src/proto") else inside.removeprefix(prefix)
                    tar.extract(member, tree, filter="data")


def compile_protos(tree: Path) -> None:
    protos = sorted(one.relative_to(tree).as_posix() for one in tree.glob("src/proto/grpc/testing/*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([*protoc, *protos], cwd=tree, check=True)


def main() -> int:
    if shutil.which("apt-get") is None:
        return unavailable("no apt-get on this machine")
    tree, packages, site = HERE / "tree", HERE / "packages", HERE / "site"
    for old in (tree, packages, site):
        shutil.rmtree(old, ignore_errors=True)
    packages.mkdir()
    try:
        download(packages)
    except LookupError as problem:
        return unavailable(str(problem))
    except subprocess.CalledProcessError as problem:
        return unavailable(f"apt has no source package grpc here: {problem}")
    archive = next(packages.glob("grpc_*.orig.tar.*"))
    unpack(archive, tree)
    compile_protos(tree)
    # Their client imports google-auth even for the cases that need none of it.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
    (HERE / "VERSION").write_text(archive.name.removeprefix("grpc_").split(".orig")[0])
    shutil.rmtree(packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())

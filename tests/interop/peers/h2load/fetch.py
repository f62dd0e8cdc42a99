"""Unpacks Debian's package `nghttp2-client` (h2load) and the libraries it lacks here into root/; installs nothing.

Run in the folder to fill. Ends with 69 (EX_UNAVAILABLE) and a reason on stderr when this machine has no apt.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

UNAVAILABLE = 69
HERE = Path(__file__).resolve().parent
PACKAGE = "nghttp2-client"


def main() -> int:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        print("no apt-get or dpkg-deb on this machine", file=sys.stderr)
        return UNAVAILABLE
    root, cache = HERE / "root", HERE / "cache"
    for old in (root, cache):
        shutil.rmtree(old, ignore_errors=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    # It may be installed; then it is fetched all the same, alone.
    apt = ["apt-get", "-q", "-y", "--download-only", "--no-install-recommends", "--reinstall"]
    apt += ["-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=1", "install", PACKAGE]
    if subprocess.run(apt).returncode != 0:
        print(f"apt has no package {PACKAGE} here; run apt-get update", file=sys.stderr)
        return UNAVAILABLE
    for package in sorted((cache / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    shutil.rmtree(cache)
    # Where the package's libraries are depends on the architecture.
    libraries = sorted({str(one.parent.relative_to(root)) for one in root.rglob("*.so.*")})
    (HERE / "libraries").write_text(":".join(libraries))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The machine a run was made on, and the generated half of docs/performance.md. Measures nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from driver import ROOT
from figures import Table

BEGIN = "<!-- figures: written by scripts/bench --write -->"
END = "<!-- end of figures -->"
PACKAGES = ("trio", "cryptography", "grpcio", "libp2p")


def machine() -> dict[str, str]:
    """What a reader needs to know about the machine of a run."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True, check=False
        ).stdout.strip(),
        "load": " ".join(f"{one:.1f}" for one in os.getloadavg()),
    }


def write_page(path: str, about: Mapping[str, str], results: Mapping[str, Sequence[Table]], command: str) -> None:
    """Replaces what stands between the two markers of the page; the prose around them is written by hand."""
    page = Path(path)
    text = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    lines = [BEGIN, "", f"`{command}`", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    for tables in results.values():
        lines += [table.markdown() for table in tables]
    page.write_text(head + "\n".join(lines) + "\n" + END + tail)

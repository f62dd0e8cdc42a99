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
    """Replaces the figures of the parts that ran; the other parts' figures and the prose stay."""
    page = Path(path)
    text = page.read_text() if page.exists() else "# Performance\n"
    for part, tables in results.items():
        begin, end = f"<!-- {part}: written by scripts/bench --write -->", f"<!-- end of {part} -->"
        facts = [f"`{command}`", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
        block = "\n".join([begin, "", *facts, *(table.markdown() for table in tables)]) + end
        if begin in text:
            head, _, rest = text.partition(begin)
            text = head + block + rest.partition(end)[2]
        else:
            text = text.rstrip("\n") + "\n\n" + block + "\n"
    page.write_text(text)

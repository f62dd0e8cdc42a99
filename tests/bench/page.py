"""The machine a run was made on, and the generated half of docs/records/performance.md. Measures nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from aims import judged
from driver import ROOT
from figures import Table

AIMS, END_OF_AIMS = "<!-- aims: written by scripts/bench --write -->", "<!-- end of aims -->"
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


def write_page(
    path: str, about: Mapping[str, str], results: Mapping[str, Sequence[Table]], command: str, *, whole: bool
) -> None:
    """Replaces the figures of the parts that ran; the other parts' figures and the prose stay.

    The aims are judged anew when all parts ran: figures of different runs are not to be compared.
    """
    page = Path(path)
    text = page.read_text() if page.exists() else "# Performance\n"
    for part, tables in results.items():
        begin, end = f"<!-- {part}: written by scripts/bench --write -->", f"<!-- end of {part} -->"
        facts = [f"`{command}`", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
        text = _put(text, begin, end, "\n".join([*facts, *(table.markdown() for table in tables)]))
    if whole:
        text = _put(text, AIMS, END_OF_AIMS, judged(results))
    page.write_text(text)


def _put(text: str, begin: str, end: str, body: str) -> str:
    block = f"{begin}\n\n{body}{end}"
    if begin not in text:
        return text.rstrip("\n") + "\n\n" + block + "\n"
    head, _, rest = text.partition(begin)
    return head + block + rest.partition(end)[2]

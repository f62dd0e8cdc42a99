"""Where the records of runs go, and the one compressed file that keeps a run's raw lines.

A record is a folder `<utc>-<name>/` with report.json and events.jsonl.gz, and `<utc>-<name>-summary.md` beside it.
Runs are recorded in a folder that git ignores, unless the caller asks for the repository's own records in logs/. This
module knows no event by name and runs nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LOGS = REPOSITORY / "logs"
"""The records that are committed; TEST_SCENARIOS.md is made from them."""

EVENTS = "events.jsonl"


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that say where a program called `name` records its runs; see `place`."""
    where = parser.add_mutually_exclusive_group()
    default = LOGS / f"tmp-{name}"
    told = default.relative_to(REPOSITORY)
    where.add_argument("--logs", type=Path, default=default, metavar="DIR", help=f"default {told}/, which git ignores")
    where.add_argument(
        "--record",
        dest="logs",
        action="store_const",
        const=LOGS,
        help="record into logs/ in place of the older record of the same run, and write TEST_SCENARIOS.md",
    )


def place(arguments: argparse.Namespace) -> Path:
    """The folder that gets the records, made if it is missing. Raises OSError."""
    logs: Path = arguments.logs
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def is_committed(logs: Path) -> bool:
    """Whether these are the repository's own records, from which TEST_SCENARIOS.md is made."""
    return logs.resolve() == LOGS


def of(logs: Path, name: str) -> list[Path]:
    """Every folder and summary of the recorded runs with this name."""
    return sorted(logs.glob(f"*Z-{name}")) + sorted(logs.glob(f"*Z-{name}-summary.md"))


def remove(paths: list[Path]) -> None:
    """Remove records that `of` found. Raises OSError."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def compress(path: Path) -> Path:
    """Put `<path>.gz` in the place of a file; equal lines give equal bytes, whenever it is done.

    So the header holds no name and no time of day. Raises OSError.
    """
    packed = path.with_name(f"{path.name}.gz")
    with (
        path.open("rb") as lines,
        packed.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file,
    ):
        shutil.copyfileobj(lines, file)
    path.unlink()
    return packed


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a recorded run in order of arrival. Raises OSError, ValueError."""
    with gzip.open(folder / f"{EVENTS}.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)

"""The two tools the lab calls, `ip` and `nft`, and sysctl writes. Knows no topology."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from lab import session
from lab.limits import COMMAND_SECONDS


class CommandFailed(RuntimeError):
    """A tool refused; the text holds its input and what it said."""


def _run(argv: list[str], given: str, namespace: str | None = None) -> str:
    # A user's PATH on Debian lacks the directories where these two live.
    found = shutil.which(argv[0], path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        package = {"ip": "iproute2", "nft": "nftables"}.get(argv[0], argv[0])
        raise session.LabUnavailable(f"{argv[0]} is missing; install it: apt-get install {package}")
    try:
        done = subprocess.run(
            [found, *argv[1:]],
            input=given,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            preexec_fn=session.child_setup(namespace),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{argv[0]} did not end within {COMMAND_SECONDS:g} s") from error
    if done.returncode != 0:
        head = "\n".join(given.splitlines()[:60])
        raise CommandFailed(f"{' '.join(argv)}: {done.stderr.strip()}\n{head}")
    return done.stdout


def ip_batch(lines: Iterable[str], namespace: str | None = None) -> None:
    """Run `ip` lines in one process, in `namespace` or in the lab's own. Raises CommandFailed."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        _run(["ip", "-batch", "-"], text, namespace)


def nft(namespace: str, text: str) -> None:
    """Load a ruleset in one transaction. Raises CommandFailed."""
    _run(["nft", "-f", "-"], text, namespace)


def nft_list(namespace: str, *what: str) -> str:
    """Text of `nft list ...` (default: the whole ruleset). Raises CommandFailed."""
    return _run(["nft", "list", *(what or ("ruleset",))], "", namespace)


def nft_json(namespace: str, *what: str) -> list[dict[str, Any]]:
    """The objects of `nft -j list ...`. Raises CommandFailed."""
    import json

    objects: list[dict[str, Any]] = json.loads(_run(["nft", "-j", "list", *what], "", namespace))["nftables"]
    return objects


def sysctl(namespace: str, values: Mapping[str, str | int], *, optional: bool = False) -> None:
    """Write per-namespace sysctls (`/proc/sys/net` follows the opener). Raises OSError unless optional."""
    with session.inside(namespace):
        for key, value in values.items():
            try:
                with open(f"/proc/sys/{key}", "w") as file:
                    file.write(str(value))
            except OSError:
                if not optional:
                    raise

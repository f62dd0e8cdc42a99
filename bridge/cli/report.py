"""What a program says about itself: events as JSON lines or as text, its data, its failure, its last line.

`Reporter` is the one place that decides what goes to stdout and what to stderr. With `--json` stdout holds events
only; without it stdout holds the command's data and stderr everything else. `run` is the supervisor around a
program: each failure becomes one `error` event and one line, and the `summary` is always the last event.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from punchbridge.access.secret import hide_tickets
from punchbridge.cli.console import Console, harmless
from punchbridge.cli.events import Summary
from punchbridge.cli.exits import ErrorTable, Exit, exit_code, leaves
from punchbridge.cli.jsonl import JsonLines
from punchbridge.cli.lines import LINES, Lines, Tone
from punchbridge.config import Programs
from punchbridge.errors import BridgeError, DirectRequired
from punchbridge.eventhub import EventHub
from punchbridge.events import ErrorEvent, Event


class Reporter:
    """Prints what a program has to say. `hub` takes its events; `emit` may be called from any thread.

    lines: the console lines of the program's own events, beside those of the library's. Attributes: `path` and
    `detail` go into the summary; `on_broken` is called when stdout cannot be written any more.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        lines: Lines | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.hub = EventHub()
        self.path: str | None = None
        self.detail: dict[str, Any] = {}
        self.on_broken: Callable[[], None] = lambda: None
        self._stdout = stdout or sys.stdout
        stderr = stderr or sys.stderr
        environment = os.environ if environment is None else environment
        terminal = stderr.isatty() and environment.get("TERM") != "dumb"
        live = terminal and not json and not quiet
        color = terminal and not environment.get("NO_COLOR")
        self._console = Console(stderr, live=live, color=color, lines={**LINES, **(lines or {})})
        self._lines: JsonLines | None = None
        if json:
            self._lines = JsonLines(self._stdout, on_broken=self._broken)
            self.hub.subscribe(self._lines)
        elif not quiet:
            self.hub.subscribe(self._console)
        self._began = time.monotonic()

    def follow(self, programs: Programs) -> None:
        """Takes the bounds of a configuration, which is read only after the report began."""
        if self._lines is not None:
            self._lines.follow(programs)

    def emit(self, event: Event) -> None:
        self.hub.emit(event)

    def data(self, text: str) -> None:
        """The command's result, a line on stdout; with --json nothing (the events hold it)."""
        if self.json:
            return
        encoding = self._stdout.encoding or "utf-8"
        try:
            print(harmless(text).encode(encoding, "backslashreplace").decode(encoding), file=self._stdout, flush=True)
        except OSError as problem:
            self._broken(problem)

    def note(self, text: str, tone: Tone = "plain") -> None:
        """A line for the person at the terminal, on stderr; silent with --json and --quiet."""
        if not self.json and not self.quiet:
            self._console.line(text, tone)

    def progress(self, text: str | None) -> None:
        """What the program waits for, or None."""
        if not self.json and not self.quiet:
            self._console.progress(text)

    def fail(self, problem: BaseException, more: ErrorTable | None = None) -> Exit:
        """Tells a failure as one `error` event and one line on stderr. Returns the exit code."""
        code, text = describe(problem)
        self.progress(None)
        verdict = problem.verdict.code.value if isinstance(problem, DirectRequired) else None
        self.emit(ErrorEvent(code=code, message=text, verdict=verdict))
        if self.json or self.quiet:
            self._console.line(f"error {code}: {text}", "bad")
        return exit_code(problem, more)

    def end(self, status: Exit) -> Exit:
        """Emits the summary and writes out what is queued. Nothing may be emitted after it."""
        seconds = time.monotonic() - self._began
        self.progress(None)
        self.emit(Summary(exit_code=int(status), path=self.path, seconds=seconds, detail=self.detail))
        if self._lines is not None:
            self._lines.close()
        self._console.close()
        return status

    def _broken(self, problem: OSError) -> None:
        # Python flushes stdout once more at its exit; that must not fail a second time.
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())
        except (OSError, ValueError):
            pass
        if not isinstance(problem, BrokenPipeError):
            self._console.line(f"error STDOUT: cannot write to stdout: {problem.strerror}", "bad")
        self.on_broken()


def describe(problem: BaseException) -> tuple[str, str]:
    """The code and the text of a failure, without the tickets that it quotes."""
    code, text = _described(problem)
    return code, hide_tickets(text)


def _described(problem: BaseException) -> tuple[str, str]:
    """What our errors say is passed on, others are named by their class."""
    if isinstance(problem, BridgeError):
        return problem.code, "; ".join((str(problem) or problem.code, *getattr(problem, "__notes__", ())))
    if isinstance(problem, KeyboardInterrupt):
        return "INTERRUPTED", "interrupted"
    code = getattr(problem, "code", None)
    if isinstance(code, str):
        return code, str(problem) or code
    if isinstance(problem, OSError) and problem.strerror:
        name = f"{problem.filename}: " if problem.filename else ""
        return "OS", f"{name}{problem.strerror}"
    return "INTERNAL", f"{type(problem).__name__}: {problem} (a defect; run again with --verbose and report it)"


def run(program: Callable[[], int], report: Reporter, *, more: ErrorTable | None = None, verbose: bool = False) -> int:
    """Runs a program to its exit code. The supervisor: whatever it raises is told once, then the summary follows."""
    status = Exit.ERROR
    try:
        status = Exit(program())
    except KeyboardInterrupt:
        status = Exit.INTERRUPTED
    except SystemExit as asked:
        status = Exit(asked.code) if isinstance(asked.code, int) else Exit.ERROR
    except (Exception, BaseExceptionGroup) as problem:
        inner = list(leaves(problem))
        if any(isinstance(one, KeyboardInterrupt) for one in inner):
            status = Exit.INTERRUPTED
        else:
            chosen = next((one for one in inner if isinstance(one, BridgeError)), inner[0])
            if verbose:
                logging.getLogger("punchbridge").error("the program failed", exc_info=problem)
            status = report.fail(chosen, more)
    return int(report.end(status))


def set_up_logging(*, verbose: int, stream: TextIO | None = None) -> None:
    """Library log lines to stderr: warnings and worse; -v adds information, -vv everything. Never to stdout."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        stream=stream or sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    if verbose < 2:
        # Stock libraries log each failed dial as an error; the failure is told by our own events.
        for name in ("libp2p", "grpc", "asyncio", "multiaddr"):
            logging.getLogger(name).setLevel(logging.CRITICAL if verbose == 0 else logging.WARNING)

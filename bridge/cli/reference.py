"""The reference tables of docs/operations.md, made from the code: flags, exit codes, events.

`python -m punchbridge.cli.reference docs/operations.md` rewrites the text between its markers; a test fails when the
page is behind the code. It reads definitions and runs no command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Argument

from punchbridge.cli import COMMANDS, build
from punchbridge.cli.exits import MEANING
from punchbridge.events import Event

EVENTS: Final = ("punchbridge.events", "punchbridge_relay.events", "punchbridge_node.events", "punchbridge.cli.events")
"""Where events are declared. The node is above this room: it is named as text, as its commands are."""


def commands(app: App | None = None) -> Iterator[tuple[str, App]]:
    """Every command with its full name, subcommands too."""
    app = app or build()
    for name, _, _ in COMMANDS:
        command = app[name]
        inner = [one for one in command if not one.startswith("-")]
        for one in inner:
            yield f"{name} {one}", command[one]
        if not inner:
            yield name, command


def _default(value: Any) -> str:
    if value is None or value == () or value is False:
        return "—"
    if isinstance(value, tuple):
        return " ".join(f"`{item}`" for item in value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, (str, int)) else "—"


def _told(one: Argument) -> Any:
    """The default of a flag; where the configuration has it, the text that the help shows."""
    told = one.parameter.show_default
    return told if isinstance(told, str) else one.field_info.default


def flag_tables() -> str:
    """One table for each command: flag, environment variable, default, meaning."""
    parts = []
    for name, command in commands():
        rows = [f"### punchbridge {name}", "", "| flag | environment | default | meaning |", "|---|---|---|---|"]
        for one in command.assemble_argument_collection():
            if not one.show:
                continue
            names = ", ".join(f"`{text}`" for text in one.names)
            variables = ", ".join(f"`{text}`" for text in one.parameter.env_var or ())
            rows.append(f"| {names} | {variables or '—'} | {_default(_told(one))} | {one.parameter.help} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def exit_table() -> str:
    """The exit codes."""
    rows = ["| code | meaning |", "|---|---|", *(f"| {int(code)} | {text} |" for code, text in MEANING.items())]
    return "\n".join(rows)


def event_classes() -> Iterator[type[Event]]:
    """The event classes of the library and of all programs, in the order in which they are declared."""
    for module in map(import_module, EVENTS):
        for kind in vars(module).values():
            declared = isinstance(kind, type) and issubclass(kind, Event) and kind.__module__ == module.__name__
            if declared and kind is not Event:
                yield kind


def catalogue() -> dict[str, type[Event]]:
    """The event classes by name: the schema that docs and tests are made from."""
    return {kind.name: kind for kind in event_classes()}


def event_table() -> str:
    """The public events with their fields."""
    rows = ["| event | fields | meaning |", "|---|---|---|"]
    for kind in event_classes():
        if not kind.public:
            continue
        names = ", ".join(f"`{key}`" for key in kind.json_keys())
        text = " ".join((kind.__doc__ or "").split())
        rows.append(f"| `{kind.name}` | {names} | {text} |")
    return "\n".join(rows)


def filled(page: str) -> str:
    """The page with the text between each pair of markers made anew."""
    for name, table in (("flags", flag_tables()), ("exits", exit_table()), ("events", event_table())):
        begin, end = f"<!-- {name}: made by bridge/cli/reference.py -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the page lacks the markers of {name}")
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text()))

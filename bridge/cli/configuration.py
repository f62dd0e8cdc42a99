"""The reference tables of docs/configuration.md, made from the values: key, unit, default, flag, variable, reason.

`python -m punchbridge.cli.configuration docs/configuration.md` rewrites the text between its markers; a test fails when
the page is behind the code. The reasons are the docstrings of the fields.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from punchbridge.cli.relay import RelaySettings
from punchbridge.cli.settings import FLAGS
from punchbridge.config import Config
from punchbridge.config.load import Setting, settings
from punchbridge.config.values import Checked

_UNITS = {
    "Addresses": "addresses",
    "Bound": "count, 0: unlimited",
    "Bytes": "bytes",
    "Count": "count",
    "File": "path",
    "Key": "path",
    "Seconds": "seconds",
    "Share": "0 to 1",
    "Whole": "whole number",
    "Texts": "texts",
    "bool": "true, false",
    "str": "text",
}


_NODE = "punchbridge_node.commands.flags"
"""The node is above this room: it is named as text, as its commands are."""


def _reasons(kind: type) -> dict[str, str]:
    """The docstring of each field of a dataclass. Raises ValueError for a field that has none."""
    found = {} if kind.__base__ in (None, Checked, object) else _reasons(kind.__base__)
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for one, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if not isinstance(text, ast.Constant):
                raise ValueError(f"{kind.__name__}.{one.target.id} has no docstring")
            found[one.target.id] = " ".join(str(text.value).split())
    return found


def _tables(value: Checked, under: str = "") -> Iterator[tuple[str, str, list[tuple[Setting, str]]]]:
    """(name of the table, what it is, its settings with their reasons), outer tables first."""
    reasons = _reasons(type(value))
    direct = {setting.key: setting for setting in settings(value, under)}
    inner = [item.name for item in fields(value) if isinstance(getattr(value, item.name), Checked)]
    rows = [(direct[under + name], text) for name, text in reasons.items() if name not in inner]
    if rows:
        yield under.rstrip("."), " ".join((type(value).__doc__ or "").split()), rows
    for name in inner:
        yield from _tables(getattr(value, name), f"{under}{name}.")


def _default(value: Any) -> str:
    if value is None or value == ():
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return " ".join(f"`{one}`" for one in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _flag(key: str, flags: Mapping[str, str]) -> str:
    room, _, name = key.rpartition(".")
    return f"`{flags[key]}`" if key in flags else f"`--{name.replace('_', '-')}`" if room == "relay" else "`--set`"


def setting_tables(
    value: Checked, under: str = "", *, without: tuple[str, ...] = (), flags: Mapping[str, str] = FLAGS
) -> str:
    """One table of settings for each table of the file, except those that are told elsewhere."""
    parts = []
    for name, text, rows in _tables(value, under):
        if name.startswith(without):
            continue
        parts += [f"### {f'[{name}]' if name else 'Top of the file'}", "", text, ""]
        parts += ["| key | unit | default | flag | variable | meaning |", "|---|---|---|---|---|---|"]
        for one, reason in rows:
            key = one.key.rpartition(".")[2]
            cells = (
                f"`{key}`",
                _UNITS[one.kind],
                _default(one.default),
                _flag(one.key, flags),
                f"`{one.variable}`",
                reason,
            )
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def filled(page: str) -> str:
    """The page with the text between each pair of markers made anew."""
    node = import_module(_NODE)
    made = {
        "bridge": setting_tables(Config()),
        "node": setting_tables(node.NodeSettings(), "node.", flags=node.FLAGS),
        "relay": setting_tables(RelaySettings(), without=("limits", "programs")),
    }
    for name, table in made.items():
        begin, end = f"<!-- {name}: made by bridge/cli/configuration.py -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"the page lacks the markers of {name}")
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text()))

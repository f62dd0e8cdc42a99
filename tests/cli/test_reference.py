"""The operations page is complete: its tables are made from the code, and are not behind it."""

from __future__ import annotations

from punchbridge.cli.exits import MEANING
from punchbridge.cli.reference import catalogue, commands, filled
from tests.cli.programs import ROOT

PAGE = ROOT / "docs" / "operations.md"
UPDATE = "run: .venv/bin/python -m punchbridge.cli.reference docs/operations.md"


def test_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, UPDATE


def test_every_flag_variable_and_default_is_there() -> None:
    page = PAGE.read_text()
    for name, command in commands():
        section = page.split(f"### punchbridge {name}\n", 1)[1].split("\n### ", 1)[0]
        for one in command.assemble_argument_collection():
            for text in (*one.names, *(one.parameter.env_var or ())) if one.show else ():
                assert f"`{text}`" in section, (name, text)


def test_every_flag_has_its_variable() -> None:
    for name, command in commands():
        for one in command.assemble_argument_collection():
            if one.show and one.names[0].startswith("--") and one.names[0] != "--set":  # each of its keys has one
                (variable,) = one.parameter.env_var or ("",)
                assert variable.startswith("PUNCHBRIDGE_"), (name, one.names)
                assert one.parameter.help, (name, one.names)


def test_every_event_and_exit_code_is_there() -> None:
    page = PAGE.read_text()
    for kind in catalogue().values():
        if kind.public:
            assert f"| `{kind.name}` |" in page
    for code in MEANING:
        assert f"| {int(code)} |" in page


def test_relay_limits_are_flags() -> None:
    from dataclasses import fields

    from punchbridge.cli.relay import LimitFlags
    from punchbridge_relay.limits import RelayLimits

    assert {one.name for one in fields(LimitFlags)} == {one.name for one in fields(RelayLimits)} - {"hop"}

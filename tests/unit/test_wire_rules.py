"""Every wire rule that the code or a test cites stands in docs/wire-rules.md, once.

Cited is what stands in comments, in docstrings (of values too) and at the head of test names, whatever folder the file
is in. A number counts as a rule only when its letters are a family of the page.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGE = ROOT / "docs" / "wire-rules.md"
FAMILIES = ("A", "D", "EM", "F", "I", "MS", "N", "PF", "PI", "PK", "R", "SE", "TL", "Y")
LETTERS = "|".join(FAMILIES)
ROW = re.compile(r"^\| ([A-Z]+)([1-9][0-9]*) \| (.*) \| (.*) \|$", re.MULTILINE)
CITED = re.compile(rf"(?<![\w.-])({LETTERS})([1-9][0-9]?)(?: (?:to|–) \1([1-9][0-9]?))?(?!\w)")
"""One rule, or a range of one family ("Y1 to Y3")."""
TEST_NAME = re.compile(rf"^test((?:_(?:{LETTERS})[1-9][0-9]?)+)_", re.IGNORECASE)


def sources() -> list[Path]:
    """The project's Python files, those that are not committed yet too; generated ones hold no text of ours."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.py", "scripts/*"]
    names = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.split("\0")
    paths = [ROOT / name for name in sorted(set(names)) if name and "_pb" not in Path(name).parts]
    return [path for path in paths if path.is_file() and path != Path(__file__).resolve() and is_python(path)]


def is_python(path: Path) -> bool:
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and b"python" in first


def prose(text: str, tree: ast.Module) -> Iterator[str]:
    """Comments, and strings that stand alone: docstrings of modules, classes, functions and values."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def cited(text: str) -> set[str]:
    """The rules that a Python text cites."""
    tree = ast.parse(text)
    found: set[str] = set()
    for piece in prose(text, tree):
        for family, first, last in CITED.findall(piece):
            found |= {f"{family}{number}" for number in range(int(first), int(last or first) + 1)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (name := TEST_NAME.match(node.name)):
            found |= set(name[1].upper().strip("_").split("_"))
    return found


def rows() -> list[tuple[str, str, str, str]]:
    """Family, number, text and source of each row of the page."""
    return ROW.findall(PAGE.read_text())


def test_every_cited_rule_has_a_row() -> None:
    known = {family + number for family, number, _, _ in rows()}
    citing = {path: cited(path.read_text()) for path in sources()}
    assert any(citing.values()), "no file cites a rule: does this test still look at the right files?"
    missing = {str(path.relative_to(ROOT)): sorted(rules - known) for path, rules in citing.items() if rules - known}
    assert not missing


def test_no_number_stands_for_two_rules() -> None:
    counts = Counter(family + number for family, number, _, _ in rows())
    assert not [rule for rule, count in counts.items() if count > 1]


def test_every_row_is_of_a_known_family_and_says_its_text_and_source() -> None:
    """A row that ROW cannot read would be a rule that nobody finds; a family outside FAMILIES, one nobody looks for."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    heads = [line for line in lines if line in ("| rule | text | source |", "|---|---|---|")]
    assert len(rows()) == len(lines) - len(heads)
    assert {family for family, _, _, _ in rows()} == set(FAMILIES)
    assert all(text.strip().endswith(".") and source.strip() for _, _, text, source in rows())


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("# refused by R8, D16", {"R8", "D16"}),
        ('"""As MS1 to MS3 say (Y10)."""', {"MS1", "MS2", "MS3", "Y10"}),
        ('LIMIT = 256\n"""Own streams (Yamux Y7; rust resets beyond)."""', {"Y7"}),
        ("async def test_r14_r3_the_end_of_time(): pass", {"R14", "R3"}),
        ("def r14_of_something(): pass", set()),
        ("x = 1  # noqa: E501, TRY300, S108, A001, D100, N802", set()),
        ("# S-001, T-001, RFC5382, RFC 5382, X962, P50, IPv4, R-8, CVE-2026-34219, A4a", set()),
        ('x = "R8 in a value is no citation"', set()),
    ],
)
def test_what_counts_as_a_citation(text: str, rules: set[str]) -> None:
    assert cited(text) == rules

"""Every parser that is fuzzed, and the inputs that a run begins with: its seeds and the corpus that is kept here.

The corpus of a parser is a file of base64 lines: inputs that took other branches than those before, found by guided
runs (`scripts/fuzz --keep`), and every input that ever showed a defect.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.fuzz import messages, texts, transport
from tests.fuzz.parser import Parser

CORPUS = Path(__file__).parent / "corpus"


@cache
def parsers() -> dict[str, Parser]:
    """By name, in the order of the table."""
    return {one.name: one for one in (*transport.parsers(), *messages.parsers(), *texts.parsers())}


def parser(name: str) -> Parser:
    return parsers()[name]


def corpus(name: str) -> list[bytes]:
    """What is kept of earlier runs."""
    path = CORPUS / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Writes the corpus of a parser, the shortest input first."""
    lines = sorted({base64.b64encode(one).decode() for one in inputs}, key=lambda line: (len(line), line))
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def inputs(name: str) -> list[bytes]:
    """Seeds and corpus, each once."""
    return list(dict.fromkeys((*parser(name).seeds, *corpus(name))))

"""The peers of other implementations that scripts/interop has built, and why one is not here. Builds nothing."""

from __future__ import annotations

import sys

from driver import ROOT

sys.path[:0] = [str(ROOT / "tests" / "interop")]

from foreign.build import RECIPES, unavailable  # noqa: E402

KINDS = ("go", "rust", "js")


def foreign(notes: list[str]) -> dict[str, list[str]]:
    """Name and command of each that can be started now; the others are named in `notes` with the reason."""
    found = {}
    for kind in KINDS:
        name = f"{kind}-libp2p"
        recipe = RECIPES.get(kind)
        if recipe is None:
            notes.append(f"{name}: not measured, the interop suite has no such peer")
        elif (recipe.home / recipe.product).exists():
            found[name] = recipe.argv(recipe.home / recipe.product)
        else:
            notes.append(f"{name}: not measured, {unavailable(kind)}")
    return found

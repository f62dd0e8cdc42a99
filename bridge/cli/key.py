"""`punchbridge key new|show`: identity key files and the peer ids made from them. Opens no socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App

from punchbridge.cli import PREFIX
from punchbridge.cli.options import Output, default_key, flag

if TYPE_CHECKING:
    from punchbridge.identity import Identity

app = App(name="key", help="Make or show identity keys.", help_format="plaintext")

OUTPUT_FLAGS: Final = Output()

KeyFile = Annotated[
    Path | None,
    flag("key", "Key file; default $XDG_STATE_HOME/punchbridge/key.", env=f"{PREFIX}KEY_FILE"),
]


@app.command(name="new")
def new(*, key: KeyFile = None, out: Output = OUTPUT_FLAGS) -> int:
    """Make a key file (mode 0600) and print its peer id in both text forms. Never overwrites one."""

    def make(path: Path) -> Identity:
        from punchbridge.errors import IdentityError
        from punchbridge.identity import load_or_create

        if os.path.lexists(path):
            raise IdentityError(f"{path} exists already; name another file, or move it away")
        return load_or_create(path)

    return _with_identity(make, key, out)


@app.command(name="show")
def show(*, key: KeyFile = None, out: Output = OUTPUT_FLAGS) -> int:
    """Print the peer id of a key file in both text forms."""

    def read(path: Path) -> Identity:
        from punchbridge.errors import IdentityError
        from punchbridge.identity import load

        try:
            return load(path)
        except FileNotFoundError:
            raise IdentityError(f"there is no key file {path}; make one: punchbridge key new --key {path}") from None

    return _with_identity(read, key, out)


def _with_identity(get: Callable[[Path], Identity], key: Path | None, out: Output) -> int:
    from punchbridge.cli.report import Reporter, run

    report = Reporter(json=out.json, quiet=out.quiet)
    path = key or default_key()

    def program() -> int:
        from punchbridge.identity import peer_id_forms

        base58, cid = peer_id_forms(get(path).peer_id)
        report.detail.update(peer_id=base58, cid=cid, key=str(path))
        report.note(f"key file {path}")
        report.data(base58)
        report.data(cid)
        return 0

    return run(program, report, verbose=bool(out.verbose))

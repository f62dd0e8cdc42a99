"""The access file on disk: read, and edited by several programs at once without losing an edit.

An edit locks the file, reads it, and puts another one in its place, so that readers see all of an edit or nothing of
it. All calls block, for milliseconds: whoever serves a network makes them in a worker thread. What the records mean is
decided in `records` and `policy`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from punchbridge.access.invitations import Invitation, Outcome
from punchbridge.access.records import Records, decode_records, encode_records
from punchbridge.access.secret import Secret
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AccessFileError
from punchbridge.files import file_fault, folder_fault, make_folder, read_private, replace_file
from punchbridge.identity import PeerId

__all__ = ["AccessFile", "access_path"]

T = TypeVar("T")

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW

_ASK_AGAIN: Final = 0.02
"""Seconds between two tries to lock; flock itself waits for ever, and a stopped program would be waited for so."""


def access_path(key: Path) -> Path:
    """The access file of the program with this key file: beside it, since both make up who the server is."""
    return key.with_name(f"{key.name}.access")


class AccessFile:
    """One access file, which need not exist yet. May be used from any thread.

    Every method raises AccessFileError, which names the file and what to do; what stood in it then stands still.
    """

    def __init__(self, path: Path, limits: AccessLimits) -> None:
        # A symbolic link is followed once, here: replacing would otherwise put a file in the place of the link.
        self.path = Path(os.path.realpath(path))
        self.limits = limits

    def read(self, *, absent: bool = True) -> Records:
        """What the file holds now. absent: that there is none means nobody; else it is an error."""
        try:
            fault = folder_fault(self.path.parent)
            data, found = read_private(self.path, self.limits.file, secret=True)
        except OSError as problem:
            if absent and isinstance(problem, FileNotFoundError):
                return Records()
            raise self._failed("read", problem) from None
        if fault is not None or found is not None:
            raise self._refused(fault or found or "")
        return decode_records(data, str(self.path), self.limits)

    def edit(self, change: Callable[[Records], tuple[T, Records]]) -> T:
        """Replaces the records by what `change` makes of them, and returns the first part of its answer.

        `change` sees what all edits before have made, and is called once. What it raises is passed on. The file and its
        folder are made when they are missing. Nothing is written when the records stay the same.
        """
        try:
            make_folder(self.path.parent)
            fault = folder_fault(self.path.parent)
            if fault is not None:
                raise self._refused(fault)
            with self._locked():
                before = self.read()
                answer, after = change(before)
                if after != before:
                    data = encode_records(after)
                    if len(data) > self.limits.file:
                        raise self._refused(f"it would have more than {self.limits.file} bytes; take some entries off")
                    replace_file(self.path, data)
                return answer
        except OSError as problem:
            raise self._failed("write", problem) from None

    def invite(
        self,
        secret: Secret,
        *,
        now: float,
        expires: float | None,
        uses: int = 1,
        label: str = "",
        newest: int | None = None,
    ) -> Invitation:
        """Keeps one more invitation, as `Records.inviting`, on disk when this returns. Raises ConfigError too."""

        def change(records: Records) -> tuple[Invitation, Records]:
            after = records.inviting(
                secret, now=now, expires=expires, uses=uses, label=label, limits=self.limits, newest=newest
            )
            return after.invitations[-1], after

        return self.edit(change)

    def redeem(self, secret: Secret, peer: PeerId, now: float) -> Outcome:
        """What a peer that shows a secret is answered; GRANTED is on disk when this returns. `now`: UTC seconds.

        Nothing is locked or written for a secret that lets nobody in, so that strangers cost one read.
        """
        before = self.read()
        outcome, after = before.redeeming(secret, peer, now)
        return outcome if after == before else self.edit(lambda records: records.redeeming(secret, peer, now))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the file that has the name now; an empty one is made for it when there is none."""
        until = time.monotonic() + self.limits.lock
        while True:
            descriptor = os.open(self.path, _OPEN, 0o600)
            try:
                fault = file_fault(os.fstat(descriptor), self.path, secret=True)
                if fault is not None:
                    raise self._refused(fault)
                self._lock(descriptor, until)
                if self._named(descriptor):
                    yield
                    return
                # Another program has put its file there while this one waited for the lock of the one before.
            finally:
                os.close(descriptor)

    def _lock(self, descriptor: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise self._refused(
                        "another program has held it locked all the time; try again, or end that program"
                    ) from None
                time.sleep(_ASK_AGAIN)

    def _named(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _refused(self, fault: str) -> AccessFileError:
        return AccessFileError(f"the access file {self.path} cannot be used: {fault}")

    def _failed(self, what: str, problem: OSError) -> AccessFileError:
        advice = "check its owner and mode, or name another"
        return AccessFileError(f"cannot {what} the access file {self.path}: {problem.strerror}; {advice}")

"""Where the lists of a running program come from: flags, list files, the access file; read at the start and followed.

What cannot be read at the start is an error. What cannot be read later leaves in force what it said last: a mistyped
line neither shuts everybody out nor lets anybody in. All calls block; the caller decides when to look again. Nothing
here knows who is connected.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

from punchbridge.access.lists import Rules, parse_list
from punchbridge.access.policy import NOBODY, OPEN, Access
from punchbridge.access.records import Records
from punchbridge.access.store import AccessFile
from punchbridge.config.access import AccessLimits
from punchbridge.errors import ConfigError
from punchbridge.files import read_private

__all__ = ["Sources", "read_list"]

T = TypeVar("T")

_SETTLED: Final = 2.0
"""Seconds. A file that was changed later than this before it was read may change again without another time stamp or
inode: time stamps are as coarse as a few milliseconds, some file systems' as coarse as 2 s, and inodes are reused."""

_YOUNG: Final = 0.5
"""Seconds. A file that is written in place is empty, or half of it, for less than that as a rule."""


def read_list(path: Path, limits: AccessLimits) -> Rules:
    """Reads a list file, which others may read and not write. Raises ConfigError with what to do."""
    try:
        data, fault = read_private(path, limits.file, secret=False)
    except OSError as problem:
        raise ConfigError(f"cannot read the list {path}: {problem.strerror}; name a file of peer ids") from None
    if fault is not None:
        raise ConfigError(f"the list {path} cannot be used: {fault}")
    return parse_list(data, str(path), limits)


class Sources:
    """The lists of one program: `access` is what they said together when they were last read."""

    def __init__(
        self,
        limits: AccessLimits,
        *,
        given: Access = NOBODY,
        allow_files: Sequence[Path] = (),
        deny_files: Sequence[Path] = (),
        file: AccessFile | None = None,
        until_listed: bool = False,
    ) -> None:
        """Reads everything. given: what flags or the application say. until_listed: everybody is admitted until a list
        allows somebody; from then on only the listed are, also when the list becomes empty again.

        Raises ConfigError for a list that is missing or malformed, and for an unusable access file; an access file that
        does not exist yet says nothing.
        """
        self._given = given
        self._open = until_listed and not allow_files
        self._allow = [_Followed(path, partial(read_list, path, limits)) for path in allow_files]
        self._deny = [_Followed(path, partial(read_list, path, limits)) for path in deny_files]
        self._file: _Followed[Records] | None = None if file is None else _Followed(file.path, _read(file))
        self._said = self._values()
        self.access = self._together()

    @property
    def open(self) -> bool:
        """Whether flags or the application admit everybody, whatever the lists say of others."""
        return self._given.anyone

    def poll(self, *, again: bool = False) -> tuple[ConfigError, ...]:
        """Reads what has changed since it was last read; `access` is the same object when nothing did that matters.

        Returns the problems that are not those of the last time. again: read everything, and return all problems.
        """
        found = [problem for one in self._followed() if (problem := one.look(again=again)) is not None]
        said = self._values()
        if said != self._said:
            self._said, self.access = said, self._together()
        return tuple(found)

    @property
    def records(self) -> Records | None:
        """What the access file said when it could last be read; None when none is followed."""
        return None if self._file is None else self._file.value

    def being_written(self) -> bool:
        """Whether a file has changed just now that somebody may be writing in place, and be half way. Blocks.

        The commands put another access file in the place of one; an editor may empty it before it writes.
        """
        return any(one.young for one in (*self._allow, *self._deny)) or (
            self._file is not None and self._file.young and self._file.empty
        )

    @property
    def unreadable(self) -> int:
        """Files that could not be read the last time; what they said before is in force."""
        return sum(one.unreadable for one in self._followed())

    def _followed(self) -> tuple[_Followed[Rules] | _Followed[Records], ...]:
        return (*self._allow, *self._deny, *(() if self._file is None else (self._file,)))

    def _values(self) -> tuple[Rules | Records, ...]:
        return tuple(one.value for one in self._followed())

    def _together(self) -> Access:
        access = self._given
        for one in self._allow:
            access |= Access(allow=one.value)
        for one in self._deny:
            access |= Access(deny=one.value)
        if self._file is not None:
            access = access.with_records(self._file.value)
        self._open = self._open and not access.allow
        return access | OPEN if self._open else access


def _read(file: AccessFile) -> Callable[[], Records]:
    """Reads an access file again and again. Once it has existed, that it is gone is an error."""
    existed = False

    def read() -> Records:
        nonlocal existed
        records = file.read(absent=not existed)
        existed = existed or os.path.exists(file.path)
        return records

    return read


class _Followed(Generic[T]):
    """One file: `value` is what it said when it could last be read."""

    def __init__(self, path: Path, read: Callable[[], T]) -> None:
        self._path = path
        self._read = read
        self._problem = ""
        self._seen = self._look()
        self.value = read()

    @property
    def young(self) -> bool:
        """Whether the file is there and was changed within the last half second, by the clock that we have."""
        try:
            return abs(time.time() - os.stat(self._path).st_mtime) < _YOUNG
        except OSError:
            return False

    @property
    def empty(self) -> bool:
        """Whether nothing is in the file."""
        try:
            return os.stat(self._path).st_size == 0
        except OSError:
            return False

    @property
    def unreadable(self) -> bool:
        """Whether the last look at it found a problem."""
        return bool(self._problem)

    def look(self, *, again: bool) -> ConfigError | None:
        """Reads the file if it may have changed, or `again`. Returns its problem unless that was told the last time."""
        seen = self._look()
        if seen is not None and seen == self._seen and not again:
            return None
        self._seen = seen
        try:
            value = self._read()
        except ConfigError as problem:
            told, self._problem = self._problem, str(problem)
            return problem if again or told != self._problem else None
        self._problem = ""
        if value != self.value:  # else the object stays, which is compared faster than ten thousand entries
            self.value = value
        return None

    def _look(self) -> tuple[int, ...] | None:
        """What tells one state of the file from another; None when nothing that can be asked cheaply does."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        if abs(time.time() - status.st_mtime) < _SETTLED:  # not for ever when the clock was set back
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

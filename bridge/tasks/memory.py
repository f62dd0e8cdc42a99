"""The memory that connections share: how far windows may grow together, and what is held unread and unsent. Pure.

Each connection has an account, and each address has a share. Accounts are added up where a connection has taken a read
of its socket, never for one frame. Nothing here knows what a connection is; who holds too much is told to give it up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from punchbridge.config import MemoryLimits
from punchbridge.identity import PeerId

__all__ = ["STREAM", "Account", "Memory"]

STREAM: Final = 8192
"""Bytes that an open stream counts for: its state, its negotiation, and the task that serves it."""

_AGAIN: Final = 0.1


class _Share:
    """What the connections with one address have, in bytes."""

    __slots__ = ("accounts", "again", "granted", "held", "origin")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.accounts: set[Account] = set()
        self.granted = self.held = 0
        self.again = 0.0
        """Not before then is it looked for what has not moved: that takes a look at every stream."""


class Account:
    """What one connection has, in bytes. `unread`: counted by its streams; `held`: with what else it holds, as of the
    last `settle`; `granted`: what its windows have grown by; `peer`: who is behind it, for reports."""

    __slots__ = ("_cut", "_memory", "_others", "_share", "granted", "held", "peer", "unread")

    def __init__(self, memory: Memory, share: _Share) -> None:
        self._memory, self._share = memory, share
        self.unread = self.held = self.granted = 0
        self.peer: PeerId | None = None
        self._others: Callable[[], int] = int
        self._cut: Callable[[float], None] = lambda _: None

    @property
    def origin(self) -> str:
        """The address that it counts for."""
        return self._share.origin

    def watch(self, others: Callable[[], int], cut: Callable[[float], None]) -> None:
        """`others`: what the connection holds besides unread bytes; `cut`: it is to give up the largest thing it holds
        that has not moved since a moment, if there is any."""
        self._others, self._cut = others, cut

    def grow(self, wanted: int) -> int:
        """As much of `wanted` as windows may still grow by; to be given back by `shrink`."""
        return self._memory.grow(self, self._share, wanted)

    def shrink(self, growth: int) -> None:
        """Gives growth back. More than was taken is ignored: a closed account has given back everything."""
        self._memory.shrink(self, self._share, growth)

    def settle(self, now: float) -> None:
        """Adds up what the connection holds now. When that is too much, the largest holders are cut before this
        returns, this connection perhaps among them."""
        held = self.unread + self._others()
        if held != self.held:
            self._memory.settle(self, self._share, held, now)

    def cut(self, since: float) -> bool:
        """Makes the connection give up the largest thing that has not moved since then; False when there was none."""
        before = self.held
        self._cut(since)
        self.refresh()
        return self.held < before

    def refresh(self) -> None:
        """As `settle`, and nobody is cut."""
        self._memory.count(self, self._share, self.unread + self._others())

    def close(self) -> None:
        """The connection is gone. Repeated calls do nothing."""
        self._memory.close(self, self._share)


class Memory:
    """All accounts. `cut` is called with each account whose connection has to give something up."""

    def __init__(self, limits: MemoryLimits | None = None, cut: Callable[[Account], None] = lambda _: None) -> None:
        limits = MemoryLimits() if limits is None else limits
        self._windows, self._windows_each = limits.windows, limits.windows_per_address
        self._most, self._most_each = limits.held, limits.held_per_address
        self._stalled, self._stalled_each = limits.stalled, limits.stalled_per_address
        self._told = cut
        self._shares: dict[str, _Share] = {}
        self._relieving = False
        self.granted = self.held = 0
        self.most = 0
        """The most that was held since somebody set this."""

    def account(self, origin: str) -> Account:
        """For one more connection with that address; it has to be closed."""
        share = self._shares.get(origin)
        if share is None:
            share = self._shares[origin] = _Share(origin)
        account = Account(self, share)
        share.accounts.add(account)
        return account

    # --- for the accounts ---------------------------------------------------------------------------------

    def grow(self, account: Account, share: _Share, wanted: int) -> int:
        """See Account."""
        if account not in share.accounts:
            return 0
        growth = max(0, min(wanted, self._windows - self.granted, self._windows_each - share.granted))
        self._grant(account, share, growth)
        return growth

    def shrink(self, account: Account, share: _Share, growth: int) -> None:
        """See Account."""
        self._grant(account, share, -min(growth, account.granted))

    def _grant(self, account: Account, share: _Share, growth: int) -> None:
        account.granted += growth
        share.granted += growth
        self.granted += growth

    def count(self, account: Account, share: _Share, held: int) -> None:
        """What an account holds now."""
        if account in share.accounts:
            change = held - account.held
            account.held = held
            share.held += change
            self.held += change
            if self.held > self.most:
                self.most = self.held

    def settle(self, account: Account, share: _Share, held: int, now: float) -> None:
        """See Account."""
        more = held > account.held
        self.count(account, share, held)
        if not more or self._relieving:
            return
        if share.held > self._stalled_each + share.granted or self.held > self._most + self.granted:
            self._relieving = True
            try:
                self._relieve(share, now)
            finally:
                self._relieving = False

    def close(self, account: Account, share: _Share) -> None:
        """See Account."""
        if account not in share.accounts:
            return
        self.count(account, share, 0)
        self.shrink(account, share, account.granted)
        share.accounts.discard(account)
        if not share.accounts:
            del self._shares[share.origin]

    def _relieve(self, share: _Share, now: float) -> None:
        """Cuts until the bounds hold: of the address that is over its own, then of the fullest one."""
        since = now - self._stalled
        if now >= share.again:
            while share.held > self._stalled_each + share.granted and self._cut_one(share, since):
                pass
            share.again = now + _AGAIN
        while share.held > self._most_each + share.granted and self._cut_one(share, now):
            pass
        while self.held > self._most + self.granted:
            if not self._cut_one(max(self._shares.values(), key=lambda one: one.held), now):
                return

    def _cut_one(self, share: _Share, since: float) -> bool:
        """Cuts the largest holder that has what did not move since then; False when there is none."""
        before = share.held
        for account in tuple(share.accounts):
            account.refresh()  # those that took no read for a while have perhaps given up most of it
        if share.held < before:
            return True
        for account in sorted(share.accounts, key=lambda one: one.held, reverse=True):
            if account.cut(since):
                self._told(account)
                return True
        return False

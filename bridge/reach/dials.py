"""How often punches may dial an address: what one attempt and one run may, and what all strangers may together.

A candidate is an address that the peer names, so it may be anybody's. It is *attested* when a relay that our user
named saw the peer there; every other one is a stranger's, and few SYNs go to it. Pure: it is asked before a dial, told
of refusals, and dials nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from punchbridge.addresses import Endpoint, Proto
from punchbridge.config import PunchLimits
from punchbridge.tasks.rates import Buckets

__all__ = ["AttemptDials", "DialBudget", "Permit", "RunDials"]

Permit = Literal["yes", "later", "never"]
"""Whether a dial may leave: now, perhaps in a moment, or not any more in this attempt."""
Place = tuple[Proto, str]


@dataclass(eq=False)
class RunDials:
    """What the attempts of one run have spent on the IPs of strangers. `seen`: the IPs at which the peer has proven
    itself before; whoever keeps that set may add to it."""

    seen: set[str] = field(default_factory=set)
    dialled: Counter[Place] = field(default_factory=Counter)
    refused: Counter[Place] = field(default_factory=Counter)
    """Dials that were answered by an error."""
    errors: dict[Place, str] = field(default_factory=dict)
    """The name of the last such error."""


class DialBudget:
    """What the punches of one host share. `attempt_timeout`: seconds that an attempt dials."""

    def __init__(self, limits: PunchLimits, attempt_timeout: float) -> None:
        self.limits = limits
        self._attested = Buckets(limits.dials, attempt_timeout / limits.dials, limits.dial_hosts, refuse_new=True)
        self._strange: dict[str, Buckets] = {
            "host": self._buckets(limits.stranger_dials_per_run, limits.stranger_host_interval),
            "origin": self._buckets(limits.stranger_origin_dials, limits.stranger_origin_interval),
            "all": self._buckets(limits.stranger_dials, limits.stranger_interval),
        }

    def _buckets(self, burst: int, interval: float) -> Buckets:
        return Buckets(burst, interval, self.limits.dial_hosts, refuse_new=True)

    def may_dial_attested(self, place: Place, now: float, packets: int = 1) -> bool:
        """Counts one dial to an attested IP; False when all punches together have made too many."""
        if not self._attested.take(place, now):
            return False
        for _ in range(packets - 1):
            self._attested.due(place, now)
        return True

    def may_dial_strange(self, place: Place, origin: Hashable, now: float, packets: int = 1) -> bool:
        """Counts one dial to an IP of a stranger who came from `origin`; False when a bound is reached. What a dial
        counts for beyond one may be owed for a while."""
        keys: dict[str, Hashable] = {"host": place, "origin": origin, "all": None}
        for name, key in keys.items():
            if not self._strange[name].has(key, now):
                return False
        for name, key in keys.items():
            for _ in range(packets):
                self._strange[name].due(key, now)
        return True


class AttemptDials:
    """What one attempt may dial.

    `attested`: the IPs at which a relay that our user named saw the peer. `origin`: where the peer comes from, whatever
    it calls itself: its attested address, or else its relay. `before`: dials that it has made already.
    """

    def __init__(
        self,
        budget: DialBudget,
        run: RunDials,
        origin: Hashable,
        attested: frozenset[str],
        before: Mapping[Place, int] | Iterable[Place] = (),
    ) -> None:
        self._budget = budget
        self._run = run
        self.origin = origin
        self._attested = attested
        self._dialled = Counter(before)
        self.withheld = ""
        """What all peers together have spent, so that a dial did not leave; empty when nothing."""

    def ask(self, endpoint: Endpoint, now: float, packets: int = 1) -> Permit:
        """Counts one dial when it may leave. `packets`: it counts for so many, since so many leave when nobody
        answers."""
        place, limits = endpoint.place, self._budget.limits
        if endpoint.host in self._attested:
            return "yes" if self._budget.may_dial_attested(place, now, packets) else "later"
        spent = self._dialled[place] + packets > limits.stranger_dials_per_attempt
        if spent or self._run.dialled[place] + packets > limits.stranger_dials_per_run or self.given_up(endpoint):
            return "never"
        if not self._budget.may_dial_strange(place, self.origin, now, packets):
            self.withheld = "few dials went out, since those for addresses that no relay of ours attests are spent"
            return "later"
        self._dialled[place] += packets
        self._run.dialled[place] += packets
        return "yes"

    def unused(self, endpoint: Endpoint) -> None:
        """The dial that was asked for did not leave."""
        if endpoint.host not in self._attested:
            self._dialled[endpoint.place] -= 1
            self._run.dialled[endpoint.place] -= 1

    def refused(self, endpoint: Endpoint, error: str) -> None:
        """A dial was answered by an error: a reset, or a router's word that there is no way."""
        self._run.refused[endpoint.place] += 1
        self._run.errors[endpoint.place] = error

    def given_up(self, endpoint: Endpoint) -> str:
        """The error by which a stranger's IP has refused this run so often that it is let be; empty when it is not."""
        place, run = endpoint.place, self._run
        strange = endpoint.host not in self._attested and endpoint.host not in run.seen
        return run.errors[place] if strange and run.refused[place] >= self._budget.limits.stranger_refusals else ""

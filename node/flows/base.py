"""What every flow gets and must be. No flow of its own."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from ..addressbook import AddressBook, NetworkAddress
from ..config import NodeConfig
from ..connection import PeerConnection
from ..inventory import Inventory
from ..peer import PeerRecord


@dataclass(frozen=True)
class FlowContext:
    """A peer's record and the node's stores. `clock`: monotonic seconds. `learned`: told of unknown addresses."""

    record: PeerRecord
    inventory: Inventory
    addresses: AddressBook
    clock: Callable[[], float]
    learned: Callable[[list[NetworkAddress]], None]


class Flow(abc.ABC):
    """One flow of one connection. The constructor subscribes its routes and sends nothing."""

    @abc.abstractmethod
    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None: ...

    @abc.abstractmethod
    async def run(self, context: FlowContext) -> None:
        """Work until cancelled. Cancellation leaves nothing behind; the connection releases its requests."""

"""The swarm actor: one task that takes commands from a bounded mailbox and starts their work in its nursery.

It never waits for a command's work, so commands may cause commands. It knows what each command means and nothing of
how transports, tables or dials work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

import trio

from punchbridge.addresses import Multiaddr, is_relayed, spoken_endpoint
from punchbridge.config import SwarmLimits
from punchbridge.errors import AddressError, LimitExceeded, SwarmStopped, Unreachable
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.commands import (
    Adopt,
    Close,
    Command,
    Connect,
    Dial,
    Handle,
    Listen,
    OpenStream,
    Reply,
    Reserve,
    Unhandle,
)
from punchbridge.swarm.dialer import Dialer
from punchbridge.swarm.pool import Pool
from punchbridge.swarm.ports import Ports
from punchbridge.swarm.registry import Registration
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.supervise import report
from punchbridge.transport.absent import check_present
from punchbridge.transport.base import Connection, Reservation, ReservingTransport, Stream, Transport

__all__ = ["Actor"]

T = TypeVar("T")


class Actor:
    """Carries out commands. Every reply is filled: by the work, or with SwarmStopped."""

    def __init__(
        self,
        limits: SwarmLimits,
        pool: Pool,
        dialer: Dialer,
        transports: list[Transport],
        ports: Ports,
    ) -> None:
        self._limits = limits
        self._pool = pool
        self._ports = ports
        self._dialer = dialer
        self._transports = transports
        self._send, self._receive = trio.open_memory_channel[Command[Any]](limits.mailbox)
        self._pending: dict[Reply[Any], Command[Any]] = {}
        self._stopped = False

    async def submit(self, command: Command[T]) -> T:
        """Hands a command in and waits for its reply. Waits while the mailbox is full.

        Raises what the work raises, SwarmStopped, or LimitExceeded beyond `limits.swarm.commands`. When the caller is
        cancelled the work is cancelled too, and what it had made for the caller alone is undone.
        """
        reply = command.reply
        if self._stopped:
            raise SwarmStopped("the swarm has stopped; open another one")
        if len(self._pending) >= self._limits.commands:
            raise LimitExceeded(f"{self._limits.commands} commands are in progress; wait for some to end")
        self._pending[reply] = command
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._send.send(command)
            return await reply.wait()
        except trio.Cancelled:
            reply.left = True
            reply.scope.cancel()
            _undo(command, reply.abandoned())
            raise
        finally:
            del self._pending[reply]

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The actor task. Ends when cancelled; then all that it started has ended as well."""
        try:
            async with trio.open_nursery() as nursery:
                self._pool.nursery = nursery
                nursery.start_soon(self._pool.tell_refusals)
                for transport in self._ports.serving:
                    transport.nursery = nursery
                task_status.started()
                async for command in self._receive:
                    nursery.start_soon(self._perform, command)
        finally:
            self.refuse()

    async def stop(self) -> None:
        """Stops listening, ends pending commands, closes the connections (bounded). Cancel `run` afterwards."""
        for transport in self._ports.serving:
            transport.stop()
        self.refuse()
        await self._pool.stop()

    def refuse(self) -> None:
        """Ends every pending command with SwarmStopped and takes no more."""
        self._stopped = True
        self._send.close()
        for reply, command in tuple(self._pending.items()):
            reply.fail(SwarmStopped("the swarm stopped before the command ended"))
            if not isinstance(command, Close):  # what it is flushing is not to be lost by stopping; `Pool.stop` waits
                reply.scope.cancel()

    async def _perform(self, command: Command[Any]) -> None:
        reply = command.reply
        try:
            with reply.scope:
                value = await self._work(command)
                if reply.left:
                    _undo(command, value)
                reply.succeed(value)
        except NETWORK_FAILURES as problem:
            reply.fail(problem)
        except Exception as problem:  # noqa: BLE001 - the named supervisor: a command's defect ends that command
            report(f"the command {type(command).__name__}", problem)
            reply.fail(problem)
        finally:
            reply.fail(SwarmStopped("the swarm stopped before the command ended"))

    def _work(self, command: Command[Any]) -> Awaitable[Any]:
        match command:
            case OpenStream(target=target, protocols=protocols):
                return self._open_stream(target, tuple(protocols))
            case Dial(addr=addr, expected=expected, fresh=fresh):
                return self._dialer.dial(addr, expected, fresh)
            case Connect(peer=peer, addrs=addrs, path=path):
                return self._dialer.connect(peer, addrs, path)
            case Adopt(connection=connection):
                return self._pool.enter(connection)
            case Listen(addrs=addrs):
                return self._listen(addrs)
            case Reserve(relay=relay):
                return self._reserve(relay)
            case Close(target=target, reason=reason):
                return self._close(target, reason)
            case Handle():
                return self._handle(command)
            case Unhandle(protocol=protocol):
                return self._unhandle(protocol)
            case _:
                raise AssertionError(f"no work for {command}")

    async def _open_stream(self, target: PeerId | Connection, protocols: tuple[str, ...]) -> Stream:
        if not isinstance(target, PeerId):
            return await self._pool.open_stream((target,), protocols)
        live = self._pool.live(target)
        if not live:
            raise Unreachable(f"not connected to {peer_text(target)}; connect first")
        return await self._pool.open_stream(live, protocols)

    async def _listen(self, addrs: tuple[Multiaddr, ...]) -> tuple[Multiaddr, ...]:
        if len(addrs) != 1:
            return await self._ports.listen(addrs, self._pool.accepted)
        (addr,) = addrs
        if not is_relayed(addr):
            check_present(addr, self._ports.missing)
        for transport in self._transports:
            if transport.handles(addr):
                return await transport.listen(addr, self._pool.accepted)
        if is_relayed(addr):
            raise AddressError(f"cannot listen on {addr}: this node runs no relay client")
        spoken_endpoint(addr)
        raise AddressError(f"cannot listen on {addr}; an address to listen on looks like /ip4/0.0.0.0/tcp/4001")

    async def _reserve(self, relay: Multiaddr) -> Reservation:
        for transport in self._transports:
            if isinstance(transport, ReservingTransport):
                return await transport.reserve(relay)
        raise AddressError(f"cannot reserve at {relay}: this node runs no relay client")

    async def _close(self, target: PeerId | Connection, reason: str) -> None:
        members = self._pool.table.members(target) if isinstance(target, PeerId) else (target,)
        await self._pool.close(members, reason)

    async def _handle(self, command: Handle) -> None:
        await trio.lowlevel.checkpoint()
        self._pool.registry.add(
            Registration(
                command.protocol,
                command.handler,
                command.max_streams,
                command.max_per_peer,
                command.relayed,
                command.audience,
                command.small,
            )
        )

    async def _unhandle(self, protocol: str) -> None:
        await trio.lowlevel.checkpoint()
        self._pool.registry.remove(protocol)


def _undo(command: Command[T], made: T | None) -> None:
    """A stream that nobody took is reset; connections and listeners belong to the swarm and stay."""
    if isinstance(command, OpenStream) and made is not None:
        cast(Stream, made).reset()

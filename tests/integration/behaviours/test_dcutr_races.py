"""Punches that race: with the end of their circuit, of the host, of the attempt; and what else comes at that moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from punchbridge.addresses import with_peer
from punchbridge.behaviours.dcutr import answerer as answerer_module
from punchbridge.behaviours.dcutr.tcp import TcpOpening
from punchbridge.behaviours.nat.observer import SecondObserver
from punchbridge.config import Limits, NatLimits, PunchLimits
from punchbridge.events import P2pUpgrade, PunchFailed, PunchSucceeded
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.muxed.connection import MuxedConnection as Muxed
from punchbridge.yamux import GoAwayCode
from tests.support.muxed import muxed
from tests.support.punch_lab import QUICK, Peer, open_peer, open_relay, over_relay


async def upgraded(peer: Peer) -> None:
    """The one outcome of a punch that made its connection: nothing failed, and the upgrade was told."""
    await peer.record.wait(PunchSucceeded)
    await peer.record.wait(P2pUpgrade)
    assert peer.record.of(PunchFailed) == []


async def test_a_circuit_whose_peer_says_goodbye_and_lingers_is_not_punched_over() -> None:
    """Other stacks may keep a connection long after its GoAway, when no stream can be opened on it any more."""
    async with open_relay() as relay, open_peer() as listener, open_peer(None) as dialer:
        relayed = await over_relay(relay, dialer, listener)
        await listener.record.wait(PunchFailed)  # PEER_UNSUPPORTED: the next run is half a minute away
        muxed(relayed)._sender.send(muxed(relayed)._streams.session.go_away(GoAwayCode.NORMAL))
        [theirs] = listener.host.swarm.connections(dialer.peer)
        with trio.fail_after(5):
            while not muxed(theirs)._streams.session.remote_gone:
                await relayed.ping()
        listener.puncher.retry_now(dialer.peer)
        with trio.fail_after(5):
            while listener.puncher.watched(dialer.peer):
                await relayed.ping()
        assert not theirs.closed.is_set()
        assert len(listener.record.of(PunchFailed)) == 1


async def test_a_cancellation_behind_the_win_leaves_it_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:

        async def close(stream: Stream) -> None:
            dialer.puncher.cancel(listener.peer)
            await trio.sleep_forever()

        monkeypatch.setattr(answerer_module, "_close", close)
        await over_relay(relay, dialer, listener)
        await upgraded(dialer)


@pytest.mark.parametrize("side", ["initiator", "responder"])
async def test_a_cancellation_at_the_very_moment_of_the_win_leaves_it_a_success(
    monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    real = TcpOpening.judge
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        one, other = (dialer, listener) if side == "responder" else (listener, dialer)

        async def judge(self: TcpOpening, *args: Any) -> Any:
            won = await real(self, *args)
            if won is not None and self.peer == other.peer:  # each side has one peer
                one.puncher.cancel(other.peer)
            return won

        monkeypatch.setattr(TcpOpening, "judge", judge)
        await over_relay(relay, dialer, listener)
        await upgraded(one)


async def test_a_dial_before_the_punch_that_answers_nothing_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise stood, then not a word: the exchange follows, and no half-dead connection passes for a direct one."""
    real = Muxed.ping

    async def ping(self: Muxed) -> float:
        if self.path == "direct" and self.role == "initiator" and not self.punched and self.relay is None:
            asked.append(self)
            await trio.sleep_forever()
        return await real(self)

    asked: list[Connection] = []
    punch, limits = replace(QUICK, reversal=True), Limits(punch=PunchLimits(reversal_timeout=0.3))
    async with open_relay() as relay, open_peer(punch, limits=limits) as listener, open_peer() as dialer:
        monkeypatch.setattr(Muxed, "ping", ping)
        await over_relay(relay, dialer, listener)
        assert (await listener.record.wait(PunchSucceeded)).attempt >= 1
        assert asked
        assert all(connection.closed.is_set() for connection in asked)


async def test_a_circuit_that_comes_while_the_behaviour_ends_finds_it_gone(caplog: pytest.LogCaptureFixture) -> None:
    """Its last task has ended and its nursery takes no more, but the task that runs it has not had its turn yet."""
    exited: list[trio.lowlevel.Task] = []

    class OnExit(trio.abc.Instrument):
        def task_exited(self, task: trio.lowlevel.Task) -> None:
            if task.name == "last":
                exited.append(task)
                listener.host.swarm.watchers.connected(circuit)

    async def last() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    async with open_relay() as relay, open_peer() as dialer, open_peer() as listener:
        await over_relay(relay, dialer, listener)
        await listener.record.wait(P2pUpgrade)
        [circuit] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
        listener.puncher.kept.nursery.start_soon(last, name="last")
        trio.lowlevel.add_instrument(OnExit())
    assert len(exited) == 1
    assert caplog.records == []


@pytest.mark.parametrize("others", [True, False])
async def test_a_second_observer_s_connection_is_given_up_only_beside_another(others: bool) -> None:
    """A reservation may have moved to it meanwhile; that ends with the last direct connection, and shows no stream."""
    limits = Limits(nat=NatLimits(observer_hold=0.0))
    async with open_peer(limits=limits) as peer, open_peer(None) as server:
        addr = with_peer(server.host.swarm.listen_addrs()[0], server.peer)
        held = await peer.host.swarm.dial(addr)
        if others:
            await peer.host.swarm.dial(addr, fresh=True)
        with trio.fail_after(5):
            await held.identified.wait()
            while held.streams:
                await held.ping()
            await SecondObserver(peer.host.swarm).hold(held, str(addr))
        assert held.closed.is_set() is others

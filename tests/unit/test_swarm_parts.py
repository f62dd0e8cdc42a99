"""Registry, announcements, interface expansion, supervisor and the flat nursery."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from punchbridge.addresses import parse
from punchbridge.errors import ConfigError, ProtocolViolation, StreamReset
from punchbridge.identity import Identity, peer_text
from punchbridge.swarm.announce import Announcements
from punchbridge.swarm.registry import Registration, Registry
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.tasks.supervise import supervise
from punchbridge.transport.base import Connection
from punchbridge.transport.interfaces import expand, interface_addresses, is_local

ME, RELAY, OTHER = (Identity.generate().peer_id for _ in range(3))


def via(path: str) -> Connection:
    return cast(Connection, SimpleNamespace(path=path))


async def nothing(_stream: object) -> None:
    await trio.lowlevel.checkpoint()


def test_the_registry_bounds_streams_in_all_and_for_each_peer() -> None:
    registration = Registration("/x", nothing, max_streams=3, max_per_peer=2, relayed=True)
    assert [registration.enter(ME), registration.enter(ME), registration.enter(ME)] == [True, True, False]
    assert [registration.enter(OTHER), registration.enter(OTHER)] == [True, False]
    registration.leave(ME)
    assert registration.enter(OTHER)
    assert registration.refused == 2


def test_one_address_with_many_ids_leaves_half_of_the_places_to_others() -> None:
    registration = Registration("/x", nothing, max_streams=8, max_per_peer=2, relayed=True)
    crowd = [Identity.generate().peer_id for _ in range(5)]
    taken = [peer for peer in crowd for _ in range(2) if registration.enter(peer, "192.0.2.1")]
    assert len(taken) == 4
    assert registration.enter(ME, "192.0.2.2")
    assert registration.enter(OTHER)
    registration.leave(taken[0], "192.0.2.1")
    assert registration.enter(crowd[4], "192.0.2.1")


def test_a_protocol_not_offered_over_circuits_is_neither_told_nor_found_there() -> None:
    changes: list[int] = []
    registry = Registry(lambda: changes.append(1))
    registry.add(Registration("/hop", nothing, 1, 1, relayed=False))
    registry.add(Registration("/app", nothing, 1, 1, relayed=True))
    assert registry.supported(via("relay")) == ("/app",)
    assert registry.supported(via("direct")) == ("/hop", "/app")
    assert registry.find("/hop", via("relay")) is None
    assert registry.find("/hop", via("direct")) is not None
    registry.remove("/hop")
    registry.remove("/hop")
    assert len(changes) == 3


@pytest.mark.parametrize("bad", [("/app", 1, 1), ("/other", 0, 1), ("/other", 1, 0), ("", 1, 1)])
def test_an_unusable_registration_is_refused(bad: tuple[str, int, int]) -> None:
    registry = Registry(lambda: None)
    registry.add(Registration("/app", nothing, 1, 1, relayed=True))
    with pytest.raises(ConfigError):
        registry.add(Registration(bad[0], nothing, bad[1], bad[2], relayed=True))


def test_announced_addresses_follow_the_policy() -> None:
    private, public = parse("/ip4/192.168.1.2/tcp/1"), parse("/ip4/11.0.0.1/tcp/1")
    external = parse("/ip4/11.0.0.2/tcp/5")
    circuit = parse(f"/ip4/11.0.0.3/tcp/1/p2p/{peer_text(RELAY)}/p2p-circuit")
    strict, open_ = Announcements(ME, False), Announcements(ME, True)
    for book in (strict, open_):
        book.set_external(external, True)
        book.set_circuit_addrs(RELAY, (parse(f"{circuit}/p2p/{peer_text(ME)}"),))
    assert strict.addresses([private, public]) == (external, public, circuit)
    assert open_.addresses([private, public]) == (external, private, public, circuit)
    strict.set_circuit_addrs(RELAY, ())
    strict.set_external(external, False)
    assert strict.addresses([private, public]) == (public,)


def test_only_a_change_moves_the_revision() -> None:
    book = Announcements(ME, False)
    addr = parse("/ip4/11.0.0.2/tcp/5")
    book.set_external(addr, True)
    book.set_external(addr, True)
    book.set_circuit_addrs(RELAY, ())
    assert book.revision.number == 1


def test_wildcards_expand_to_interfaces_without_link_local() -> None:
    found = expand(ip_address("0.0.0.0"))
    assert ip_address("127.0.0.1") in found
    assert all(ip.version == 4 and not ip.is_unspecified for ip in found)
    assert not any(ip.is_link_local for ip in interface_addresses())
    assert expand(ip_address("11.0.0.1")) == (ip_address("11.0.0.1"),)
    assert is_local(ip_address("127.8.9.1"))
    assert not is_local(ip_address("11.0.0.1"))


async def test_the_supervisor_keeps_ordinary_and_foreign_errors_apart(caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[str] = []

    def raising(error: BaseException):  # type: ignore[no-untyped-def]
        async def work() -> None:
            await trio.lowlevel.checkpoint()
            raise error

        return work

    with caplog.at_level(logging.ERROR):
        await supervise("test", raising(StreamReset("x")), reasons.append)
        await supervise("test", raising(ExceptionGroup("g", [ProtocolViolation("x")])), reasons.append)
        assert not caplog.records
        await supervise("test-foreign", raising(KeyError("x")), reasons.append)
        await supervise("test-foreign", raising(KeyError("y")), reasons.append)
        await supervise("test-foreign", raising(ExceptionGroup("g", [ZeroDivisionError()])), reasons.append)
    assert reasons == ["RESET", "INTERNAL", "INTERNAL", "INTERNAL", "INTERNAL"]
    assert [record.exc_info is not None for record in caplog.records] == [True, False, True]
    with pytest.raises(KeyboardInterrupt):
        await supervise("test", raising(KeyboardInterrupt()), reasons.append)


async def test_the_supervisor_lets_cancellation_through_even_inside_a_group() -> None:
    reasons: list[str] = []

    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise StreamReset("while being cancelled")

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with trio.CancelScope() as scope:
        scope.cancel()
        await supervise("test", work, reasons.append)
    assert scope.cancelled_caught
    assert reasons == ["CANCELLED"]


async def fail_in_flat_nursery(error: Exception) -> None:
    async with flat_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise error


async def test_a_flat_nursery_keeps_one_error_single_and_several_together() -> None:
    with pytest.raises(KeyError):
        await fail_in_flat_nursery(KeyError("body"))
    with pytest.RaisesGroup(KeyError, ValueError):
        await fail_in_flat_nursery(ExceptionGroup("two", [KeyError(), ValueError()]))

"""Any message that the Kaspa wire can carry: what the node reads out of it is a value or the one typed error."""

from __future__ import annotations

import os
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from punchbridge_node import ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.addressbook import AddressBook, NetworkAddress
from punchbridge_node.config import NodeConfig
from punchbridge_node.handshake import HandshakeRefusal, check_version
from punchbridge_node.router import Outcome, RouteTable
from punchbridge_node.session import outbound_addresses
from punchbridge_node.transport import PeerInfo

RANGES = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
lengths = st.sampled_from([0, 1, 4, 16, 20, 31, 32, 33])


def scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.cpp_type in RANGES:
        low, high = RANGES[field.cpp_type]
        return st.one_of(st.sampled_from([low, 0, 1, high]), st.integers(low, high))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    return st.one_of(st.binary(max_size=40), lengths.map(os.urandom))


@st.composite
def filled(draw: st.DrawFn, kind: Descriptor, depth: int = 4) -> Message:
    """A message of that type with any of its fields set to anything."""
    message: Message = getattr(pb, kind.name)()
    for field in kind.fields:
        if not draw(st.booleans()):
            continue
        repeated = hasattr(getattr(message, field.name), "extend")
        if field.message_type is not None:
            if depth == 0:
                continue
            inner = filled(field.message_type, depth - 1)
            if repeated:
                getattr(message, field.name).extend(draw(st.lists(inner, max_size=3)))
            else:
                getattr(message, field.name).CopyFrom(draw(inner))
        elif repeated:
            getattr(message, field.name).extend(draw(st.lists(scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(scalar(field)))
    return message


def of(kind: type[Message]) -> st.SearchStrategy[Any]:
    return filled(cast("Descriptor", kind.DESCRIPTOR))


@given(of(pb.BlockMessage))
def test_any_block_has_a_hash_or_is_malformed(block: pb.BlockMessage) -> None:
    try:
        assert len(ids.block_hash(block)) == 32
    except wire.MalformedMessage:
        pass


@given(of(pb.TransactionMessage))
def test_any_transaction_has_an_id_or_none(tx: pb.TransactionMessage) -> None:
    found = ids.transaction_id(tx)
    assert found is None or len(found) == 32


@given(of(pb.AddressesMessage))
def test_any_addresses_are_read_or_malformed_and_the_book_stays_bounded(message: pb.AddressesMessage) -> None:
    book = AddressBook(2)
    for item in message.addressList:
        try:
            book.add([NetworkAddress.from_wire(item)])
        except wire.MalformedMessage:
            continue
    assert len(book) <= 2
    assert all(item.dialable for item in book.newest())


@given(of(pb.VersionMessage))
def test_any_version_is_refused_or_accepted(version: pb.VersionMessage) -> None:
    refusal = check_version(version, NodeConfig(), duplicate=lambda _: False)
    assert refusal is None or isinstance(refusal, HandshakeRefusal)
    assert all(isinstance(one, NetworkAddress) for one in outbound_addresses(PeerInfo("192.0.2.1", 1), version))


@given(st.sampled_from([pb.InvTransactionsMessage, pb.RequestTransactionsMessage]), st.data())
def test_any_list_of_ids_is_read_or_malformed(kind: type[Message], data: st.DataObject) -> None:
    body = data.draw(of(kind))
    name = wire.INV_TRANSACTIONS if kind is pb.InvTransactionsMessage else wire.REQUEST_TRANSACTIONS
    try:
        assert all(len(item) == 32 for item in wire.transaction_ids(wire.message(name, body)))
    except wire.MalformedMessage:
        pass


@given(st.data())
def test_any_message_comes_off_the_wire_as_it_went_and_has_one_outcome(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(wire.PAYLOAD_TYPES)))
    body = data.draw(filled(wire.PAYLOAD_FIELDS[kind].message_type, 2))
    msg = wire.parse(wire.message(kind, body).SerializeToString())
    table = RouteTable(1 << 20)
    table.subscribe(sorted(wire.PAYLOAD_TYPES - {wire.REJECT}))
    assert table.route(msg, len(msg.SerializeToString())) in (Outcome.DELIVERED, Outcome.REJECTED)

"""A plain gRPC server that knows nothing of the bridge, as what `expose` stands in front of, and a call to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc

METHOD = "/test.Echo/Shout"


@contextmanager
def shouting() -> Iterator[str]:
    """A server that answers in capitals, and tells the size of the request in its trailers; yields HOST:PORT."""

    def shout(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("said", str(len(request))),))
        return request.upper()

    def token(request: bytes, context: grpc.ServicerContext) -> bytes:
        return str(dict(context.invocation_metadata()).get("authorization")).encode()

    made = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {name: grpc.unary_unary_rpc_method_handler(do) for name, do in (("Shout", shout), ("Token", token))}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    yield f"127.0.0.1:{port}"
    made.stop(None).wait()


def shouted(place: str, text: bytes) -> bytes:
    """What the server answers at a place; its trailers have come through as well."""
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        answer, call = channel.unary_unary(METHOD, None, None).with_call(text, timeout=20)
        assert dict(call.trailing_metadata())["said"] == str(len(text))
        assert isinstance(answer, bytes)
        return answer

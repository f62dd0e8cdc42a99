"""An unmodified gRPC server, reachable by its peer id: python examples/server.py RELAY"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import punchbridge


def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
    caller = punchbridge.peer(context)
    return b"hello " + request + f", you are {caller.peer_id} on a {caller.path} path".encode()


server = grpc.server(ThreadPoolExecutor(8), options=punchbridge.server_options(), interceptors=[punchbridge.guard()])
methods = {"Hello": grpc.unary_unary_rpc_method_handler(hello)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Greeter", methods),))

try:
    with punchbridge.open(key="server.key", new_key=True, relays=sys.argv[1:]) as b:
        b.serve(server)
        server.start()
        _ = sys.argv[1:] and b.wait_reservation()
        print(b.invite(uses=10), flush=True)  # a ticket: it lets ten clients in, for good
        server.wait_for_termination()
except punchbridge.BridgeError as problem:
    sys.exit(f"{problem.code}: {problem}")
except KeyboardInterrupt:
    sys.exit(130)

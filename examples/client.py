"""Calls the server behind its NAT: over the relay, then over the punched connection. python examples/client.py ADDR"""

import sys

import grpc

import punchbridge

if len(sys.argv) != 2:
    sys.exit("usage: python examples/client.py ADDR, the line that the server printed")
try:
    with punchbridge.open() as b, b.channel(sys.argv[1]) as channel:
        hello = channel.unary_unary("/demo.Greeter/Hello")
        print(hello(b"world", timeout=20).decode())
        print("direct:", b.wait_direct(sys.argv[1]).remote)
        print(hello(b"again", timeout=20).decode())
except punchbridge.DirectRequired as problem:
    sys.exit(f"stays on the relay: {problem.verdict}")
except punchbridge.BridgeError as problem:
    sys.exit(f"{problem.code}: {problem}")
except grpc.RpcError as problem:
    sys.exit(f"{problem.code()}: {problem.details()}")
except KeyboardInterrupt:
    sys.exit(130)

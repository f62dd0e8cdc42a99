"""Calls the server behind its NAT: over the relay, then over the punched connection. python examples/client.py ADDR"""

import sys

import grpc

import bridge

with bridge.open() as b:
    with b.channel(sys.argv[1]) as channel:
        print(channel.unary_unary("/demo.Greeter/Hello")(b"world", timeout=20).decode())
    try:
        print("direct:", b.wait_direct(sys.argv[1]).remote)
    except bridge.DirectRequired as problem:
        sys.exit(f"stays on the relay: {problem.verdict}")
    with b.channel(sys.argv[1], fresh=True) as channel:
        try:
            print(channel.unary_unary("/demo.Greeter/Hello")(b"again", timeout=20).decode())
        except grpc.RpcError as problem:
            sys.exit(f"{problem.code()}: {problem.details()}")

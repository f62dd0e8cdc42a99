"""The Kaspa node of punchbridge: handshake, router, flows and peer store over any number of gRPC streams."""

if __name__ != "punchbridge_node":
    raise ImportError(
        "this package is `punchbridge_node`; import it by that name (the checkout's folder src is its import root)"
    )

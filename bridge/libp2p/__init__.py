"""gRPC, with sessions, over the streams of a py-libp2p host that an application runs already.

    from punchbridge.libp2p import open_over

    async with host.run(listen_addrs=[...]):
        async with open_over(host) as b:
            await b.serve(server)                       # a grpc server: peers of the host may call it
            channel = b.channel(f"{addr}/p2p/{peer}")   # a grpc channel; its calls run in threads of their own

The host keeps its connections, its addresses and its security; nothing here dials on its own account but to reach a
peer that was asked for. It needs the extra `punchbridge[libp2p]`. The bridge of `punchbridge.open` needs none of this:
it has a swarm of its own, which punches.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("libp2p") is None:
    raise ImportError("punchbridge.libp2p needs py-libp2p: pip install 'punchbridge[libp2p]'", name="libp2p")

from punchbridge.libp2p.bridge import HostBridge, open_over

__all__ = ["HostBridge", "open_over"]

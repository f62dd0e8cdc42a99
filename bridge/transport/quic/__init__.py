"""QUIC: connections whose security and streams are its own, over one UDP socket for each bound address.

Its modules import the extension module `punchbridge_quic`; whether that is there says `punchbridge.transport.absent`.
"""

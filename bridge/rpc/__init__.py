"""gRPC over libp2p streams: pumps between unix sockets and streams, channels, servers, and the public API.

The only room that imports grpc. Applications use the names that `bridge` exports.
"""

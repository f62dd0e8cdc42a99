"""The local end: unix sockets between gRPC and the streams of peers, and ports that lead to one. Knows no grpc."""

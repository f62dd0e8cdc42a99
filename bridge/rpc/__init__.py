"""gRPC itself: channels, options and guards. The only room of the library that imports grpc."""

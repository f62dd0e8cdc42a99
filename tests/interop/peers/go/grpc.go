// grpc-go on libp2p streams: a server on inbound streams and a client that dials one, with bytes as messages.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	grpcID  = "/punchbridge/grpc/1.0.0"
	largest = 128 << 20
	chats   = 50
)

// raw carries messages as they are.
type raw struct{}

func (raw) Name() string                       { return "raw" }
func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }

func answer(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var message []byte
	if err := read(&message); err != nil {
		return nil, err
	}
	if bytes.Equal(message, []byte("fail")) {
		return nil, status.Error(codes.NotFound, "nothing here")
	}
	grpc.SetTrailer(ctx, metadata.Pairs("x-size", fmt.Sprint(len(message))))
	return &message, nil
}

func chat(_ any, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func serveGRPC(h host.Host) {
	listener, err := gostream.Listen(h, grpcID)
	die(err)
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.MaxRecvMsgSize(largest))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "interop.Bytes", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: answer}},
		Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true},
			{StreamName: "Up", Handler: up, ClientStreams: true}, {StreamName: "Down", Handler: down, ServerStreams: true}},
	}, struct{}{})
	go server.Serve(listener)
}

func callGRPC(ctx context.Context, h host.Host, target peer.ID, size int) (object, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return gostream.Dial(ctx, h, target, grpcID) }
	channel, err := grpc.NewClient("passthrough:///"+target.String(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(largest)))
	if err != nil {
		return nil, err
	}
	defer channel.Close()
	sent, got, trailer := make([]byte, size), []byte{}, metadata.MD{}
	if err := channel.Invoke(ctx, "/interop.Bytes/Echo", &sent, &got, grpc.Trailer(&trailer)); err != nil {
		return nil, err
	}
	fail := []byte("fail")
	failed := channel.Invoke(ctx, "/interop.Bytes/Echo", &fail, &[]byte{})
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/interop.Bytes/Chat")
	if err != nil {
		return nil, err
	}
	count := 0
	for i := range chats {
		said, heard := []byte(fmt.Sprint(i)), []byte{}
		if err := stream.SendMsg(&said); err != nil {
			return nil, err
		}
		if err := stream.RecvMsg(&heard); err != nil {
			return nil, err
		}
		if bytes.Equal(said, heard) {
			count++
		}
	}
	stream.CloseSend()
	end := stream.RecvMsg(&[]byte{})
	return object{"same": bytes.Equal(sent, got), "trailer": trailer.Get("x-size"), "status": status.Code(failed).String(),
		"chats": count, "ended": end == io.EOF}, nil
}

// What the benchmark asks beyond the interop suite: gRPC in bulk and in small calls, and one stream for some seconds.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const mib = 1 << 20

var (
	small    = make([]byte, 100)
	large    = make([]byte, mib)
	channels []*grpc.ClientConn
)

// up counts what the client streams; down streams as many MiB as it is told.
func up(_ any, stream grpc.ServerStream) error {
	total := 0
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			answer := []byte(fmt.Sprint(total))
			return stream.SendMsg(&answer)
		} else if err != nil {
			return err
		}
		total += len(message)
	}
}

func down(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	count := 0
	fmt.Sscan(string(message), &count)
	for range count {
		if err := stream.SendMsg(&large); err != nil {
			return err
		}
	}
	return nil
}

func openChannels(h host.Host, target peer.ID) error {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return gostream.Dial(ctx, h, target, grpcID) }
	for range 2 {
		channel, err := grpc.NewClient("passthrough:///"+target.String(), grpc.WithContextDialer(dial),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(largest)))
		if err != nil {
			return err
		}
		channels = append(channels, channel)
	}
	return nil
}

func measureGRPC(ctx context.Context, h host.Host, target peer.ID, o order) (object, error) {
	if o.Do == "grpc_channel" {
		return object{}, openChannels(h, target)
	}
	if len(channels) < 2 {
		return nil, errors.New("no channel is open")
	}
	began := time.Now()
	switch o.Do {
	case "grpc_unary":
		ms, err := calls(ctx, int(o.Count))
		return object{"ms": ms}, err
	case "grpc_rate":
		err := manyCalls(ctx, int(o.Flight), int(o.Count/o.Flight))
		return object{"calls": o.Count / o.Flight * o.Flight, "seconds": time.Since(began).Seconds()}, err
	case "grpc_chat":
		err := talk(ctx, int(o.Count))
		return object{"messages": o.Count, "seconds": time.Since(began).Seconds()}, err
	case "grpc_up":
		err := upload(ctx, int(o.Mib))
		return object{"seconds": time.Since(began).Seconds()}, err
	case "grpc_down":
		var got atomic.Int64
		err := download(ctx, channels[0], int(o.Mib), &got)
		return object{"seconds": time.Since(began).Seconds()}, err
	case "grpc_loaded":
		return loaded(ctx, int(o.Count))
	}
	return nil, fmt.Errorf("unknown order %q", o.Do)
}

func calls(ctx context.Context, count int) ([]float64, error) {
	ms := []float64{}
	for range count {
		began, got := time.Now(), []byte{}
		if err := channels[0].Invoke(ctx, "/interop.Bytes/Echo", &small, &got); err != nil {
			return nil, err
		}
		ms = append(ms, float64(time.Since(began).Nanoseconds())/1e6)
	}
	return ms, nil
}

func manyCalls(ctx context.Context, flight, each int) error {
	var group sync.WaitGroup
	failed := make(chan error, flight)
	for range flight {
		group.Add(1)
		go func() {
			defer group.Done()
			_, err := calls(ctx, each)
			failed <- err
		}()
	}
	group.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

func open(ctx context.Context, channel *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	return channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/interop.Bytes/"+method)
}

func talk(ctx context.Context, count int) error {
	stream, err := open(ctx, channels[0], "Chat")
	if err != nil {
		return err
	}
	go func() {
		for range count {
			if stream.SendMsg(&small) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	for seen := 0; ; seen++ {
		var got []byte
		if err := stream.RecvMsg(&got); err == io.EOF && seen == count {
			return nil
		} else if err != nil {
			return fmt.Errorf("after %d of %d messages: %w", seen, count, err)
		}
	}
}

func upload(ctx context.Context, count int) error {
	stream, err := open(ctx, channels[0], "Up")
	if err != nil {
		return err
	}
	for range count {
		if err := stream.SendMsg(&large); err != nil {
			return err
		}
	}
	stream.CloseSend()
	var got []byte
	return stream.RecvMsg(&got)
}

func download(ctx context.Context, channel *grpc.ClientConn, count int, got *atomic.Int64) error {
	stream, err := open(ctx, channel, "Down")
	if err != nil {
		return err
	}
	wanted := []byte(fmt.Sprint(count))
	if err := stream.SendMsg(&wanted); err != nil {
		return err
	}
	stream.CloseSend()
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		got.Add(1)
	}
}

// loaded makes calls one after another while 1 MiB messages come in on the other channel.
func loaded(ctx context.Context, count int) (object, error) {
	bulk, stop := context.WithCancel(ctx)
	var moved atomic.Int64
	over := make(chan error, 1)
	go func() { over <- download(bulk, channels[1], 1_000_000, &moved) }()
	for moved.Load() == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	began, before := time.Now(), moved.Load()
	ms, err := calls(ctx, count)
	rate := float64(moved.Load()-before) * mib / 1e6 / time.Since(began).Seconds()
	stop()
	<-over
	return object{"ms": ms, "bulk": rate}, err
}

// flow receives for some seconds, and counts what came after the first `skip` of them.
func flow(ctx context.Context, h host.Host, target peer.ID, o order) (object, error) {
	s, err := h.NewStream(ctx, target, perfID)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if err := binary.Write(s, binary.BigEndian, uint64(1)<<40); err != nil {
		return nil, err
	}
	s.CloseWrite()
	began, counted, buffer := time.Now(), 0, make([]byte, 1<<18)
	for {
		n, err := s.Read(buffer)
		if err != nil {
			return nil, err
		}
		elapsed := time.Since(began).Seconds()
		if elapsed >= o.Skip {
			counted += n
		}
		if elapsed >= o.Seconds {
			return object{"rate": float64(counted) / 1e6 / (o.Seconds - o.Skip)}, nil
		}
	}
}

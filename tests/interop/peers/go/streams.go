// The stream protocols of the interop suite: echo, count, reset, slow and perf, both sides of each.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2p "github.com/libp2p/go-libp2p/core/protocol"
)

const (
	echoID  = "/interop/echo/1.0.0"
	countID = "/interop/count/1.0.0"
	resetID = "/interop/reset/1.0.0"
	slowID  = "/interop/slow/1.0.0"
	perfID  = "/perf/1.0.0"
	pause   = 2 * time.Second
)

func handle(h host.Host) {
	h.SetStreamHandler(echoID, func(s network.Stream) { finish(s, func() error { _, err := io.Copy(s, s); return err }) })
	h.SetStreamHandler(countID, func(s network.Stream) { finish(s, func() error { return tally(s, 0) }) })
	h.SetStreamHandler(slowID, func(s network.Stream) { finish(s, func() error { return tally(s, pause) }) })
	h.SetStreamHandler(resetID, func(s network.Stream) { io.ReadFull(s, make([]byte, 4)); s.Reset() })
	h.SetStreamHandler(perfID, func(s network.Stream) {
		finish(s, func() error {
			var wanted uint64
			if err := binary.Read(s, binary.BigEndian, &wanted); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, s); err != nil {
				return err
			}
			_, err := io.CopyN(s, zeros{}, int64(wanted))
			return err
		})
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func finish(s network.Stream, work func() error) {
	if err := work(); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

// tally reads to the end after a pause, then answers the number of bytes.
func tally(s network.Stream, wait time.Duration) error {
	time.Sleep(wait)
	n, err := io.Copy(io.Discard, s)
	if err != nil {
		return err
	}
	return binary.Write(s, binary.BigEndian, uint64(n))
}

func streams(ctx context.Context, h host.Host, target peer.ID, o order) (object, error) {
	protocol := map[string]string{"echo": echoID, "many": echoID, "count": countID, "reset": resetID, "slow": slowID,
		"perf": perfID}[o.Do]
	if protocol == "" {
		return nil, fmt.Errorf("unknown order %q", o.Do)
	}
	if o.Do == "many" {
		return atOnce(ctx, h, target, int(o.Count))
	}
	s, err := h.NewStream(ctx, target, libp2p.ID(protocol))
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline)
	switch o.Do {
	case "echo":
		return echoed(s, o.Size)
	case "count", "slow":
		return counted(s, o.Size)
	case "perf":
		return perf(s, o)
	}
	if _, err := s.Write(make([]byte, 4)); err != nil {
		return nil, err
	}
	_, err = io.ReadAll(s)
	seen := "end"
	if errors.Is(err, network.ErrReset) {
		seen = "reset"
	} else if err != nil {
		seen = err.Error()
	}
	return object{"seen": seen}, nil
}

func echoed(s network.Stream, size int64) (object, error) {
	began, sent, sentErr := time.Now(), sha256.New(), make(chan error, 1)
	go func() {
		_, err := io.Copy(s, io.TeeReader(io.LimitReader(rand.New(rand.NewSource(size)), size), sent))
		sentErr <- errors.Join(err, s.CloseWrite())
	}()
	received := sha256.New()
	n, err := io.Copy(received, s)
	if err = errors.Join(err, <-sentErr); err != nil {
		return nil, err
	}
	same := hex.EncodeToString(sent.Sum(nil)) == hex.EncodeToString(received.Sum(nil))
	return object{"bytes": n, "same": same, "seconds": time.Since(began).Seconds()}, nil
}

// counted also says how much the other side let us write in the first second.
func counted(s network.Stream, size int64) (object, error) {
	var written, early atomic.Int64
	timer := time.AfterFunc(time.Second, func() { early.Store(written.Load()) })
	defer timer.Stop()
	block := make([]byte, 65536)
	for left := size; left > 0; {
		n, err := s.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return nil, err
		}
		left -= int64(n)
		written.Add(int64(n))
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	var counted uint64
	if err := binary.Read(s, binary.BigEndian, &counted); err != nil {
		return nil, err
	}
	return object{"count": counted, "first_second": early.Load()}, nil
}

func perf(s network.Stream, o order) (object, error) {
	began := time.Now()
	if err := binary.Write(s, binary.BigEndian, uint64(o.Down)); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(s, zeros{}, o.Up); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	n, err := io.Copy(io.Discard, s)
	return object{"down": n, "seconds": time.Since(began).Seconds()}, err
}

// atOnce opens all streams, each known to be served, before it uses any further.
func atOnce(ctx context.Context, h host.Host, target peer.ID, count int) (object, error) {
	open := make([]network.Stream, count)
	for i := range open {
		s, err := h.NewStream(ctx, target, echoID)
		if err != nil {
			return nil, fmt.Errorf("stream %d: %w", i, err)
		}
		defer s.Reset()
		if _, err := s.Write([]byte{0}); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return nil, fmt.Errorf("stream %d: %w", i, err)
		}
		open[i] = s
	}
	var good atomic.Int64
	var all sync.WaitGroup
	for _, s := range open {
		all.Go(func() {
			if r, err := echoed(s, 1000); err == nil && r["same"] == true && r["bytes"] == int64(1000) {
				good.Add(1)
			}
		})
	}
	all.Wait()
	return object{"good": good.Load()}, nil
}

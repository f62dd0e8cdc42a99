// A go-libp2p peer for the interop suite: options as flags, orders and answers as JSON lines on stdin and stdout.
// It judges nothing; each answer says what this side saw.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

type object = map[string]any

// order is one line of stdin.
type order struct {
	ID                    int
	Do, Addr, Peer, Dial  string
	Size, Count, Up, Down int64
	Flight, Mib           int64
	Seconds, Skip         float64
}

var out sync.Mutex

func say(line object) {
	out.Lock()
	defer out.Unlock()
	data, _ := json.Marshal(line)
	os.Stdout.Write(append(data, '\n'))
}

type many []string

func (m *many) String() string     { return fmt.Sprint(*m) }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }

type tracer struct{}

func (tracer) Trace(e *holepunch.Event) {
	say(object{"event": "punch", "peer": e.Remote.String(), "kind": e.Type, "detail": e.Evt})
}

// renewals tells of AutoRelay's reservations: only its metrics know.
type renewals struct {
	autorelay.MetricsTracer
	at peer.ID
}

func (r renewals) ReservationRequestFinished(isRefresh bool, err error) {
	if err == nil {
		say(object{"event": "reservation", "relay": r.at.String(), "renewal": isRefresh})
	}
}

func main() {
	var listen many
	flag.Var(&listen, "listen", "multiaddr to listen on")
	serve := flag.Bool("relay", false, "serve as a relay")
	bytes := flag.Int64("limit-bytes", 0, "data limit of a circuit, 0: none")
	seconds := flag.Int("limit-seconds", 0, "duration limit of a circuit, 0: none")
	reservations := flag.Int("reservations", 128, "reservations given at most")
	ttl := flag.Int("ttl", 3600, "seconds of a reservation")
	circuits := flag.Int("circuits", 16, "circuits of one peer at most")
	keeper := flag.String("autorelay", "", "relay at which AutoRelay keeps a reservation")
	punch := flag.Bool("punch", false, "run DCUtR")
	nat := flag.Bool("autonat", false, "run AutoNAT v2, client and server")
	identity := flag.String("identity", "", "its private key, the libp2p message in hexadecimal; a fresh Ed25519 key without")
	observers := flag.Int("observers", 4, "observers needed before an observed address counts")
	flag.Parse()
	observedaddrs.ActivationThresh = *observers

	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits),
		rcmgr.WithLimitPerSubnet(nil, nil))
	die(err)
	keep, err := connmgr.NewConnManager(1000, 2000)
	die(err)
	options := []libp2p.Option{
		libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(quic.NewTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.ListenAddrStrings(listen...), libp2p.EnableRelay(),
		libp2p.DisableMetrics(), libp2p.ResourceManager(limits), libp2p.ConnectionManager(keep),
		libp2p.UserAgent("go-libp2p/" + version()),
	}
	if *identity != "" {
		data, err := hex.DecodeString(*identity)
		die(err)
		key, err := crypto.UnmarshalPrivateKey(data)
		die(err)
		options = append(options, libp2p.Identity(key))
	}
	if *punch {
		options = append(options, libp2p.EnableHolePunching(holepunch.WithTracer(tracer{})))
	}
	if *nat {
		options = append(options, libp2p.EnableAutoNATv2())
	}
	if *keeper != "" {
		at, err := peer.AddrInfoFromString(*keeper)
		die(err)
		traced := autorelay.WithMetricsTracer(renewals{autorelay.NewMetricsTracer(), at.ID})
		options = append(options, libp2p.EnableAutoRelayWithStaticRelays([]peer.AddrInfo{*at}, traced), libp2p.ForceReachabilityPrivate())
	}
	h, err := libp2p.New(options...)
	die(err)
	if *serve {
		resources := relay.DefaultResources()
		resources.MaxReservations, resources.MaxReservationsPerIP, resources.MaxReservationsPerASN = *reservations, 1000, 1000
		resources.ReservationTTL, resources.MaxCircuits = time.Duration(*ttl)*time.Second, *circuits
		// To it a limit of 0 is none left, so what is unlimited gets a large figure.
		resources.Limit = &relay.RelayLimit{Data: cmp.Or(*bytes, 1<<40), Duration: time.Second * time.Duration(cmp.Or(*seconds, 86400))}
		_, err = relay.New(h, relay.WithResources(resources), relay.WithReservationAddressFilter(everything))
		die(err)
	}
	handle(h)
	serveGRPC(h)
	go watch(h)
	addrs := []string{}
	for _, a := range h.Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err != nil { // it also listens on /p2p-circuit
			addrs = append(addrs, a.String()+"/p2p/"+h.ID().String())
		}
	}
	say(object{"event": "ready", "peer": h.ID().String(), "addrs": addrs, "version": "go-libp2p " + version()})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var o order
		die(json.Unmarshal(lines.Bytes(), &o))
		go func() {
			ok, err := obey(h, o)
			if err != nil {
				say(object{"id": o.ID, "error": err.Error()})
			} else {
				say(object{"id": o.ID, "ok": ok})
			}
		}()
	}
	h.Close()
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// everything lets a relay announce loopback addresses too.
func everything(ma.Multiaddr) bool { return true }

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == "github.com/libp2p/go-libp2p" {
			return m.Version
		}
	}
	return "unknown"
}

func describe(c network.Conn) object {
	_, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT)
	return object{"peer": c.RemotePeer().String(), "local": c.LocalMultiaddr().String(),
		"remote": c.RemoteMultiaddr().String(), "relay": err == nil, "inbound": c.Stat().Direction == network.DirInbound,
		"early_muxer": c.ConnState().UsedEarlyMuxerNegotiation}
}

// watch prints connections and AutoNAT results as they come.
func watch(h host.Host) {
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { d := describe(c); d["event"] = "opened"; say(d) },
		DisconnectedF: func(_ network.Network, c network.Conn) { d := describe(c); d["event"] = "closed"; say(d) },
	})
	sub, err := h.EventBus().Subscribe([]any{new(event.EvtHostReachableAddrsChanged), new(event.EvtLocalAddressesUpdated)})
	die(err)
	for e := range sub.Out() {
		switch e := e.(type) {
		case event.EvtHostReachableAddrsChanged:
			say(object{"event": "autonat", "reachable": texts(e.Reachable), "unreachable": texts(e.Unreachable)})
		case event.EvtLocalAddressesUpdated:
			say(object{"event": "addrs", "addrs": texts(h.Addrs())})
		}
	}
}

func texts(addrs []ma.Multiaddr) []string {
	found := []string{}
	for _, a := range addrs {
		found = append(found, a.String())
	}
	return found
}

// obey carries out one order within 60 s.
func obey(h host.Host, o order) (object, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = network.WithAllowLimitedConn(ctx, "interop")
	target, _ := peer.Decode(o.Peer)
	switch o.Do {
	case "dial", "reserve":
		info, err := peer.AddrInfoFromString(o.Addr)
		if err != nil {
			return nil, err
		}
		if o.Do == "dial" {
			h.Peerstore().ClearAddrs(info.ID) // or it dials what identify told it, too
			return object{"peer": info.ID.String()}, h.Connect(ctx, *info)
		}
		got, err := client.Reserve(ctx, h, *info)
		if err != nil {
			return nil, err
		}
		found := []string{}
		for _, a := range got.Addrs {
			found = append(found, fmt.Sprintf("%s/p2p-circuit/p2p/%s", a, h.ID()))
		}
		// Holding a reservation means keeping the connection to the relay.
		h.ConnManager().Protect(info.ID, "relay")
		return object{"addrs": found, "expires": got.Expiration.Unix(), "limit_bytes": got.LimitData,
			"limit_seconds": int(got.LimitDuration.Seconds()), "voucher": got.Voucher != nil}, nil
	case "listen":
		wanted, err := ma.NewMultiaddr(o.Addr)
		if err != nil {
			return nil, err
		}
		before := texts(h.Network().ListenAddresses())
		if err := h.Network().Listen(wanted); err != nil {
			return nil, err
		}
		after := texts(h.Network().ListenAddresses())
		added := slices.DeleteFunc(after, func(a string) bool { return slices.Contains(before, a) })
		return object{"addr": added[0]}, nil
	case "conns":
		found := []object{}
		for _, c := range h.Network().ConnsToPeer(target) {
			found = append(found, describe(c))
		}
		return object{"conns": found}, nil
	case "forget":
		h.Peerstore().RemovePeer(target)
		return object{}, nil
	case "close":
		return object{}, h.Network().ClosePeer(target)
	case "ping":
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		ms, results := []float64{}, ping.Ping(ctx, h, target)
		for range o.Count {
			r := <-results
			if r.Error != nil {
				return nil, r.Error
			}
			ms = append(ms, float64(r.RTT.Microseconds())/1000)
		}
		return object{"ms": ms}, nil
	case "identify":
		return identified(ctx, h, target)
	case "grpc":
		return callGRPC(ctx, h, target, int(o.Size))
	case "flow":
		return flow(ctx, h, target, o)
	}
	if strings.HasPrefix(o.Do, "grpc_") {
		return measureGRPC(ctx, h, target, o)
	}
	return streams(ctx, h, target, o)
}

func identified(ctx context.Context, h host.Host, target peer.ID) (object, error) {
	for ctx.Err() == nil {
		agent, err := h.Peerstore().Get(target, "AgentVersion")
		protocols, _ := h.Peerstore().GetProtocols(target)
		if err == nil && len(protocols) > 0 {
			return object{"agent": agent, "protocols": protocols, "listen": texts(h.Peerstore().Addrs(target)),
				"own": texts(h.Addrs())}, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.New("no identify")
}

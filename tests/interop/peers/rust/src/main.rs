//! A rust-libp2p peer for the interop suite: options as flags, orders and answers as JSON lines on stdin and stdout.
//! It judges nothing; each answer says what this side saw.

mod streams;

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, autonat, core::{ConnectedPoint, transport::ListenerId}, dcutr, identify, identity::PublicKey,
    multiaddr::Protocol, noise, ping, relay, swarm::behaviour::toggle::Toggle, swarm::dial_opts::DialOpts,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent}, tcp, yamux,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: Toggle<dcutr::Behaviour>,
    autonat: Toggle<autonat::v2::client::Behaviour>,
    autonat_server: Toggle<autonat::v2::server::Behaviour>,
    stream: libp2p_stream::Behaviour,
}

type Answer = Result<Value, String>;

pub fn say(line: Value) {
    println!("{line}");
}

/// `--name value` or `--name`; the values of a flag that may be repeated.
fn flag(name: &str) -> Vec<String> {
    let all: Vec<String> = std::env::args().collect();
    let at = all.iter().enumerate().filter(|(_, a)| a.trim_start_matches('-') == name);
    at.map(|(i, _)| all.get(i + 1).cloned().unwrap_or_default()).collect()
}

fn number(name: &str, otherwise: u64) -> u64 {
    flag(name).first().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn on(name: &str) -> bool {
    !flag(name).is_empty()
}

fn version() -> String {
    let line = include_str!("../Cargo.toml").lines().find(|l| l.starts_with("libp2p ")).unwrap_or_default();
    line.split("\"=").nth(1).and_then(|l| l.split('"').next()).unwrap_or("unknown").to_owned()
}

fn relay_config() -> relay::Config {
    let mut config = relay::Config::default();
    config.max_reservations = number("reservations", 128) as usize;
    config.max_circuits = 1000;
    config.max_circuits_per_peer = 1000;
    config.reservation_duration = Duration::from_secs(number("ttl", 3600));
    config.reservation_rate_limiters.clear();
    config.circuit_src_rate_limiters.clear();
    config.max_circuit_bytes = number("limit-bytes", 0);
    config.max_circuit_duration = match number("limit-seconds", 0) {
        0 => Duration::from_secs(24 * 3600),
        seconds => Duration::from_secs(seconds),
    };
    config
}

fn behaviour(key: PublicKey, client: relay::client::Behaviour) -> Behaviour {
    let id = key.to_peer_id();
    let agent = format!("rust-libp2p/{}", version());
    Behaviour {
        identify: identify::Behaviour::new(identify::Config::new("/interop/1.0.0".into(), key)
            .with_agent_version(agent).with_push_listen_addr_updates(true)),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(1))),
        client,
        relay: on("relay").then(|| relay::Behaviour::new(id, relay_config())).into(),
        dcutr: on("punch").then(|| dcutr::Behaviour::new(id)).into(),
        autonat: on("autonat").then(autonat::v2::client::Behaviour::default).into(),
        autonat_server: on("autonat").then(autonat::v2::server::Behaviour::default).into(),
        stream: libp2p_stream::Behaviour::new(),
    }
}

/// What is under way and known; orders that wait are answered from here.
#[derive(Default)]
struct State {
    dials: HashMap<ConnectionId, u64>,
    reserving: HashMap<PeerId, u64>,
    pings: HashMap<PeerId, (u64, usize, Vec<f64>)>,
    listening: HashMap<ListenerId, u64>,
    asked: HashMap<PeerId, u64>,
    known: HashMap<PeerId, Value>,
    limits: HashMap<PeerId, Value>,
    connections: HashMap<ConnectionId, (PeerId, Value)>,
}

fn answer(id: u64, result: Answer) {
    match result {
        Ok(value) => say(json!({"id": id, "ok": value})),
        Err(text) => say(json!({"id": id, "error": text})),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, client| behaviour(key.public(), client))?
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    streams::serve(swarm.behaviour().stream.new_control());
    let own = *swarm.local_peer_id();
    let mut addrs = Vec::new();
    for addr in flag("listen") {
        let listener = swarm.listen_on(addr.parse()?)?;
        loop {
            if let SwarmEvent::NewListenAddr { listener_id, address } = swarm.select_next_some().await {
                if on("relay") {
                    swarm.add_external_address(address.clone());
                }
                addrs.push(format!("{address}/p2p/{own}"));
                if listener_id == listener {
                    break;
                }
            }
        }
    }
    say(json!({"event": "ready", "peer": own.to_string(), "addrs": addrs, "version": format!("rust-libp2p {}", version())}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut state = State::default();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => obey(&mut swarm, &mut state, serde_json::from_str(&line)?),
                None => return Ok(()),
            },
            event = swarm.select_next_some() => on_event(&mut swarm, &mut state, event),
        }
    }
}

fn obey(swarm: &mut Swarm<Behaviour>, state: &mut State, order: Value) {
    let id = order["id"].as_u64().unwrap_or_default();
    if let Err(text) = try_obey(swarm, state, id, &order) {
        answer(id, Err(text));
    }
}

fn try_obey(swarm: &mut Swarm<Behaviour>, state: &mut State, id: u64, order: &Value) -> Result<(), String> {
    let peer = || order["peer"].as_str().unwrap_or_default().parse::<PeerId>().map_err(|e| e.to_string());
    let addr = || order["addr"].as_str().unwrap_or_default().parse::<Multiaddr>().map_err(|e| e.to_string());
    match order["do"].as_str().unwrap_or_default() {
        "dial" => {
            let options = DialOpts::from(addr()?);
            state.dials.insert(options.connection_id(), id);
            swarm.dial(options).map_err(|e| e.to_string())?;
        }
        "reserve" => {
            let relay = addr()?;
            let Some(Protocol::P2p(peer)) = relay.iter().last() else { return Err("no relay id".into()) };
            state.reserving.insert(peer, id);
            swarm.listen_on(relay.with(Protocol::P2pCircuit)).map_err(|e| e.to_string())?;
        }
        "listen" => {
            let listener = swarm.listen_on(addr()?).map_err(|e| e.to_string())?;
            state.listening.insert(listener, id);
        }
        "conns" => {
            let peer = peer()?;
            let found: Vec<&Value> = state.connections.values().filter(|(p, _)| *p == peer).map(|(_, v)| v).collect();
            answer(id, Ok(json!({"conns": found})));
        }
        "close" => {
            let _ = swarm.disconnect_peer_id(peer()?);
            answer(id, Ok(json!({})));
        }
        "ping" => {
            state.pings.insert(peer()?, (id, order["count"].as_u64().unwrap_or(1) as usize, Vec::new()));
        }
        "identify" => match state.known.get(&peer()?) {
            Some(info) => answer(id, Ok(info.clone())),
            None => drop(state.asked.insert(peer()?, id)),
        },
        _ => {
            let (control, peer, order) = (swarm.behaviour().stream.new_control(), peer()?, order.clone());
            tokio::spawn(async move {
                let (done, result) = oneshot::channel();
                tokio::spawn(async move { drop(done.send(streams::perform(control, peer, &order).await)) });
                let limited = tokio::time::timeout(Duration::from_secs(60), result).await;
                answer(id, limited.map_err(|e| e.to_string()).and_then(|r| r.unwrap_or(Err("panicked".into()))));
            });
        }
    }
    Ok(())
}

fn describe(peer: PeerId, endpoint: &ConnectedPoint) -> Value {
    let (local, remote) = match endpoint {
        ConnectedPoint::Dialer { address, .. } => (String::new(), address.to_string()),
        ConnectedPoint::Listener { local_addr, send_back_addr } => (local_addr.to_string(), send_back_addr.to_string()),
    };
    json!({"peer": peer.to_string(), "local": local, "remote": remote, "relay": endpoint.is_relayed(),
           "inbound": endpoint.is_listener()})
}

fn with_event(mut value: Value, name: &str) -> Value {
    value["event"] = name.into();
    value
}

fn on_event(swarm: &mut Swarm<Behaviour>, state: &mut State, event: SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
            let described = describe(peer_id, &endpoint);
            say(with_event(described.clone(), "opened"));
            state.connections.insert(connection_id, (peer_id, described));
            if let Some(id) = state.dials.remove(&connection_id) {
                answer(id, Ok(json!({"peer": peer_id.to_string()})));
            }
        }
        SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
            if let Some((_, described)) = state.connections.remove(&connection_id) {
                let mut line = with_event(described, "closed");
                line["cause"] = cause.map(|c| c.to_string()).into();
                say(line);
            }
        }
        SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
            if let Some(id) = state.dials.remove(&connection_id) {
                answer(id, Err(chain(&error)));
            }
        }
        SwarmEvent::NewListenAddr { listener_id, address } => {
            if let Some(id) = state.listening.remove(&listener_id) {
                answer(id, Ok(json!({"addr": address.to_string()})));
            }
            let relay = address.iter().find_map(|p| if let Protocol::P2p(peer) = p { Some(peer) } else { None });
            say(json!({"event": "listening", "addr": address.to_string()}));
            if let Some((relay, id)) = relay.and_then(|r| state.reserving.remove(&r).map(|id| (r, id))) {
                let mut result = state.limits.get(&relay).cloned().unwrap_or(json!({}));
                result["addrs"] = json!([address.to_string()]);
                answer(id, Ok(result));
            }
        }
        SwarmEvent::ListenerClosed { reason, addresses, .. } => {
            say(json!({"event": "listener_closed", "addrs": addresses.iter().map(|a| a.to_string()).collect::<Vec<_>>()}));
            if let Err(error) = reason {
                for (_, id) in state.reserving.drain() {
                    answer(id, Err(chain(&error)));
                }
            }
        }
        SwarmEvent::Behaviour(event) => on_behaviour(swarm, state, event),
        _ => {}
    }
}

/// An error with its causes: the status of a relay is deep in it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source()).map(|e| e.to_string());
    std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ")
}

fn on_behaviour(swarm: &mut Swarm<Behaviour>, state: &mut State, event: BehaviourEvent) {
    match event {
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            let texts = |list: &[Multiaddr]| list.iter().map(|a| a.to_string()).collect::<Vec<_>>();
            let protocols: Vec<String> = info.protocols.iter().map(|p| p.to_string()).collect();
            let known = json!({"agent": info.agent_version, "protocols": protocols, "listen": texts(&info.listen_addrs),
                "observed": info.observed_addr.to_string(),
                "own": swarm.external_addresses().map(|a| a.to_string()).collect::<Vec<_>>()});
            say(json!({"event": "identified", "peer": peer_id.to_string(), "listen": known["listen"]}));
            if let Some(id) = state.asked.remove(&peer_id) {
                answer(id, Ok(known.clone()));
            }
            state.known.insert(peer_id, known);
        }
        BehaviourEvent::Ping(ping::Event { peer, result, .. }) => {
            let Some((id, count, times)) = state.pings.get_mut(&peer) else { return };
            let done = match result {
                Ok(time) => {
                    times.push(time.as_secs_f64() * 1000.0);
                    (times.len() >= *count).then(|| Ok(json!({"ms": times})))
                }
                Err(error) => Some(Err(error.to_string())),
            };
            if let Some(done) = done {
                answer(*id, done);
                state.pings.remove(&peer);
            }
        }
        BehaviourEvent::Client(relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, limit }) => {
            let bytes = limit.as_ref().and_then(|l| l.data_in_bytes());
            let seconds = limit.as_ref().and_then(|l| l.duration()).map(|d| d.as_secs());
            say(json!({"event": "reservation", "relay": relay_peer_id.to_string(), "renewal": renewal}));
            state.limits.insert(relay_peer_id, json!({"limit_bytes": bytes, "limit_seconds": seconds}));
        }
        BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result }) => {
            let error = result.as_ref().err().map(|e| chain(e));
            say(json!({"event": "punch", "peer": remote_peer_id.to_string(), "ok": result.is_ok(), "error": error}));
        }
        BehaviourEvent::Autonat(autonat::v2::client::Event { tested_addr, server, bytes_sent, result }) => {
            say(json!({"event": "autonat", "addr": tested_addr.to_string(), "server": server.to_string(),
                "bytes": bytes_sent, "ok": result.is_ok(), "error": result.err().map(|e| e.to_string())}));
        }
        _ => {}
    }
}

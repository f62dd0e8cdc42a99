//! What the swarm reports: told as events, and the answers of orders that waited for it.

use libp2p::{Multiaddr, PeerId, Swarm, autonat, core::ConnectedPoint, dcutr, identify, multiaddr::Protocol, ping, relay, swarm::SwarmEvent};
use serde_json::{Value, json};

use crate::{Behaviour, BehaviourEvent, orders::{State, answer}, say};

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

pub fn on_event(swarm: &mut Swarm<Behaviour>, state: &mut State, event: SwarmEvent<BehaviourEvent>) {
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
pub fn chain(error: &dyn std::error::Error) -> String {
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

//! Orders of the suite, carried out on the swarm; what has to wait is kept in `State` for the events to answer.

use std::{collections::HashMap, time::Duration};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId, Swarm, core::transport::ListenerId, multiaddr::Protocol, swarm::ConnectionId, swarm::dial_opts::DialOpts,
};
use serde_json::{Value, json};

use crate::{Behaviour, grpc, say, streams};

type Answer = Result<Value, String>;

/// What is under way and known; orders that wait are answered from here.
#[derive(Default)]
pub struct State {
    pub dials: HashMap<ConnectionId, u64>,
    pub reserving: HashMap<PeerId, u64>,
    pub pings: HashMap<PeerId, (u64, usize, Vec<f64>)>,
    pub listening: HashMap<ListenerId, u64>,
    pub asked: HashMap<PeerId, u64>,
    pub known: HashMap<PeerId, Value>,
    pub limits: HashMap<PeerId, Value>,
    pub connections: HashMap<ConnectionId, (PeerId, Value)>,
}

pub fn answer(id: u64, result: Answer) {
    match result {
        Ok(value) => say(json!({"id": id, "ok": value})),
        Err(text) => say(json!({"id": id, "error": text})),
    }
}

pub fn obey(swarm: &mut Swarm<Behaviour>, state: &mut State, order: Value) {
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
        "forget" => {
            state.known.remove(&peer()?);
            answer(id, Ok(json!({})));
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
                tokio::spawn(async move { drop(done.send(perform(control, peer, &order).await)) });
                let limited = tokio::time::timeout(Duration::from_secs(60), result).await;
                answer(id, limited.map_err(|e| e.to_string()).and_then(|r| r.unwrap_or(Err("panicked".into()))));
            });
        }
    }
    Ok(())
}

async fn perform(control: libp2p_stream::Control, peer: PeerId, order: &Value) -> Answer {
    match order["do"].as_str() {
        Some("grpc") => grpc::call(control, peer, order["size"].as_u64().unwrap_or_default()).await,
        _ => streams::perform(control, peer, order).await,
    }
}

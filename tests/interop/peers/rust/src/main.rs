//! A rust-libp2p peer for the interop suite: options as flags, orders and answers as JSON lines on stdin and stdout.
//! It judges nothing; each answer says what this side saw.

mod events;
mod grpc;
mod orders;
mod streams;

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    SwarmBuilder, autonat, dcutr, identify, identity::{Keypair, PublicKey}, noise, ping, relay, swarm::behaviour::toggle::Toggle,
    swarm::{NetworkBehaviour, SwarmEvent}, tcp, yamux,
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

/// Its key: the libp2p message in hexadecimal that it was given, or a fresh Ed25519 key.
fn identity() -> Result<Keypair, Box<dyn std::error::Error>> {
    let Some(text) = flag("identity").into_iter().next() else { return Ok(Keypair::generate_ed25519()) };
    let bytes: Result<Vec<u8>, _> = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16)).collect();
    Ok(Keypair::from_protobuf_encoding(&bytes?)?)
}

/// The version of a dependency, as it is pinned.
fn version(of: &str) -> String {
    let start = format!("{of} ");
    let line = include_str!("../Cargo.toml").lines().find(|l| l.starts_with(&start)).unwrap_or_default();
    line.split("\"=").nth(1).and_then(|l| l.split('"').next()).unwrap_or("unknown").to_owned()
}

fn relay_config() -> relay::Config {
    let mut config = relay::Config::default();
    config.max_reservations = number("reservations", 128) as usize;
    config.max_circuits = number("circuits", 1000) as usize;
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
    let agent = format!("rust-libp2p/{}", version("libp2p"));
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut swarm = SwarmBuilder::with_existing_identity(identity()?)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, client| behaviour(key.public(), client))?
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    streams::serve(swarm.behaviour().stream.new_control());
    grpc::serve(swarm.behaviour().stream.new_control());
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
    let versions = format!("rust-libp2p {}, tonic {}", version("libp2p"), version("tonic"));
    say(json!({"event": "ready", "peer": own.to_string(), "addrs": addrs, "version": versions}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut state = orders::State::default();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => orders::obey(&mut swarm, &mut state, serde_json::from_str(&line)?),
                None => return Ok(()),
            },
            event = swarm.select_next_some() => events::on_event(&mut swarm, &mut state, event),
        }
    }
}

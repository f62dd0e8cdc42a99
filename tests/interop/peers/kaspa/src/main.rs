//! Kaspa's own P2P library as a peer of the interop suite: its server, client, router and handshake, with flows that
//! answer pings and count. Orders and answers are JSON lines on stdin and stdout.

use std::{
    collections::BTreeMap, str::FromStr, sync::Arc, sync::Mutex, time::Duration,
    time::{SystemTime, UNIX_EPOCH},
};

use kaspa_p2p_lib::{
    Adaptor, ConnectionInitializer, Hub, IncomingRoute, KaspadHandshake, KaspadMessagePayloadType as Kind, Router,
    common::ProtocolError,
    make_message,
    pb::{InvTransactionsMessage, PingMessage, PongMessage, RequestAddressesMessage, VersionMessage, kaspad_message::Payload},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

fn say(line: Value) {
    println!("{line}");
}

fn flag(name: &str, otherwise: &str) -> String {
    let all: Vec<String> = std::env::args().collect();
    let at = all.iter().position(|a| a.trim_start_matches('-') == name);
    at.and_then(|i| all.get(i + 1).cloned()).unwrap_or(otherwise.to_owned())
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Shakes hands with the version and network of the flags, then serves the flows.
struct Initializer {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    routers: Arc<Mutex<Vec<Arc<Router>>>>,
    version: u32,
    network: String,
}

impl Initializer {
    async fn shake(&self, router: &Arc<Router>) -> Result<VersionMessage, ProtocolError> {
        let mut handshake = KaspadHandshake::new(router);
        router.start();
        let ours = VersionMessage {
            protocol_version: self.version,
            timestamp: unix_ms(),
            id: Vec::from(uuid::Uuid::new_v4().as_bytes()),
            user_agent: "/kaspa-p2p-lib:2.1.0/".to_owned(),
            network: self.network.clone(),
            ..Default::default()
        };
        let theirs = handshake.handshake(ours).await?;
        if theirs.network != self.network {
            return Err(ProtocolError::WrongNetwork(self.network.clone(), theirs.network));
        }
        let route = router.subscribe(vec![
            Kind::Ping, Kind::Pong, Kind::Addresses, Kind::RequestAddresses, Kind::InvTransactions,
            Kind::RequestTransactions, Kind::Transaction, Kind::TransactionNotFound, Kind::InvRelayBlock,
            Kind::RequestRelayBlocks, Kind::Block, Kind::Reject,
        ]);
        tokio::spawn(flows(router.clone(), route, self.counts.clone()));
        handshake.exchange_ready_messages().await?;
        Ok(theirs)
    }
}

#[tonic::async_trait]
impl ConnectionInitializer for Initializer {
    async fn initialize_connection(&self, router: Arc<Router>) -> Result<(), ProtocolError> {
        let result = self.shake(&router).await;
        match &result {
            Ok(theirs) => {
                say(json!({"event": "handshake", "outbound": router.is_outbound(), "user_agent": theirs.user_agent,
                    "protocol": theirs.protocol_version, "network": theirs.network}));
                self.routers.lock().unwrap().push(router);
            }
            Err(error) => say(json!({"event": "refused", "outbound": router.is_outbound(), "error": error.to_string()})),
        }
        result.map(|_| ())
    }
}

async fn flows(router: Arc<Router>, mut route: IncomingRoute, counts: Arc<Mutex<BTreeMap<String, u64>>>) {
    while let Some(message) = route.recv().await {
        let Some(payload) = message.payload else { continue };
        *counts.lock().unwrap().entry(format!("{:?}", Kind::from(&payload))).or_default() += 1;
        let answer = match payload {
            Payload::Ping(ping) => make_message!(Payload::Pong, PongMessage { nonce: ping.nonce }),
            Payload::RequestAddresses(_) => make_message!(Payload::Addresses, Default::default()),
            _ => continue,
        };
        if router.enqueue(answer).await.is_err() {
            break;
        }
    }
    say(json!({"event": "ended"}));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let initializer = Arc::new(Initializer {
        counts: Default::default(),
        routers: Default::default(),
        version: flag("protocol", "10").parse()?,
        network: flag("network", "kaspa-devnet"),
    });
    let serve = kaspa_utils::networking::NetAddress::from_str(&flag("serve", ""))?;
    let adaptor = Adaptor::bidirectional(serve, Hub::new(), initializer.clone(), Default::default())?;
    say(json!({"event": "ready", "peer": "", "addrs": [flag("serve", "")], "version": "kaspa-p2p-lib 2.1.0"}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let order: Value = serde_json::from_str(&line)?;
        let (initializer, adaptor) = (initializer.clone(), adaptor.clone());
        tokio::spawn(async move {
            match obey(&order, &initializer, &adaptor).await {
                Ok(value) => say(json!({"id": order["id"], "ok": value})),
                Err(text) => say(json!({"id": order["id"], "error": text})),
            }
        });
    }
    Ok(())
}

async fn obey(order: &Value, initializer: &Initializer, adaptor: &Adaptor) -> Result<Value, String> {
    match order["do"].as_str().unwrap_or_default() {
        "connect" => {
            let addr = order["addr"].as_str().unwrap_or_default().to_owned();
            adaptor.connect_peer_with_retries(addr, 3, Duration::from_secs(1)).await.map_err(|e| e.to_string())?;
        }
        "talk" => {
            let routers = initializer.routers.lock().unwrap().clone();
            let router = routers.last().ok_or("nobody is connected")?;
            for message in [
                make_message!(Payload::Ping, PingMessage { nonce: 7 }),
                make_message!(Payload::RequestAddresses, RequestAddressesMessage::default()),
                make_message!(Payload::InvTransactions, InvTransactionsMessage::default()),
            ] {
                router.enqueue(message).await.map_err(|e| e.to_string())?;
            }
        }
        "counts" => {}
        other => return Err(format!("unknown order {other:?}")),
    }
    Ok(json!({"counts": *initializer.counts.lock().unwrap(), "active": adaptor.active_peers().len()}))
}

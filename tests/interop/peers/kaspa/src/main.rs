//! Kaspa's own P2P library as a peer of the interop suite: its server, client, router and handshake, with flows that
//! ping as kaspad does, answer, exchange inventories by its own hashes, and count. Orders and answers are JSON lines.

use std::{
    collections::{BTreeMap, HashMap}, str::FromStr, sync::Arc, sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kaspa_consensus_core::{block::Block, header::Header, subnets::SUBNETWORK_ID_NATIVE, tx::Transaction};
use kaspa_p2p_lib::{
    Adaptor, ConnectionInitializer, Hub, IncomingRoute, KaspadHandshake, KaspadMessagePayloadType as Kind, Router,
    common::ProtocolError,
    dequeue_with_timeout, make_message, make_request, make_response,
    pb::{
        BlockMessage, Hash, InvRelayBlockMessage, InvTransactionsMessage, KaspadMessage, PingMessage, PongMessage,
        RequestAddressesMessage, RequestRelayBlocksMessage, RequestTransactionsMessage, TransactionId,
        TransactionMessage, TransactionNotFoundMessage, VersionMessage, kaspad_message::Payload,
    },
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

fn say(line: Value) {
    println!("{line}");
}

/// The library tells the reason of a Reject to its log and to nobody else.
struct Rejects;

impl log::Log for Rejects {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let text = record.args().to_string();
        if let Some((_, reason)) = text.split_once("got reject message: ") {
            say(json!({"event": "rejected", "reason": reason.split(" from peer: ").next()}));
        }
    }

    fn flush(&self) {}
}

fn flag(name: &str, otherwise: &str) -> String {
    let all: Vec<String> = std::env::args().collect();
    let at = all.iter().position(|a| a.trim_start_matches('-') == name);
    at.and_then(|i| all.get(i + 1).cloned()).unwrap_or(otherwise.to_owned())
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

fn nonce() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// What came, and what can be asked for, by id.
#[derive(Default)]
struct Store {
    counts: BTreeMap<String, u64>,
    transactions: HashMap<Vec<u8>, TransactionMessage>,
    blocks: HashMap<Vec<u8>, BlockMessage>,
}

type Shared = Arc<Mutex<Store>>;

/// Shakes hands with the version and network of the flags, then serves the flows.
struct Initializer {
    store: Shared,
    routers: Arc<Mutex<Vec<Arc<Router>>>>,
    version: u32,
    minimum: u32,
    network: String,
    ping: Duration,
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
        if theirs.protocol_version < self.minimum {
            return Err(ProtocolError::VersionMismatch(self.minimum, theirs.protocol_version));
        }
        let route = router.subscribe(vec![
            Kind::Ping, Kind::Addresses, Kind::RequestAddresses, Kind::InvTransactions, Kind::RequestTransactions,
            Kind::Transaction, Kind::TransactionNotFound, Kind::InvRelayBlock, Kind::RequestRelayBlocks,
        ]);
        let pongs = router.subscribe(vec![Kind::Pong]);
        tokio::spawn(flows(router.clone(), route, self.store.clone()));
        handshake.exchange_ready_messages().await?;
        tokio::spawn(pings(router.clone(), pongs, self.ping));
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

/// A Ping each interval; its Pong must bring the nonce back within 120 s, else the connection is closed.
async fn pings(router: Arc<Router>, mut pongs: IncomingRoute, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let (nonce, began) = (nonce(), Instant::now());
        if router.enqueue(make_message!(Payload::Ping, PingMessage { nonce })).await.is_err() {
            return;
        }
        match dequeue_with_timeout!(pongs, Payload::Pong) {
            Ok(pong) if pong.nonce == nonce => say(json!({"event": "pinged", "ms": began.elapsed().as_millis() as u64})),
            other => {
                say(json!({"event": "unanswered", "what": format!("{other:?}")}));
                router.close().await;
                return;
            }
        }
    }
}

async fn flows(router: Arc<Router>, mut route: IncomingRoute, store: Shared) {
    let id = route.id();
    while let Some(message) = route.recv().await {
        for answer in answers(message, id, &store) {
            if router.enqueue(answer).await.is_err() {
                break;
            }
        }
    }
    say(json!({"event": "ended"}));
}

/// What a message is answered with; bodies that came are kept under the ids that Kaspa's consensus code computes.
fn answers(message: KaspadMessage, route: u32, store: &Shared) -> Vec<KaspadMessage> {
    let Some(payload) = message.payload else { return vec![] };
    let mut store = store.lock().unwrap();
    *store.counts.entry(format!("{:?}", Kind::from(&payload))).or_default() += 1;
    match payload {
        Payload::Ping(ping) => vec![make_message!(Payload::Pong, PongMessage { nonce: ping.nonce })],
        Payload::RequestAddresses(_) => vec![make_message!(Payload::Addresses, Default::default())],
        Payload::InvTransactions(inv) => {
            let ids: Vec<_> = inv.ids.into_iter().filter(|id| !store.transactions.contains_key(&id.bytes)).collect();
            vec![make_message!(Payload::RequestTransactions, RequestTransactionsMessage { ids })]
        }
        Payload::RequestTransactions(request) => {
            let answer = |id: TransactionId| match store.transactions.get(&id.bytes) {
                Some(body) => make_message!(Payload::Transaction, body.clone()),
                None => make_message!(Payload::TransactionNotFound, TransactionNotFoundMessage { id: Some(id) }),
            };
            request.ids.into_iter().map(answer).collect()
        }
        Payload::Transaction(body) => {
            match Transaction::try_from(body.clone()) {
                Ok(found) => drop(store.transactions.insert(found.id().as_bytes().to_vec(), body)),
                Err(error) => say(json!({"event": "invalid", "what": error.to_string()})),
            }
            vec![]
        }
        Payload::InvRelayBlock(inv) => {
            let hashes = inv.hash.into_iter().collect();
            vec![make_request!(Payload::RequestRelayBlocks, RequestRelayBlocksMessage { hashes }, route)]
        }
        Payload::RequestRelayBlocks(request) => {
            let found = request.hashes.iter().filter_map(|hash| store.blocks.get(&hash.bytes));
            found.map(|body| make_response!(Payload::Block, body.clone(), message.request_id)).collect()
        }
        Payload::Block(body) => {
            match Block::try_from(body.clone()) {
                Ok(found) => drop(store.blocks.insert(found.hash().as_bytes().to_vec(), body)),
                Err(error) => say(json!({"event": "invalid", "what": error.to_string()})),
            }
            vec![]
        }
        _ => vec![],
    }
}

/// A transaction and a block of our own, announced together with a transaction that nobody has.
fn publish(store: &Shared) -> (Vec<KaspadMessage>, Value) {
    let payload = uuid::Uuid::new_v4().as_bytes().repeat(20);
    let transaction = Transaction::new(0, vec![], vec![], 0, SUBNETWORK_ID_NATIVE, 0, payload);
    let parents = vec![vec![transaction.id()]].try_into().expect("one parent");
    let (zero, work) = (Default::default(), Default::default());
    let header = Header::new_finalized(1, parents, zero, zero, zero, unix_ms() as u64, 7, nonce(), 1, work, 1, zero);
    let block = Block::new(header, vec![transaction.clone()]);
    let (id, hash) = (transaction.id().as_bytes().to_vec(), block.hash().as_bytes().to_vec());
    let mut store = store.lock().unwrap();
    store.transactions.insert(id.clone(), (&transaction).into());
    store.blocks.insert(hash.clone(), (&block).into());
    let value = json!({"transactions": [hex(&id)], "blocks": [hex(&hash)]});
    let ids = vec![TransactionId { bytes: vec![9; 32] }, TransactionId { bytes: id }];
    let invs = vec![
        make_message!(Payload::InvTransactions, InvTransactionsMessage { ids }),
        make_message!(Payload::InvRelayBlock, InvRelayBlockMessage { hash: Some(Hash { bytes: hash }) }),
    ];
    (invs, value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::set_logger(&Rejects)?;
    log::set_max_level(log::LevelFilter::Debug);
    let initializer = Arc::new(Initializer {
        store: Default::default(),
        routers: Default::default(),
        version: flag("protocol", "10").parse()?,
        minimum: flag("minimum", "10").parse()?,
        network: flag("network", "kaspa-devnet"),
        ping: Duration::from_secs(flag("ping", "120").parse()?),
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
    let router = || initializer.routers.lock().unwrap().last().cloned().ok_or("nobody is connected");
    match order["do"].as_str().unwrap_or_default() {
        "connect" => {
            let addr = order["addr"].as_str().unwrap_or_default().to_owned();
            adaptor.connect_peer_with_retries(addr, 3, Duration::from_secs(1)).await.map_err(|e| e.to_string())?;
        }
        "talk" => {
            let ask = make_message!(Payload::RequestAddresses, RequestAddressesMessage::default());
            router()?.enqueue(ask).await.map_err(|e| e.to_string())?;
        }
        "publish" => {
            let (router, (invs, value)) = (router()?, publish(&initializer.store));
            for inv in invs {
                router.enqueue(inv).await.map_err(|e| e.to_string())?;
            }
            return Ok(value);
        }
        "counts" => {}
        other => return Err(format!("unknown order {other:?}")),
    }
    let store = initializer.store.lock().unwrap();
    Ok(json!({"counts": store.counts, "active": adaptor.active_peers().len(),
        "transactions": store.transactions.keys().map(|k| hex(k)).collect::<Vec<_>>(),
        "blocks": store.blocks.keys().map(|k| hex(k)).collect::<Vec<_>>()}))
}

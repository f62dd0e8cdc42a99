//! One QUIC endpoint and its connections: datagrams and a clock value in, datagrams and events out.
//!
//! Connections are known by numbers that are never given twice. After `receive` and `on_timer`, and after anything that
//! was done to a connection, its events are to be taken and its datagrams to be fetched.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, Incoming, NoneTokenStore,
    ServerConfig, Transmit, VarInt,
};

use crate::error::{Error, Result};
use crate::ids::{Ids, Told, first_ids, key, token_key};
use crate::link::{Link, tell, why};
use crate::session::{Tls, V1};
use crate::settings::{Settings, seconds};
use crate::tls::{self, NO_NAME};
use crate::vocabulary::{Attempt, Event, Info, Packet};

/// What the kernel takes in one call with segments: an IP packet has 65535 bytes, its heads included.
const MOST_AT_ONCE: usize = 65000;
/// And so many segments (UDP_MAX_SEGMENTS).
const MOST_SEGMENTS: usize = 64;

/// One endpoint: it accepts and dials with one certificate, from one socket of somebody else.
pub struct Engine {
    endpoint: Endpoint,
    client: ClientConfig,
    /// In boxes: a table has more places than entries, and a connection is large.
    links: HashMap<u64, Box<Link>>,
    numbers: HashMap<usize, u64>,
    incoming: HashMap<u64, Incoming>,
    attempts: VecDeque<Attempt>,
    replies: VecDeque<Packet>,
    next: u64,
    start: Instant,
    told: Arc<Told>,
    unsent: u64,
    streams: u32,
    first_streams: u32,
    buffer: Vec<u8>,
}

impl Engine {
    /// An endpoint for a certificate and its key (PKCS #8), both in DER.
    ///
    /// Connection ids and Retry tokens follow from `seed`. `reset_key` outlives the process: with it a peer's
    /// connection to an earlier run is told that it is over.
    pub fn new(
        certificate: &[u8],
        private: &[u8],
        settings: &Settings,
        seed: [u8; 32],
        reset_key: [u8; 32],
    ) -> Result<Self> {
        let tls = Arc::new(tls::configs(certificate, private)?);
        let transport = Arc::new(settings.transport()?);
        let told = Arc::new(Told::default());
        let mut server = ServerConfig::new(tls.clone(), token_key(&seed));
        server
            .transport_config(Arc::new(settings.accepting()?))
            .retry_token_lifetime(seconds("retry_lifetime", settings.retry_lifetime)?)
            .max_incoming(settings.attempts)
            .incoming_buffer_size(settings.attempt_bytes)
            .incoming_buffer_size_total(settings.attempt_bytes.saturating_mul(settings.attempts as u64))
            .time_source(told.clone());
        let mut config = EndpointConfig::new(Arc::new(key(&reset_key, b"stateless resets")));
        config
            .supported_versions(vec![V1])
            .rng_seed(Some(seed))
            .cid_generator(move || Box::new(Ids::new(&seed, &reset_key)))
            // Datagrams that are not QUIC share the socket, and are told by that bit.
            .grease_quic_bit(false)
            .min_reset_interval(seconds("reset_pause", settings.reset_pause)?)
            .max_udp_payload_size(u16::MAX - 8)
            .map_err(|why| Error::unusable("max_udp_payload_size", why))?;
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)), true, None);
        Ok(Self {
            endpoint,
            client: client(tls, transport, &seed),
            links: HashMap::new(),
            numbers: HashMap::new(),
            incoming: HashMap::new(),
            attempts: VecDeque::new(),
            replies: VecDeque::new(),
            next: 1,
            // Any moment will do: the clock values of the calls are added to it, and nobody else sees it.
            start: Instant::now(),
            told,
            unsent: settings.unsent,
            streams: settings.streams,
            first_streams: settings.first_streams.min(settings.streams),
            buffer: Vec::new(),
        })
    }

    fn at(&self, now: f64) -> Result<Instant> {
        let since = self.told.advance(seconds("now", now)?);
        self.start.checked_add(since).ok_or_else(|| Error::unusable("now", "it is too late"))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn link(&mut self, number: u64) -> Result<&mut Link> {
        self.links.get_mut(&number).map(Box::as_mut).ok_or(Error::NoConnection)
    }

    fn take_in(&mut self, handle: ConnectionHandle, connection: quinn_proto::Connection) -> u64 {
        let number = self.number();
        self.numbers.insert(handle.0, number);
        let mut link = Box::new(Link::new(handle, connection, self.first_streams));
        link.pace(self.unsent);
        self.links.insert(number, link);
        number
    }

    /// Hands what a connection wants of its endpoint to that, until both are content.
    fn settle(&mut self, number: u64) {
        let Some(link) = self.links.get_mut(&number) else { return };
        link.look_for_move();
        while let Some(event) = link.inner.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(link.handle, event) {
                link.inner.handle_event(answer);
            }
            if drained {
                link.drained = true;
                self.numbers.remove(&link.handle.0);
            }
        }
    }

    // --- connections --------------------------------------------------------------------------------------

    /// Begins to dial. The datagrams are to be fetched.
    pub fn connect(&mut self, to: SocketAddr, now: f64) -> Result<u64> {
        let now = self.at(now)?;
        let (handle, connection) = self
            .endpoint
            .connect(now, self.client.clone(), to, NO_NAME)
            .map_err(|why| Error::CannotConnect(why.to_string()))?;
        Ok(self.take_in(handle, connection))
    }

    /// Takes what one `recvmsg` brought: datagrams of `segment` bytes each, or one when that is 0.
    ///
    /// Returns the connections that it concerns. Attempts to connect are told by `attempts`, and what is answered
    /// without a connection by `replies`.
    pub fn receive(
        &mut self,
        data: &[u8],
        segment: usize,
        from: SocketAddr,
        local: Option<IpAddr>,
        ecn: u8,
        now: f64,
    ) -> Result<Vec<u64>> {
        let now = self.at(now)?;
        let ecn = EcnCodepoint::from_bits(ecn);
        let mut rest = BytesMut::from(data);
        let mut touched = Vec::new();
        while !rest.is_empty() {
            let size = if segment == 0 { rest.len() } else { segment.min(rest.len()) };
            let datagram = rest.split_to(size);
            self.buffer.clear();
            match self.endpoint.handle(now, from, local, ecn, datagram, &mut self.buffer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let Some(number) = self.numbers.get(&handle.0).copied() else { continue };
                    let Some(link) = self.links.get_mut(&number) else { continue };
                    link.inner.handle_event(event);
                    if !touched.contains(&number) {
                        touched.push(number);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    let attempt = Attempt {
                        number: self.number(),
                        from: incoming.remote_address(),
                        proven: incoming.remote_address_validated(),
                    };
                    self.incoming.insert(attempt.number, incoming);
                    self.attempts.push_back(attempt);
                }
                Some(DatagramEvent::Response(answer)) => self.reply(&answer),
                None => {}
            }
        }
        for number in &touched {
            self.settle(*number);
        }
        Ok(touched)
    }

    fn reply(&mut self, transmit: &Transmit) {
        let packet = packed(&self.buffer, transmit);
        self.replies.push_back(packet);
    }

    /// The next attempt that was not told yet.
    pub fn attempt(&mut self) -> Option<Attempt> {
        self.attempts.pop_front()
    }

    /// The next datagram that belongs to no connection: Retry, refusals, stateless resets, version negotiation.
    pub fn next_reply(&mut self) -> Option<Packet> {
        self.replies.pop_front()
    }

    fn decided(&mut self, attempt: u64) -> Result<Incoming> {
        self.incoming.remove(&attempt).ok_or(Error::NoAttempt)
    }

    /// Goes on with an attempt. Fails with `Failed` when its first datagram leads to nothing, which may be answered by
    /// `next_reply`.
    pub fn accept(&mut self, attempt: u64, now: f64) -> Result<u64> {
        let now = self.at(now)?;
        let incoming = self.decided(attempt)?;
        self.buffer.clear();
        match self.endpoint.accept(incoming, now, &mut self.buffer, None) {
            Ok((handle, connection)) => {
                let number = self.take_in(handle, connection);
                self.settle(number);
                Ok(number)
            }
            Err(failed) => {
                if let Some(answer) = failed.response {
                    self.reply(&answer);
                }
                let (cause, code, reason) = why(failed.cause);
                Err(Error::Failed(cause, code, reason))
            }
        }
    }

    /// Has the peer show that it receives at its address. Nothing is kept of the attempt. One that is proven is
    /// refused instead.
    pub fn retry(&mut self, attempt: u64) -> Result<()> {
        let incoming = self.decided(attempt)?;
        self.buffer.clear();
        let answer = match self.endpoint.retry(incoming, &mut self.buffer) {
            Ok(answer) => answer,
            Err(proven) => {
                self.buffer.clear();
                self.endpoint.refuse(proven.into_incoming(), &mut self.buffer)
            }
        };
        self.reply(&answer);
        Ok(())
    }

    /// Turns an attempt away and says so.
    pub fn refuse(&mut self, attempt: u64) -> Result<()> {
        let incoming = self.decided(attempt)?;
        self.buffer.clear();
        let answer = self.endpoint.refuse(incoming, &mut self.buffer);
        self.reply(&answer);
        Ok(())
    }

    /// Forgets an attempt without a word.
    pub fn ignore(&mut self, attempt: u64) -> Result<()> {
        let incoming = self.decided(attempt)?;
        self.endpoint.ignore(incoming);
        Ok(())
    }

    /// The next datagrams of a connection for one `sendmsg`, at most `most` segments; None when it has none.
    pub fn transmit(&mut self, number: u64, most: usize, now: f64) -> Result<Option<(Transmit, &[u8])>> {
        let now = self.at(now)?;
        self.buffer.clear();
        let Some(link) = self.links.get_mut(&number) else { return Err(Error::NoConnection) };
        let fit = MOST_AT_ONCE / usize::from(link.inner.current_mtu().max(1));
        let most = most.min(MOST_SEGMENTS).min(fit).max(1);
        let pings = (!link.pings.is_empty()).then(|| link.inner.stats().frame_tx.ping);
        let Some(transmit) = link.inner.poll_transmit(now, most, &mut self.buffer) else { return Ok(None) };
        if pings.is_some_and(|before| link.inner.stats().frame_tx.ping > before) {
            let sent = link.seen().map(|seen| seen.sent());
            link.pings.iter_mut().filter(|(_, packet)| packet.is_none()).for_each(|(_, packet)| *packet = sent);
        }
        let data = self.buffer.get(..transmit.size).unwrap_or_default();
        Ok(Some((transmit, data)))
    }

    /// As `transmit`, in bytes of its own.
    pub fn packet(&mut self, number: u64, most: usize, now: f64) -> Result<Option<Packet>> {
        let made = self.transmit(number, most, now)?;
        Ok(made.map(|(transmit, data)| packed(data, &transmit)))
    }

    /// When `on_timer` has something to do, in clock values; None when it never has.
    pub fn timer(&mut self, number: u64) -> Result<Option<f64>> {
        let start = self.start;
        let due = self.link(number)?.inner.poll_timeout();
        // A microsecond late: a clock value that was rounded down would find nothing to do, again and again.
        let late = Duration::from_micros(1);
        Ok(due.map(|due| due.saturating_duration_since(start).saturating_add(late).as_secs_f64()))
    }

    /// The time of `timer` has come.
    pub fn on_timer(&mut self, number: u64, now: f64) -> Result<()> {
        let now = self.at(now)?;
        self.link(number)?.inner.handle_timeout(now);
        self.settle(number);
        Ok(())
    }

    /// What happened to a connection since the last call. After `Gone` its number is forgotten.
    pub fn events(&mut self, number: u64) -> Result<Vec<Event>> {
        let (unsent, streams) = (self.unsent, self.streams);
        let link = self.link(number)?;
        link.pace(unsent);
        let mut events = Vec::new();
        if std::mem::take(&mut link.moved) {
            events.push(Event::Moved);
        }
        while let Some(event) = link.inner.poll() {
            tell(&mut link.inner, event, &mut events);
        }
        link.allow(streams);
        if !link.pings.is_empty() {
            let acknowledged = link.seen().map_or(0, |seen| seen.acknowledged());
            link.pings.retain(|(ping, packet)| {
                let answered = packet.is_some_and(|packet| packet <= acknowledged);
                if answered {
                    events.push(Event::Pong(*ping));
                }
                !answered
            });
        }
        if link.drained {
            events.push(Event::Gone);
            self.links.remove(&number);
        }
        Ok(events)
    }

    /// Closes a connection with a code and a reason, which the peer is told once more whenever it sends on.
    pub fn close(&mut self, number: u64, code: u64, reason: &[u8], now: f64) -> Result<()> {
        let code = varint(code)?;
        let now = self.at(now)?;
        self.link(number)?.inner.close(now, code, Bytes::copy_from_slice(reason));
        self.settle(number);
        Ok(())
    }

    /// Asks the peer for a sign of life. `Event::Pong` with the value returned tells that it came.
    pub fn ping(&mut self, number: u64) -> Result<u64> {
        let link = self.link(number)?;
        link.inner.ping();
        link.next_ping += 1;
        link.pings.push_back((link.next_ping, None));
        Ok(link.next_ping)
    }

    /// Our own address has changed: the peer is to be shown the present one at once.
    pub fn moved(&mut self, number: u64) -> Result<()> {
        self.link(number)?.inner.local_address_changed();
        self.settle(number);
        Ok(())
    }

    /// Goes over to new keys, as is done by itself when the present ones have served for long (RFC 9001 section 6.6).
    #[cfg(test)]
    pub(crate) fn update_keys(&mut self, number: u64) -> Result<()> {
        self.link(number)?.inner.force_key_update();
        Ok(())
    }

    /// Changes how many unread bytes the peer may send on the connection. What it was allowed stays so.
    pub fn set_window(&mut self, number: u64, window: u64) -> Result<()> {
        let window = varint(window)?;
        self.link(number)?.inner.set_receive_window(window);
        Ok(())
    }

    /// What is known of the connection and its path.
    pub fn info(&mut self, number: u64) -> Result<Info> {
        let link = self.link(number)?;
        let stats = link.inner.stats();
        Ok(Info {
            rtt: stats.path.rtt.as_secs_f64(),
            rtt_least: stats.path.min_rtt.as_secs_f64(),
            window: stats.path.cwnd,
            lost: stats.path.lost_packets,
            packets: stats.path.sent_packets,
            congested: stats.path.congestion_events,
            delivered: link.seen().map_or(0, |seen| seen.delivered()),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            stream_frames: stats.frame_rx.stream,
            mtu: stats.path.current_mtu,
            moves: link.moves,
            remote: link.remote,
            local: link.inner.local_ip(),
        })
    }

    /// Connections that are not forgotten yet.
    pub fn connections(&self) -> usize {
        self.links.len()
    }
}

fn client(tls: Arc<Tls>, transport: Arc<quinn_proto::TransportConfig>, seed: &[u8; 32]) -> ClientConfig {
    let mut client = ClientConfig::new(tls);
    client
        .transport_config(transport)
        .initial_dst_cid_provider(first_ids(seed))
        // Tokens are kept by server name, which no dial here has: what one server gave would be shown to all others.
        // One that leaves no room for anything else in a datagram would end their dials.
        .token_store(Arc::new(NoneTokenStore));
    client
}

fn packed(data: &[u8], transmit: &Transmit) -> Packet {
    Packet {
        data: data.get(..transmit.size).unwrap_or_default().to_vec(),
        segment: transmit.segment_size.unwrap_or(0),
        to: transmit.destination,
        from: transmit.src_ip,
        ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
    }
}

/// A code or a window, which QUIC writes in 62 bits.
pub(crate) fn varint(code: u64) -> Result<VarInt> {
    VarInt::from_u64(code).map_err(|why| Error::unusable("a number", why))
}

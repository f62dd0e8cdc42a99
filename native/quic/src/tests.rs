//! Two engines in memory, with a clock that only moves when nothing else is left to do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, DatagramEvent, Endpoint, EndpointConfig, ServerConfig, Side as QuicSide,
    TransportErrorCode, ValidationTokenConfig,
};

use crate::engine::Engine;
use crate::error::Error;
use crate::ids::{Ids, first_ids, key, token_key};
use crate::session::Late;
use crate::settings::{Congestion, Settings};
use crate::tls::{configs, public_key};
use crate::vocabulary::{Attempt, Cause, Event, Packet};

const CERTIFICATE: &[u8] = include_bytes!("testdata/certificate.der");
const KEY: &[u8] = include_bytes!("testdata/pkcs8.der");

fn settings() -> Settings {
    Settings {
        streams: 16,
        first_streams: 16,
        stream_window: 100_000,
        window: 150_000,
        unsent: 65536,
        idle: 30.0,
        keepalive: 10.0,
        first_mtu: 1200,
        largest_mtu: 1452,
        congestion: Congestion::Cubic,
        first_window: 0,
        largest_window: 0,
        acknowledge_every: 0,
        handshake_bytes: 16384,
        attempts: 8,
        attempt_bytes: 65536,
        reset_pause: 0.0,
        retry_lifetime: 15.0,
        first_round_trip: 0.1,
    }
}

fn engine(number: u8) -> Engine {
    Engine::new(CERTIFICATE, KEY, &settings(), [number; 32], [number; 32]).unwrap()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4001))
}

/// What is to become of an attempt to connect.
#[derive(Clone, Copy)]
enum Answer {
    Accept,
    RetryFirst,
    Refuse,
    Ignore,
}

struct Side {
    engine: Engine,
    address: SocketAddr,
    connection: Option<u64>,
    events: Vec<Event>,
    answer: Answer,
    attempts: Vec<Attempt>,
}

impl Side {
    fn new(number: u8) -> Self {
        Self {
            engine: engine(number),
            address: address(number),
            connection: None,
            events: Vec::new(),
            answer: Answer::Accept,
            attempts: Vec::new(),
        }
    }

    fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    fn lost(&self) -> Option<(Cause, u64, &[u8])> {
        self.events.iter().find_map(|event| match event {
            Event::Lost(cause, code, reason) => Some((*cause, *code, reason.as_slice())),
            _ => None,
        })
    }
}

/// Two sides and the datagrams between them. `drop_every`: each datagram with a number that it divides is lost.
struct Pair {
    sides: [Side; 2],
    now: f64,
    air: BTreeMap<(u64, u64), (usize, SocketAddr, Vec<u8>)>,
    sent: u64,
    drop_every: u64,
    /// Seconds from one side to the other.
    delay: f64,
    largest: usize,
}

const DELAY: f64 = 0.02;

impl Pair {
    fn new() -> Self {
        Self {
            sides: [Side::new(1), Side::new(2)],
            now: 1.0,
            air: BTreeMap::new(),
            sent: 0,
            drop_every: u64::MAX,
            delay: DELAY,
            largest: 0,
        }
    }

    fn dial(&mut self) {
        let number = self.sides[0].engine.connect(address(2), self.now).unwrap();
        self.sides[0].connection = Some(number);
    }

    fn connected() -> Self {
        Self::connected_over(DELAY)
    }

    fn connected_over(delay: f64) -> Self {
        let mut pair = Self { delay, ..Self::new() };
        pair.dial();
        pair.run(5.0, |sides| sides.iter().all(|side| side.has(|event| matches!(event, Event::Connected(_)))));
        pair
    }

    fn send(&mut self, from: usize, packet: Packet) {
        self.largest = self.largest.max(packet.data.len());
        let step = if packet.segment == 0 { packet.data.len() } else { packet.segment };
        for datagram in packet.data.chunks(step) {
            self.sent += 1;
            if self.sent % self.drop_every != 0 {
                let due = ((self.now + self.delay) * 1e9) as u64;
                let source = self.sides[from].address;
                self.air.insert((due, self.sent), (1 - from, source, datagram.to_vec()));
            }
        }
    }

    fn flush(&mut self) {
        for index in 0..2 {
            while let Some(packet) = self.sides[index].engine.next_reply() {
                self.send(index, packet);
            }
            let Some(connection) = self.sides[index].connection else { continue };
            match self.sides[index].engine.events(connection) {
                Ok(events) => self.sides[index].events.extend(events),
                Err(_) => continue,
            }
            while let Ok(Some(packet)) = self.sides[index].engine.packet(connection, 64, self.now) {
                self.send(index, packet);
            }
        }
    }

    fn decide(&mut self, index: usize) {
        let (side, now) = (&mut self.sides[index], self.now);
        while let Some(attempt) = side.engine.attempt() {
            side.attempts.push(attempt);
            match side.answer {
                Answer::RetryFirst if !attempt.proven => side.engine.retry(attempt.number).unwrap(),
                Answer::Accept | Answer::RetryFirst => {
                    side.connection = side.engine.accept(attempt.number, now).ok();
                }
                Answer::Refuse => side.engine.refuse(attempt.number).unwrap(),
                Answer::Ignore => side.engine.ignore(attempt.number).unwrap(),
            }
        }
    }

    /// Lets time pass until `done`, or for so many seconds.
    fn run(&mut self, most: f64, done: impl Fn(&[Side; 2]) -> bool) {
        let end = self.now + most;
        self.flush();
        while !done(&self.sides) && self.now < end {
            let mut next = self.air.keys().next().map_or(f64::INFINITY, |(due, _)| *due as f64 / 1e9);
            for side in &mut self.sides {
                if let Some(due) = side.connection.and_then(|number| side.engine.timer(number).ok().flatten()) {
                    next = next.min(due);
                }
            }
            self.now = next.max(self.now).min(end);
            while let Some(((due, number), _)) = self.air.first_key_value() {
                if *due as f64 / 1e9 > self.now {
                    break;
                }
                let key = (*due, *number);
                let (index, from, datagram) = self.air.remove(&key).unwrap();
                self.sides[index].engine.receive(&datagram, 0, from, None, 0, self.now).unwrap();
                self.decide(index);
            }
            for side in &mut self.sides {
                let Some(number) = side.connection else { continue };
                if side.engine.timer(number).is_ok_and(|due| due.is_some_and(|due| due <= self.now)) {
                    side.engine.on_timer(number, self.now).unwrap();
                }
            }
            self.flush();
        }
    }

    fn both(&self) -> [u64; 2] {
        [self.sides[0].connection.unwrap(), self.sides[1].connection.unwrap()]
    }
}

fn all(engine: &mut Engine, connection: u64, stream: u64) -> (Vec<u8>, bool) {
    let (pieces, ended, _) = engine.read(connection, stream, usize::MAX).unwrap();
    (pieces.concat(), ended)
}

#[test]
fn the_handshake_shows_each_the_others_certificate() {
    let pair = Pair::connected();
    for side in &pair.sides {
        assert_eq!(side.events.first(), Some(&Event::Connected(CERTIFICATE.to_vec())));
    }
}

fn carries(drop_every: u64) {
    let mut pair = Pair::connected();
    pair.drop_every = drop_every;
    let [dialler, accepter] = pair.both();
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    let data: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut written, mut read, mut finished) = (0, Vec::new(), false);
    while read.len() < data.len() {
        if !finished {
            written += pair.sides[0].engine.write(dialler, stream, &data[written..]).unwrap();
        }
        if written == data.len() && !finished {
            pair.sides[0].engine.finish(dialler, stream).unwrap();
            finished = true;
        }
        pair.run(0.1, |_| false);
        if pair.sides[1].has(|event| *event == Event::Opened(stream)) && read.len() < data.len() {
            read.extend(all(&mut pair.sides[1].engine, accepter, stream).0);
        }
        assert!(pair.now < 600.0, "{written} written, {} read", read.len());
    }
    assert!(read == data);
    assert_eq!(pair.sides[1].engine.read(accepter, stream, 1).unwrap_err(), Error::NoStream);
    pair.run(1.0, |_| false);
    assert!(pair.sides[0].has(|event| *event == Event::Finished(stream)));
}

#[test]
fn bytes_arrive_in_order() {
    carries(u64::MAX);
}

#[test]
fn bytes_arrive_in_order_over_loss() {
    carries(23);
}

#[test]
fn datagrams_leave_in_large_buffers() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    pair.run(1.0, |_| false);
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    pair.sides[0].engine.write(dialler, stream, &[7; 60000]).unwrap();
    pair.flush();
    assert!(pair.largest > 8000);
    assert!(pair.largest <= 65000);
    let info = pair.sides[0].engine.info(dialler).unwrap();
    assert_eq!(info.mtu, 1452);
    assert!(info.delivered > 0);
    assert!((info.rtt_least - 2.0 * DELAY).abs() < 0.001);
}

#[test]
fn who_does_not_read_gets_no_more_than_his_window() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    let mut written = 0;
    for _ in 0..200 {
        written += pair.sides[0].engine.write(dialler, stream, &[1; 4096]).unwrap();
        pair.run(0.05, |_| false);
    }
    assert_eq!(written, 100_000);
    assert!(pair.sides[1].engine.info(accepter).unwrap().stream_frames >= 100_000 / 1452);
    let (pieces, ended, owed) = pair.sides[1].engine.read(accepter, stream, usize::MAX).unwrap();
    assert_eq!((pieces.concat().len(), ended, owed), (100_000, false, true));
    pair.sides[0].events.clear();
    pair.run(1.0, |_| false);
    assert!(pair.sides[0].has(|event| *event == Event::Writable(stream)));
    assert_eq!(pair.sides[0].engine.write(dialler, stream, &[1; 4096]).unwrap(), 4096);
}

#[test]
fn what_waits_to_be_sent_is_bounded_by_the_path() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    let written = pair.sides[0].engine.write(dialler, stream, &[1; 1 << 20]).unwrap();
    let info = pair.sides[0].engine.info(dialler).unwrap();
    assert!(written as u64 <= info.window + settings().unsent);
}

#[test]
fn what_may_be_on_the_way_has_a_bound() {
    for congestion in [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr] {
        let bounded = Settings { largest_window: 5000, congestion, ..settings() };
        let mut engine = Engine::new(CERTIFICATE, KEY, &bounded, [1; 32], [1; 32]).unwrap();
        let connection = engine.connect(address(2), 1.0).unwrap();
        assert_eq!(engine.info(connection).unwrap().window, 5000);
    }
}

#[test]
fn a_window_is_widened_where_the_round_trip_is_short() {
    let window = |delay: f64| {
        let mut pair = Pair::connected_over(delay);
        let [dialler, _] = pair.both();
        pair.run(1.0, |_| false);
        pair.sides[0].engine.info(dialler).unwrap().window
    };
    let (near, far) = (window(0.000_05), window(DELAY));
    assert!(8 * far < near && near <= 256 * 1024, "{near} bytes at 0.1 ms, {far} at 40 ms");
}

#[test]
fn a_ping_is_answered_after_a_round_trip() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    pair.run(1.0, |_| false);
    let began = pair.now;
    let ping = pair.sides[0].engine.ping(dialler).unwrap();
    pair.run(1.0, |sides| sides[0].has(|event| *event == Event::Pong(ping)));
    // The peer may wait 25 ms before it acknowledges a single packet (RFC 9000 section 13.2.1).
    assert!((2.0 * DELAY - 0.001..2.0 * DELAY + 0.03).contains(&(pair.now - began)));
}

#[test]
fn a_ping_that_is_lost_is_answered_later() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    pair.run(1.0, |_| false);
    pair.drop_every = 1;
    let ping = pair.sides[0].engine.ping(dialler).unwrap();
    pair.run(0.01, |_| false);
    pair.drop_every = u64::MAX;
    pair.run(5.0, |sides| sides[0].has(|event| *event == Event::Pong(ping)));
    assert!(pair.sides[0].has(|event| *event == Event::Pong(ping)));
}

#[test]
fn a_reset_and_a_stop_are_told_with_their_codes() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    pair.sides[0].engine.write(dialler, stream, b"hello").unwrap();
    pair.run(0.1, |_| false);
    assert_eq!(pair.sides[1].engine.take_reset(accepter, stream), Ok(None));
    pair.sides[0].engine.reset(dialler, stream, 7).unwrap();
    pair.sides[0].engine.stop(dialler, stream, 8).unwrap();
    pair.run(0.1, |_| false);
    assert!(pair.sides[1].has(|event| *event == Event::Stopped(stream, 8)));
    assert_eq!(pair.sides[1].engine.read(accepter, stream, 10).unwrap_err(), Error::StreamReset(7));
    assert_eq!(pair.sides[1].engine.read(accepter, stream, 10).unwrap_err(), Error::NoStream);
    assert_eq!(pair.sides[1].engine.write(accepter, stream, b"x").unwrap_err(), Error::StreamStopped(8));
    assert_eq!(pair.sides[0].engine.write(dialler, stream, b"x").unwrap_err(), Error::NoStream);
}

#[test]
fn a_reset_is_seen_without_reading() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    pair.sides[0].engine.write(dialler, stream, b"hello").unwrap();
    pair.run(0.1, |_| false);
    pair.sides[0].engine.reset(dialler, stream, 7).unwrap();
    pair.run(0.1, |_| false);
    assert_eq!(pair.sides[1].engine.take_reset(accepter, stream), Ok(Some(7)));
    assert_eq!(pair.sides[1].engine.take_reset(accepter, stream), Err(Error::NoStream));
}

#[test]
fn no_more_streams_than_the_peer_allows_until_some_end() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    let streams: Vec<u64> = std::iter::from_fn(|| pair.sides[0].engine.open(dialler).unwrap()).collect();
    assert_eq!(streams.len(), 16);
    for stream in &streams {
        pair.sides[0].engine.write(dialler, *stream, b"x").unwrap();
        pair.sides[0].engine.finish(dialler, *stream).unwrap();
    }
    pair.run(0.2, |_| false);
    for stream in &streams {
        assert_eq!(all(&mut pair.sides[1].engine, accepter, *stream), (b"x".to_vec(), true));
        pair.sides[1].engine.finish(accepter, *stream).unwrap();
    }
    pair.run(0.2, |_| false);
    assert!(pair.sides[0].has(|event| *event == Event::Available));
    assert!(pair.sides[0].engine.open(dialler).unwrap().is_some());
}

#[test]
fn closing_tells_the_peer_why_and_leaves_nothing() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    pair.sides[0].engine.close(dialler, 42, b"enough", pair.now).unwrap();
    pair.run(5.0, |_| false);
    assert_eq!(pair.sides[1].lost(), Some((Cause::Closed, 42, b"enough".as_slice())));
    assert_eq!(pair.sides[0].lost(), None);
    for side in &mut pair.sides {
        assert_eq!(side.events.last(), Some(&Event::Gone));
        assert_eq!(side.engine.connections(), 0);
        assert_eq!(side.engine.events(side.connection.unwrap()), Err(Error::NoConnection));
    }
}

#[test]
fn silence_ends_a_connection_and_keepalives_keep_it() {
    let mut pair = Pair::connected();
    pair.run(100.0, |_| false);
    assert!(pair.sides.iter().all(|side| side.lost().is_none()));
    pair.drop_every = 1;
    pair.run(100.0, |_| false);
    for side in &pair.sides {
        assert_eq!(side.lost(), Some((Cause::Silent, 0, b"".as_slice())));
        assert_eq!(side.events.last(), Some(&Event::Gone));
    }
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    pair.run(1.0, |_| false);
    pair.sides[0].address = address(9);
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    pair.sides[0].engine.write(dialler, stream, b"from elsewhere").unwrap();
    pair.run(1.0, |_| false);
    assert!(pair.sides[1].has(|event| *event == Event::Moved));
    let info = pair.sides[1].engine.info(accepter).unwrap();
    assert_eq!((info.remote, info.moves), (address(9), 1));
    assert_eq!(all(&mut pair.sides[1].engine, accepter, stream).0, b"from elsewhere");
}

#[test]
fn a_restarted_peer_resets_what_it_does_not_know() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    pair.run(1.0, |_| false);
    // Another seed, as each run has, and the reset key that it keeps.
    pair.sides[1].engine = Engine::new(CERTIFICATE, KEY, &settings(), [77; 32], [2; 32]).unwrap();
    pair.sides[1].connection = None;
    pair.sides[0].engine.ping(dialler).unwrap();
    pair.run(5.0, |sides| sides[0].lost().is_some());
    assert_eq!(pair.sides[0].lost(), Some((Cause::Reset, 0, b"".as_slice())));
}

#[test]
fn a_retry_proves_the_address() {
    let mut pair = Pair::new();
    pair.sides[1].answer = Answer::RetryFirst;
    pair.dial();
    pair.run(5.0, |sides| sides[0].has(|event| matches!(event, Event::Connected(_))));
    assert!(pair.sides[0].has(|event| matches!(event, Event::Connected(_))));
    let proven: Vec<bool> = pair.sides[1].attempts.iter().map(|attempt| attempt.proven).collect();
    assert_eq!(proven, [false, true]);
}

/// The token of a first datagram, by its place (RFC 9000 section 17.2.2).
fn token_length(initial: &[u8]) -> u8 {
    let source = 6 + usize::from(initial[5]);
    initial[source + 1 + usize::from(initial[source])]
}

#[test]
fn a_token_that_one_server_gave_is_not_shown_to_others() {
    let tls = configs(CERTIFICATE, KEY).unwrap().before;
    let mut config = ServerConfig::new(Arc::new(tls), token_key(&[9; 32]));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(2);
    config.validation_token_config(tokens);
    let secret = Arc::new(key(&[9; 32], b"resets"));
    let mut server = Endpoint::new(Arc::new(EndpointConfig::new(secret)), Some(Arc::new(config)), true, None);
    let (mut client, now, mut buffer) = (engine(1), Instant::now(), Vec::new());
    let first = client.connect(address(2), 1.0).unwrap();
    let (mut there, mut events) = (None, Vec::new());
    for _ in 0..20 {
        while let Some(packet) = client.packet(first, 1, 1.0).unwrap() {
            buffer.clear();
            let data = BytesMut::from(&packet.data[..]);
            match server.handle(now, address(1), None, None, data, &mut buffer) {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    there = server.accept(incoming, now, &mut buffer, None).ok();
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => there.as_mut().unwrap().1.handle_event(event),
                _ => {}
            }
        }
        let (handle, connection) = there.as_mut().unwrap();
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(answer) = server.handle_event(*handle, event) {
                connection.handle_event(answer);
            }
        }
        buffer.clear();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
            client.receive(&buffer[..transmit.size], 0, address(2), None, 0, 1.0).unwrap();
            buffer.clear();
        }
        events.extend(client.events(first).unwrap());
    }
    assert!(events.iter().any(|event| matches!(event, Event::Connected(_))));
    let second = client.connect(address(3), 1.0).unwrap();
    let packet = client.packet(second, 1, 1.0).unwrap().unwrap();
    assert_eq!(token_length(&packet.data), 0);
}

#[test]
fn a_refusal_is_told_and_a_silence_is_not() {
    let mut pair = Pair::new();
    pair.sides[1].answer = Answer::Refuse;
    pair.dial();
    pair.run(5.0, |sides| sides[0].lost().is_some());
    // CONNECTION_REFUSED of RFC 9000 section 20.1.
    assert_eq!(pair.sides[0].lost(), Some((Cause::Aborted, 2, b"".as_slice())));
    let mut pair = Pair::new();
    pair.sides[1].answer = Answer::Ignore;
    pair.dial();
    pair.run(60.0, |sides| sides[0].lost().is_some());
    assert_eq!(pair.sides[0].lost(), Some((Cause::Silent, 0, b"".as_slice())));
    assert_eq!(pair.sides[1].engine.connections(), 0);
}

#[test]
fn an_attempt_is_decided_once() {
    let mut pair = Pair::connected();
    let number = pair.sides[1].attempts[0].number;
    let engine = &mut pair.sides[1].engine;
    assert_eq!(engine.accept(number, 9.0), Err(Error::NoAttempt));
    assert_eq!(engine.retry(number), Err(Error::NoAttempt));
    assert_eq!(engine.refuse(number), Err(Error::NoAttempt));
    assert_eq!(engine.ignore(number), Err(Error::NoAttempt));
}

#[test]
fn what_the_caller_may_not_say_is_refused() {
    let mut pair = Pair::connected();
    let [dialler, _] = pair.both();
    let engine = &mut pair.sides[0].engine;
    for now in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(engine.on_timer(dialler, now), Err(Error::Unusable(_))));
    }
    assert!(matches!(engine.close(dialler, 1 << 62, b"", 9.0), Err(Error::Unusable(_))));
    assert!(matches!(engine.read(dialler, 1 << 62, 1), Err(Error::Unusable(_))));
    // A stream in one direction, and one that nobody has opened.
    assert_eq!(engine.read(dialler, 2, 1), Err(Error::NoStream));
    assert_eq!(engine.write(dialler, 3, b"x"), Err(Error::NoStream));
    assert_eq!(engine.write(dialler, 400, b"x"), Err(Error::NoStream));
    assert_eq!(engine.finish(dialler, 400), Err(Error::NoStream));
    assert_eq!(engine.open(999), Err(Error::NoConnection));
    assert!(matches!(engine.connect(SocketAddr::from(([0, 0, 0, 0], 1)), 9.0), Err(Error::CannotConnect(_))));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let changes: [fn(&mut Settings); 6] = [
        |settings| settings.idle = -1.0,
        |settings| settings.keepalive = f64::NAN,
        |settings| settings.first_mtu = 1199,
        |settings| settings.largest_mtu = 1199,
        |settings| settings.window = u64::MAX,
        |settings| settings.stream_window = 1 << 62,
    ];
    for change in changes {
        let mut changed = settings();
        change(&mut changed);
        let made = Engine::new(CERTIFICATE, KEY, &changed, [0; 32], [0; 32]);
        assert!(matches!(made, Err(Error::Unusable(_))));
    }
    assert!(matches!("vegas".parse::<Congestion>(), Err(Error::Unusable(_))));
    let swapped = Engine::new(KEY, CERTIFICATE, &settings(), [0; 32], [0; 32]);
    assert!(matches!(swapped, Err(Error::Unusable(_))));
}

#[test]
fn any_datagrams_leave_a_connection_as_it_is() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    pair.run(1.0, |_| false);
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for _ in 0..3000 {
        let size = next() as usize % 1500;
        let datagram: Vec<u8> = (0..size).map(|_| next() as u8).collect();
        let segment = next() as usize % 700;
        let from = if next() % 2 == 0 { address(1) } else { address(3) };
        pair.sides[1].engine.receive(&datagram, segment, from, None, next() as u8, pair.now).unwrap();
        pair.decide(1);
        while pair.sides[1].engine.next_reply().is_some() {}
    }
    pair.sides[1].connection = Some(accepter);
    let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
    pair.sides[0].engine.write(dialler, stream, b"still here").unwrap();
    pair.run(1.0, |_| false);
    assert_eq!(all(&mut pair.sides[1].engine, accepter, stream).0, b"still here");
}

#[test]
fn ids_follow_from_the_seed_and_are_known_again() {
    let made = |seed: u8, reset: u8| {
        let mut ids = Ids::new(&[seed; 32], &[reset; 32]);
        [ids.generate_cid(), ids.generate_cid()]
    };
    assert_eq!(made(1, 1), made(1, 1));
    assert_ne!(made(1, 1), made(2, 1));
    assert_ne!(made(1, 1)[0], made(1, 1)[1]);
    let again = Ids::new(&[9; 32], &[1; 32]);
    assert!(made(1, 1).iter().all(|id| again.validate(id).is_ok()));
    assert!(made(1, 2).iter().all(|id| again.validate(id).is_err()));
    assert!(again.validate(&ConnectionId::new(b"")).is_err());
    assert!(again.validate(&ConnectionId::new(b"12345678")).is_err());
    let (first, second) = (first_ids(&[1; 32]), first_ids(&[1; 32]));
    assert_eq!((first(), first()), (second(), second()));
    assert_ne!(first(), first());
}

#[test]
fn the_key_of_a_certificate_is_found_by_its_place() {
    let key = public_key(CERTIFICATE).unwrap();
    // id-ecPublicKey on prime256v1, a point of 65 bytes.
    assert_eq!(key[..4], [0x30, 0x59, 0x30, 0x13]);
    assert_eq!(key.len(), 91);
    assert_eq!(public_key(&CERTIFICATE[..CERTIFICATE.len() - 1]), None);
    assert_eq!(public_key(&[CERTIFICATE, &[0]].concat()), None);
    assert_eq!(public_key(KEY), None);
    for end in 0..CERTIFICATE.len() {
        assert_eq!(public_key(&CERTIFICATE[..end]), None);
    }
}

#[test]
fn keys_are_changed_after_tls_was_given_up() {
    let mut pair = Pair::connected();
    let [dialler, accepter] = pair.both();
    for round in 0..3 {
        pair.sides[round % 2].engine.update_keys(pair.both()[round % 2]).unwrap();
        let stream = pair.sides[0].engine.open(dialler).unwrap().unwrap();
        pair.sides[0].engine.write(dialler, stream, b"there").unwrap();
        pair.run(1.0, |_| false);
        assert_eq!(all(&mut pair.sides[1].engine, accepter, stream).0, b"there");
        pair.sides[1].engine.write(accepter, stream, b"and back").unwrap();
        pair.run(1.0, |_| false);
        assert_eq!(all(&mut pair.sides[0].engine, dialler, stream).0, b"and back");
    }
    assert!(pair.sides.iter().all(|side| side.lost().is_none()));
}

#[test]
fn tickets_are_passed_over_and_nothing_else_may_follow_a_handshake() {
    let ticket = [&[4, 0, 1, 4][..], &[7; 260]].concat();
    let twice = ticket.repeat(2);
    for size in 1..twice.len() {
        let mut late = Late::default();
        for piece in twice.chunks(size) {
            assert!(late.take(piece, QuicSide::Client).is_ok());
        }
        assert!(late.take(&[4], QuicSide::Client).is_ok());
        assert!(Late::default().take(&ticket[..size.min(ticket.len())], QuicSide::Server).is_err());
    }
    for kind in (0..=255).filter(|kind| *kind != 4) {
        let mut late = Late::default();
        late.take(&ticket, QuicSide::Client).unwrap();
        let refused = late.take(&[kind], QuicSide::Client).unwrap_err();
        assert_eq!(refused.code, TransportErrorCode::crypto(10));
    }
}

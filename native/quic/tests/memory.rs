//! What an idle connection holds at each end, counted where memory is allocated.

#![allow(unsafe_code, reason = "a global allocator is unsafe; it counts and passes on")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use punchbridge_quic::engine::Engine;
use punchbridge_quic::settings::{Congestion, Settings};

const CERTIFICATE: &[u8] = include_bytes!("../src/testdata/certificate.der");
const KEY: &[u8] = include_bytes!("../src/testdata/pkcs8.der");

const CONNECTIONS: usize = 256;
const MOST: usize = 16 * 1024;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get() + layout.size() as isize));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get() - layout.size() as isize));
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn held() -> isize {
    HELD.with(Cell::get)
}

/// As the house has them (`bridge/config/quic.py`).
fn settings() -> Settings {
    Settings {
        streams: 256,
        first_streams: 6,
        stream_window: 4 << 20,
        window: 1 << 20,
        unsent: 256 << 10,
        idle: 30.0,
        keepalive: 15.0,
        first_mtu: 1200,
        largest_mtu: 1452,
        congestion: Congestion::Bbr,
        first_window: 0,
        largest_window: 4 << 20,
        acknowledge_every: 0,
        handshake_bytes: 16384,
        attempts: 64,
        attempt_bytes: 16384,
        reset_pause: 0.02,
        retry_lifetime: 10.0,
        first_round_trip: 0.1,
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4001))
}

/// What an engine sends to the other one for some connections, which may have done something.
struct End {
    engine: Engine,
    at: SocketAddr,
    connections: Vec<u64>,
}

impl End {
    fn new(number: u8) -> Self {
        let engine = Engine::new(CERTIFICATE, KEY, &settings(), [number; 32], [number; 32]).unwrap();
        Self { engine, at: address(number), connections: Vec::new() }
    }

    fn send(&mut self, connection: u64, now: f64) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let _ = self.engine.events(connection);
        while let Ok(Some(packet)) = self.engine.packet(connection, 64, now) {
            let step = if packet.segment == 0 { packet.data.len() } else { packet.segment };
            out.extend(packet.data.chunks(step).map(<[u8]>::to_vec));
        }
        out
    }

    fn receive(&mut self, data: &[u8], from: SocketAddr, now: f64) {
        self.engine.receive(data, 0, from, None, 0, now).unwrap();
        while let Some(attempt) = self.engine.attempt() {
            self.connections.push(self.engine.accept(attempt.number, now).unwrap());
        }
    }
}

/// Lets both send until nothing is left, for so many seconds.
fn run(ends: &mut [End; 2], pair: usize, from: f64, seconds: f64) {
    let mut now = from;
    while now < from + seconds {
        let mut silent = true;
        for index in 0..2 {
            let Some(connection) = ends[index].connections.get(pair).copied() else { continue };
            if ends[index].engine.timer(connection).is_ok_and(|due| due.is_some_and(|due| due <= now)) {
                ends[index].engine.on_timer(connection, now).unwrap();
            }
            for datagram in ends[index].send(connection, now) {
                silent = false;
                let at = ends[index].at;
                ends[1 - index].receive(&datagram, at, now);
            }
        }
        now += if silent { 0.05 } else { 0.001 };
    }
}

/// A stream of the dialling end carries bytes both ways and is done with, as identify's is.
fn talk(ends: &mut [End; 2], pair: usize, now: f64) {
    let [dialler, accepter] = [ends[0].connections[pair], ends[1].connections[pair]];
    let stream = ends[0].engine.open(dialler).unwrap().unwrap();
    ends[0].engine.write(dialler, stream, &[1; 700]).unwrap();
    ends[0].engine.finish(dialler, stream).unwrap();
    run(ends, pair, now, 0.2);
    let _ = ends[1].engine.read(accepter, stream, 65536).unwrap();
    ends[1].engine.write(accepter, stream, &[2; 700]).unwrap();
    ends[1].engine.finish(accepter, stream).unwrap();
    run(ends, pair, now + 0.2, 0.2);
    let _ = ends[0].engine.read(dialler, stream, 65536).unwrap();
    run(ends, pair, now + 0.4, 0.2);
}

#[test]
fn an_idle_connection_takes_little_at_either_end() {
    let mut ends = [End::new(1), End::new(2)];
    let before = held();
    let mut now = 1.0;
    for pair in 0..CONNECTIONS {
        let connection = ends[0].engine.connect(address(2), now).unwrap();
        ends[0].connections.push(connection);
        run(&mut ends, pair, now, 1.0);
        talk(&mut ends, pair, now + 1.0);
        now += 2.0;
    }
    let both = held() - before;
    let [dialler, accepter] = ends;
    drop(dialler);
    let one = held() - before;
    drop(accepter);
    let each = |bytes: isize| usize::try_from(bytes).unwrap() / CONNECTIONS;
    let found = (each(both - one), each(one));
    println!("bytes of an idle connection: {} dialled, {} accepted", found.0, found.1);
    assert!(found.0 <= MOST && found.1 <= MOST, "{found:?} bytes, at most {MOST}");
}

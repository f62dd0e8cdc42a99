//! The extension module: the engine's calls, with Python's types. `punchbridge_quic.pyi` documents them.

#![allow(unsafe_code, reason = "what PyO3's macros write")]
#![allow(missing_docs, reason = "the stub documents them")]

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::engine;
use crate::error::Error;
use crate::settings;
use crate::vocabulary::{Cause, Event, Packet};

create_exception!(punchbridge_quic, QuicError, PyException);
create_exception!(punchbridge_quic, NoConnection, QuicError);
create_exception!(punchbridge_quic, NoAttempt, QuicError);
create_exception!(punchbridge_quic, NoStream, QuicError);
create_exception!(punchbridge_quic, StreamReset, QuicError);
create_exception!(punchbridge_quic, StreamStopped, QuicError);
create_exception!(punchbridge_quic, CannotConnect, QuicError);
create_exception!(punchbridge_quic, HandshakeFailed, QuicError);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Unusable(text) => PyValueError::new_err(text),
            Error::NoConnection => NoConnection::new_err(error.to_string()),
            Error::NoAttempt => NoAttempt::new_err(error.to_string()),
            Error::NoStream => NoStream::new_err(error.to_string()),
            Error::StreamReset(code) => StreamReset::new_err(code),
            Error::StreamStopped(code) => StreamStopped::new_err(code),
            Error::Failed(cause, code, reason) => HandshakeFailed::new_err((cause as u8, code, reason)),
            Error::CannotConnect(text) => CannotConnect::new_err(text),
        }
    }
}

fn ip(text: &str) -> PyResult<IpAddr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("{text} is no IP address")))
}

fn secret(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| PyValueError::new_err("a secret has 32 bytes"))
}

type Sent<'py> = (Bound<'py, PyBytes>, usize, String, u16, Option<String>, u8);
type Told<'py> = (u8, u64, u64, Bound<'py, PyBytes>);

fn sent<'py>(py: Python<'py>, data: &[u8], packet: (usize, SocketAddr, Option<IpAddr>, u8)) -> Sent<'py> {
    let (segment, to, from, ecn) = packet;
    (PyBytes::new(py, data), segment, to.ip().to_string(), to.port(), from.map(|ip| ip.to_string()), ecn)
}

const CONNECTED: u8 = 0;
const OPENED: u8 = 1;
const READABLE: u8 = 2;
const WRITABLE: u8 = 3;
const STOPPED: u8 = 4;
const FINISHED: u8 = 5;
const AVAILABLE: u8 = 6;
const PONG: u8 = 7;
const MOVED: u8 = 8;
const LOST: u8 = 9;
const GONE: u8 = 10;

fn told(py: Python<'_>, event: Event) -> Told<'_> {
    let none = || PyBytes::new(py, b"");
    match event {
        Event::Connected(certificate) => (CONNECTED, 0, 0, PyBytes::new(py, &certificate)),
        Event::Opened(stream) => (OPENED, stream, 0, none()),
        Event::Readable(stream) => (READABLE, stream, 0, none()),
        Event::Writable(stream) => (WRITABLE, stream, 0, none()),
        Event::Stopped(stream, code) => (STOPPED, stream, code, none()),
        Event::Finished(stream) => (FINISHED, stream, 0, none()),
        Event::Available => (AVAILABLE, 0, 0, none()),
        Event::Pong(ping) => (PONG, ping, 0, none()),
        Event::Moved => (MOVED, 0, 0, none()),
        Event::Lost(cause, code, reason) => (LOST, cause as u64, code, PyBytes::new(py, &reason)),
        Event::Gone => (GONE, 0, 0, none()),
    }
}

#[pyclass(frozen, skip_from_py_object)]
struct Settings(settings::Settings);

#[pymethods]
impl Settings {
    #[new]
    #[pyo3(signature = (*, streams, first_streams, stream_window, window, unsent, idle, keepalive, first_mtu, largest_mtu,
        congestion, first_window, largest_window, acknowledge_every, handshake_bytes, attempts, attempt_bytes, reset_pause,
        retry_lifetime, first_round_trip))]
    #[allow(clippy::too_many_arguments, reason = "they have names")]
    fn new(
        streams: u32,
        first_streams: u32,
        stream_window: u64,
        window: u64,
        unsent: u64,
        idle: f64,
        keepalive: f64,
        first_mtu: u16,
        largest_mtu: u16,
        congestion: &str,
        first_window: u64,
        largest_window: u64,
        acknowledge_every: u32,
        handshake_bytes: usize,
        attempts: usize,
        attempt_bytes: u64,
        reset_pause: f64,
        retry_lifetime: f64,
        first_round_trip: f64,
    ) -> PyResult<Self> {
        Ok(Self(settings::Settings {
            streams,
            first_streams,
            stream_window,
            window,
            unsent,
            idle,
            keepalive,
            first_mtu,
            largest_mtu,
            congestion: congestion.parse()?,
            first_window,
            largest_window,
            acknowledge_every,
            handshake_bytes,
            attempts,
            attempt_bytes,
            reset_pause,
            retry_lifetime,
            first_round_trip,
        }))
    }
}

#[pyclass(frozen, get_all, skip_from_py_object)]
struct Info {
    rtt: f64,
    rtt_least: f64,
    window: u64,
    lost: u64,
    packets: u64,
    congested: u64,
    delivered: u64,
    bytes_sent: u64,
    bytes_received: u64,
    stream_frames: u64,
    mtu: u16,
    moves: u64,
    host: String,
    port: u16,
    local: Option<String>,
}

#[pyclass]
struct Engine(engine::Engine);

#[pymethods]
impl Engine {
    #[new]
    fn new(certificate: &[u8], key: &[u8], settings: &Settings, seed: &[u8], reset_key: &[u8]) -> PyResult<Self> {
        Ok(Self(engine::Engine::new(certificate, key, &settings.0, secret(seed)?, secret(reset_key)?)?))
    }

    fn connect(&mut self, host: &str, port: u16, now: f64) -> PyResult<u64> {
        Ok(self.0.connect(SocketAddr::new(ip(host)?, port), now)?)
    }

    #[pyo3(signature = (data, segment, host, port, local, ecn, now))]
    #[allow(clippy::too_many_arguments, reason = "one call for each read of the socket")]
    fn receive(
        &mut self,
        data: &[u8],
        segment: usize,
        host: &str,
        port: u16,
        local: Option<&str>,
        ecn: u8,
        now: f64,
    ) -> PyResult<Vec<u64>> {
        let local = local.map(ip).transpose()?;
        Ok(self.0.receive(data, segment, SocketAddr::new(ip(host)?, port), local, ecn, now)?)
    }

    fn attempts(&mut self) -> Vec<(u64, String, u16, bool)> {
        std::iter::from_fn(|| self.0.attempt())
            .map(|one| (one.number, one.from.ip().to_string(), one.from.port(), one.proven))
            .collect()
    }

    fn replies<'py>(&mut self, py: Python<'py>) -> Vec<Sent<'py>> {
        std::iter::from_fn(|| self.0.next_reply())
            .map(|Packet { data, segment, to, from, ecn }| sent(py, &data, (segment, to, from, ecn)))
            .collect()
    }

    fn accept(&mut self, attempt: u64, now: f64) -> PyResult<u64> {
        Ok(self.0.accept(attempt, now)?)
    }

    fn retry(&mut self, attempt: u64) -> PyResult<()> {
        Ok(self.0.retry(attempt)?)
    }

    fn refuse(&mut self, attempt: u64) -> PyResult<()> {
        Ok(self.0.refuse(attempt)?)
    }

    fn ignore(&mut self, attempt: u64) -> PyResult<()> {
        Ok(self.0.ignore(attempt)?)
    }

    fn transmit<'py>(
        &mut self,
        py: Python<'py>,
        connection: u64,
        most: usize,
        now: f64,
    ) -> PyResult<Option<Sent<'py>>> {
        let Some((transmit, data)) = self.0.transmit(connection, most, now)? else { return Ok(None) };
        let segment = transmit.segment_size.unwrap_or(0);
        let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
        Ok(Some(sent(py, data, (segment, transmit.destination, transmit.src_ip, ecn))))
    }

    fn timer(&mut self, connection: u64) -> PyResult<Option<f64>> {
        Ok(self.0.timer(connection)?)
    }

    fn on_timer(&mut self, connection: u64, now: f64) -> PyResult<()> {
        Ok(self.0.on_timer(connection, now)?)
    }

    fn events<'py>(&mut self, py: Python<'py>, connection: u64) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.0.events(connection)?.into_iter().map(|event| told(py, event)))
    }

    fn close(&mut self, connection: u64, code: u64, reason: &[u8], now: f64) -> PyResult<()> {
        Ok(self.0.close(connection, code, reason, now)?)
    }

    fn ping(&mut self, connection: u64) -> PyResult<u64> {
        Ok(self.0.ping(connection)?)
    }

    fn moved(&mut self, connection: u64) -> PyResult<()> {
        Ok(self.0.moved(connection)?)
    }

    fn set_window(&mut self, connection: u64, window: u64) -> PyResult<()> {
        Ok(self.0.set_window(connection, window)?)
    }

    fn info(&mut self, connection: u64) -> PyResult<Info> {
        let known = self.0.info(connection)?;
        Ok(Info {
            rtt: known.rtt,
            rtt_least: known.rtt_least,
            window: known.window,
            lost: known.lost,
            packets: known.packets,
            congested: known.congested,
            delivered: known.delivered,
            bytes_sent: known.bytes_sent,
            bytes_received: known.bytes_received,
            stream_frames: known.stream_frames,
            mtu: known.mtu,
            moves: known.moves,
            host: known.remote.ip().to_string(),
            port: known.remote.port(),
            local: known.local.map(|ip| ip.to_string()),
        })
    }

    fn connections(&self) -> usize {
        self.0.connections()
    }

    fn open(&mut self, connection: u64) -> PyResult<Option<u64>> {
        Ok(self.0.open(connection)?)
    }

    fn read<'py>(
        &mut self,
        py: Python<'py>,
        connection: u64,
        stream: u64,
        most: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, bool, bool)> {
        let (pieces, ended, owed) = self.0.read(connection, stream, most)?;
        let size = pieces.iter().map(Bytes::len).sum();
        let joined = PyBytes::new_with(py, size, |mut rest: &mut [u8]| {
            for piece in &pieces {
                if let Some((here, behind)) = std::mem::take(&mut rest).split_at_mut_checked(piece.len()) {
                    here.copy_from_slice(piece);
                    rest = behind;
                }
            }
            Ok(())
        })?;
        Ok((joined, ended, owed))
    }

    fn take_reset(&mut self, connection: u64, stream: u64) -> PyResult<Option<u64>> {
        Ok(self.0.take_reset(connection, stream)?)
    }

    fn write(&mut self, py: Python<'_>, connection: u64, stream: u64, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast::<PyBytes>() {
            return Ok(self.0.write(connection, stream, bytes.as_bytes())?);
        }
        let copied = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        Ok(self.0.write_bytes(connection, stream, copied.into())?)
    }

    fn finish(&mut self, connection: u64, stream: u64) -> PyResult<()> {
        Ok(self.0.finish(connection, stream)?)
    }

    fn reset(&mut self, connection: u64, stream: u64, code: u64) -> PyResult<()> {
        Ok(self.0.reset(connection, stream, code)?)
    }

    fn stop(&mut self, connection: u64, stream: u64, code: u64) -> PyResult<()> {
        Ok(self.0.stop(connection, stream, code)?)
    }
}

#[pymodule]
fn punchbridge_quic(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Engine>()?;
    module.add_class::<Settings>()?;
    module.add_class::<Info>()?;
    for (name, kind) in [
        ("QuicError", py.get_type::<QuicError>()),
        ("NoConnection", py.get_type::<NoConnection>()),
        ("NoAttempt", py.get_type::<NoAttempt>()),
        ("NoStream", py.get_type::<NoStream>()),
        ("StreamReset", py.get_type::<StreamReset>()),
        ("StreamStopped", py.get_type::<StreamStopped>()),
        ("CannotConnect", py.get_type::<CannotConnect>()),
        ("HandshakeFailed", py.get_type::<HandshakeFailed>()),
    ] {
        module.add(name, kind)?;
    }
    for (name, kind) in [
        ("CONNECTED", CONNECTED),
        ("OPENED", OPENED),
        ("READABLE", READABLE),
        ("WRITABLE", WRITABLE),
        ("STOPPED", STOPPED),
        ("FINISHED", FINISHED),
        ("AVAILABLE", AVAILABLE),
        ("PONG", PONG),
        ("MOVED", MOVED),
        ("LOST", LOST),
        ("GONE", GONE),
        ("BY_VERSION", Cause::Version as u8),
        ("BY_VIOLATION", Cause::Violation as u8),
        ("BY_ABORT", Cause::Aborted as u8),
        ("BY_CLOSE", Cause::Closed as u8),
        ("BY_RESET", Cause::Reset as u8),
        ("BY_SILENCE", Cause::Silent as u8),
        ("BY_US", Cause::Local as u8),
        ("BY_EXHAUSTION", Cause::Exhausted as u8),
    ] {
        module.add(name, kind)?;
    }
    Ok(())
}

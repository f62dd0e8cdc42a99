//! The engine's calls about streams.

use bytes::Bytes;
use quinn_proto::{Dir, FinishError, ReadError, ReadableError, StreamId, WriteError};

use crate::engine::{Engine, varint};
use crate::error::{Error, Result};

impl Engine {
    /// Opens a stream; the peer learns of it with its first bytes. None until the peer allows one more.
    pub fn open(&mut self, number: u64) -> Result<Option<u64>> {
        Ok(self.link(number)?.inner.streams().open(Dir::Bi).map(u64::from))
    }

    /// At most `most` bytes that have come, in pieces, and whether the stream ends behind them.
    ///
    /// What is read here is allowed to the peer again. Fails with `StreamReset` once, and with `NoStream` after that or
    /// after the end.
    pub fn read(&mut self, number: u64, stream: u64, most: usize) -> Result<(Vec<Bytes>, bool)> {
        let id = stream_id(stream)?;
        let mut reading = self.link(number)?.inner.recv_stream(id);
        let mut chunks = reading.read(true).map_err(|why| match why {
            ReadableError::ClosedStream | ReadableError::IllegalOrderedRead => Error::NoStream,
        })?;
        let (mut pieces, mut left, mut ended) = (Vec::new(), most, Ok(false));
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left = left.saturating_sub(chunk.bytes.len());
                    pieces.push(chunk.bytes);
                }
                Ok(None) => {
                    ended = Ok(true);
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    ended = Err(Error::StreamReset(code.into()));
                    break;
                }
            }
        }
        // What must be sent now is sent with whatever `transmit` is asked for next.
        let _ = chunks.finalize();
        Ok((pieces, ended?))
    }

    /// Takes bytes for sending, as many as fit now; 0 when none do. `Event::Writable` tells when more fit.
    pub fn write(&mut self, number: u64, stream: u64, data: &[u8]) -> Result<usize> {
        let id = stream_id(stream)?;
        taken(self.link(number)?.inner.send_stream(id).write(data))
    }

    /// As `write`, without a copy.
    pub fn write_bytes(&mut self, number: u64, stream: u64, data: Bytes) -> Result<usize> {
        let id = stream_id(stream)?;
        let written = self.link(number)?.inner.send_stream(id).write_chunks(&mut [data]);
        taken(written.map(|written| written.bytes))
    }

    /// Our half ends behind what was written.
    pub fn finish(&mut self, number: u64, stream: u64) -> Result<()> {
        let id = stream_id(stream)?;
        self.link(number)?.inner.send_stream(id).finish().map_err(|why| match why {
            FinishError::Stopped(code) => Error::StreamStopped(code.into()),
            FinishError::ClosedStream => Error::NoStream,
        })
    }

    /// Our half ends at once; what was written may be lost.
    pub fn reset(&mut self, number: u64, stream: u64, code: u64) -> Result<()> {
        let (id, code) = (stream_id(stream)?, varint(code)?);
        self.link(number)?.inner.send_stream(id).reset(code).map_err(|_| Error::NoStream)
    }

    /// Nothing more is read: the peer is to stop, and what has come is dropped and allowed again.
    pub fn stop(&mut self, number: u64, stream: u64, code: u64) -> Result<()> {
        let (id, code) = (stream_id(stream)?, varint(code)?);
        self.link(number)?.inner.recv_stream(id).stop(code).map_err(|_| Error::NoStream)
    }
}

/// Streams in one direction are not used, and quinn-proto panics when such a one is used the wrong way.
fn stream_id(stream: u64) -> Result<StreamId> {
    let id = StreamId::from(varint(stream)?);
    if id.dir() == Dir::Bi { Ok(id) } else { Err(Error::NoStream) }
}

fn taken(written: std::result::Result<usize, WriteError>) -> Result<usize> {
    match written {
        Ok(count) => Ok(count),
        Err(WriteError::Blocked) => Ok(0),
        Err(WriteError::Stopped(code)) => Err(Error::StreamStopped(code.into())),
        Err(WriteError::ClosedStream) => Err(Error::NoStream),
    }
}

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

    /// At most `most` bytes that have come, in pieces; whether the stream ends behind them; whether the peer is to be
    /// told soon of what it may send again.
    ///
    /// What is read here is allowed to the peer again. Fails with `StreamReset` once, and with `NoStream` after that or
    /// after the end.
    pub fn read(&mut self, number: u64, stream: u64, most: usize) -> Result<(Vec<Bytes>, bool, bool)> {
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
        let owed = chunks.finalize().should_transmit();
        Ok((pieces, ended?, owed))
    }

    /// Whether the peer has reset the stream, with its code; told once. For whoever has no room to read.
    pub fn take_reset(&mut self, number: u64, stream: u64) -> Result<Option<u64>> {
        let id = stream_id(stream)?;
        let code = self.link(number)?.inner.recv_stream(id).received_reset().map_err(|_| Error::NoStream)?;
        Ok(code.map(u64::from))
    }

    /// Takes bytes for sending, as many as fit now. When that is not all, `Event::Writable` tells when more fit.
    pub fn write(&mut self, number: u64, stream: u64, data: &[u8]) -> Result<usize> {
        let id = stream_id(stream)?;
        let mut sending = self.link(number)?.inner.send_stream(id);
        written(data.len(), |start| sending.write(data.get(start..).unwrap_or_default()))
    }

    /// As `write`, without a copy.
    pub fn write_bytes(&mut self, number: u64, stream: u64, data: Bytes) -> Result<usize> {
        let id = stream_id(stream)?;
        let mut sending = self.link(number)?.inner.send_stream(id);
        let (size, mut rest) = (data.len(), [data]);
        written(size, |_| sending.write_chunks(&mut rest).map(|done| done.bytes))
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

/// Writes until all is taken or nothing fits: only a write that was refused is told of when more fits.
fn written(size: usize, mut write: impl FnMut(usize) -> std::result::Result<usize, WriteError>) -> Result<usize> {
    let mut total = 0;
    while total < size {
        match write(total) {
            Ok(count) => total += count,
            Err(WriteError::Blocked) => break,
            Err(WriteError::Stopped(code)) => return Err(Error::StreamStopped(code.into())),
            Err(WriteError::ClosedStream) => return Err(Error::NoStream),
        }
    }
    Ok(total)
}

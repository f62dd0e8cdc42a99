//! The stream protocols of the interop suite: echo, count, reset, slow and perf, both sides of each.

use std::{io, sync::Arc, sync::atomic::{AtomicU64, Ordering}, time::{Duration, Instant}};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::{join_all, try_join}};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use serde_json::{Value, json};

const ECHO: StreamProtocol = StreamProtocol::new("/interop/echo/1.0.0");
const COUNT: StreamProtocol = StreamProtocol::new("/interop/count/1.0.0");
const RESET: StreamProtocol = StreamProtocol::new("/interop/reset/1.0.0");
const SLOW: StreamProtocol = StreamProtocol::new("/interop/slow/1.0.0");
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
const PAUSE: Duration = Duration::from_secs(2);
const BLOCK: usize = 65536;

/// Serves all protocols until the program ends. A handler that fails drops its stream, which resets it.
pub fn serve(control: Control) {
    for protocol in [ECHO, COUNT, RESET, SLOW, PERF] {
        let mut incoming = control.clone().accept(protocol.clone()).expect("accepted once");
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                tokio::spawn(handle(protocol.clone(), stream));
            }
        });
    }
}

async fn handle(protocol: StreamProtocol, mut stream: Stream) -> io::Result<()> {
    if protocol == ECHO {
        let (reader, mut writer) = stream.split();
        futures::io::copy(reader, &mut writer).await?;
        return writer.close().await;
    } else if protocol == RESET {
        return stream.read_exact(&mut [0; 4]).await;
    } else if protocol == PERF {
        let mut wanted = [0; 8];
        stream.read_exact(&mut wanted).await?;
        drain(&mut stream).await?;
        zeros(&mut stream, u64::from_be_bytes(wanted), None).await?;
    } else {
        if protocol == SLOW {
            tokio::time::sleep(PAUSE).await;
        }
        let count = drain(&mut stream).await?;
        stream.write_all(&count.to_be_bytes()).await?;
    }
    stream.close().await
}

async fn drain(stream: &mut Stream) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; BLOCK], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

async fn zeros(stream: &mut Stream, mut left: u64, written: Option<&AtomicU64>) -> io::Result<()> {
    let block = vec![0; BLOCK];
    while left > 0 {
        let n = stream.write(&block[..left.min(BLOCK as u64) as usize]).await? as u64;
        left -= n;
        if let Some(counter) = written {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
    stream.flush().await
}

pub async fn perform(mut control: Control, peer: PeerId, order: &Value) -> Result<Value, String> {
    let number = |name: &str| order[name].as_u64().unwrap_or_default();
    let name = order["do"].as_str().unwrap_or_default();
    let protocol = match name {
        "echo" | "many" => ECHO,
        "count" => COUNT,
        "reset" => RESET,
        "slow" => SLOW,
        "perf" => PERF,
        other => return Err(format!("unknown order {other:?}")),
    };
    if name == "many" {
        return many(control, peer, number("count")).await;
    }
    let stream = control.open_stream(peer, protocol).await.map_err(|e| e.to_string())?;
    match name {
        "echo" => echo(stream, number("size")).await,
        "reset" => Ok(reset(stream).await),
        "perf" => perf(stream, number("up"), number("down")).await,
        _ => counted(stream, number("size")).await,
    }
    .map_err(|e| format!("{}: {e}", e.kind()))
}

/// The byte at a place of the echoed data: a pattern that no shift by a block leaves unseen.
fn byte_at(place: u64) -> u8 {
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

async fn echo(stream: Stream, size: u64) -> io::Result<Value> {
    let began = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let mut place = 0;
        while place < size {
            let block: Vec<u8> = (place..size.min(place + BLOCK as u64)).map(byte_at).collect();
            writer.write_all(&block).await?;
            place += block.len() as u64;
        }
        writer.close().await
    };
    let receive = async {
        let (mut buffer, mut place, mut same) = (vec![0; BLOCK], 0, true);
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                return Ok((place, same && place == size));
            }
            same &= buffer[..n].iter().zip(place..).all(|(b, at)| *b == byte_at(at));
            place += n as u64;
        }
    };
    let ((), (bytes, same)) = try_join(send, receive).await?;
    Ok(json!({"bytes": bytes, "same": same, "seconds": began.elapsed().as_secs_f64()}))
}

async fn reset(mut stream: Stream) -> Value {
    let seen = async {
        stream.write_all(&[0; 4]).await?;
        stream.flush().await?;
        drain(&mut stream).await
    }
    .await;
    match seen {
        Ok(_) => json!({"seen": "end"}),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => json!({"seen": "reset"}),
        Err(error) => json!({"seen": format!("{}: {error}", error.kind())}),
    }
}

/// Also says how much the other side let us write in the first second.
async fn counted(mut stream: Stream, size: u64) -> io::Result<Value> {
    let (written, early) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let timer = tokio::spawn({
        let (written, early) = (written.clone(), early.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            early.store(written.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    });
    zeros(&mut stream, size, Some(&written)).await?;
    stream.close().await?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).await?;
    timer.abort();
    Ok(json!({"count": u64::from_be_bytes(count), "first_second": early.load(Ordering::Relaxed)}))
}

async fn perf(mut stream: Stream, up: u64, down: u64) -> io::Result<Value> {
    let began = Instant::now();
    stream.write_all(&down.to_be_bytes()).await?;
    zeros(&mut stream, up, None).await?;
    stream.close().await?;
    let got = drain(&mut stream).await?;
    Ok(json!({"down": got, "seconds": began.elapsed().as_secs_f64()}))
}

/// Opens all streams, each known to be served, before it uses any further.
async fn many(mut control: Control, peer: PeerId, count: u64) -> Result<Value, String> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = control.open_stream(peer, ECHO).await.map_err(|e| e.to_string())?;
        stream.write_all(&[0]).await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        stream.read_exact(&mut [0]).await.map_err(|e| e.to_string())?;
        open.push(stream);
    }
    let results = join_all(open.into_iter().map(|stream| echo(stream, 1000))).await;
    let good = results.iter().filter(|r| matches!(r, Ok(v) if v["same"] == true && v["bytes"] == 1000)).count();
    Ok(json!({"good": good}))
}

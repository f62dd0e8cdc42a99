//! tonic on libp2p streams: a server on inbound streams and a client that dials one, with bytes as messages.

use std::{convert::Infallible, io, pin::Pin, task::{Context, Poll}};

use bytes::{Buf, BufMut, Bytes};
use futures::{StreamExt, channel::mpsc, future::BoxFuture, stream};
use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tonic::{
    Code, Request, Response, Status, Streaming, body::Body, codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder}, metadata::MetadataMap,
    transport::{Endpoint, Server, server::Connected},
};
use tower::service_fn;

const GRPC: StreamProtocol = StreamProtocol::new("/punchbridge/grpc/1.0.0");
const ECHO: &str = "/interop.Bytes/Echo";
const CHAT: &str = "/interop.Bytes/Chat";
const LARGEST: usize = 128 << 20;
const CHATS: usize = 50;

/// Carries messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// An inbound stream; tonic asks its server's streams who is connected.
struct Inbound(PeerId, Compat<Stream>);

impl Connected for Inbound {
    type ConnectInfo = PeerId;
    fn connect_info(&self) -> PeerId {
        self.0
    }
}

impl AsyncRead for Inbound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_read(cx, into)
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.1).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_shutdown(cx)
    }
}

/// One message and the trailer: tonic's unary answers have none of their own, a stream's end may carry a status OK with it.
async fn echo(request: Request<Bytes>) -> Result<Response<stream::Iter<std::vec::IntoIter<Result<Bytes, Status>>>>, Status> {
    let message = request.into_inner();
    if message == "fail" {
        return Err(Status::not_found("nothing here"));
    }
    let mut trailer = MetadataMap::new();
    trailer.insert("x-size", message.len().into());
    Ok(Response::new(stream::iter(vec![Ok(message), Err(Status::with_metadata(Code::Ok, "", trailer))])))
}

async fn chat(request: Request<Streaming<Bytes>>) -> Result<Response<Streaming<Bytes>>, Status> {
    Ok(Response::new(request.into_inner()))
}

fn route(request: http::Request<Body>) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> {
    Box::pin(async move {
        let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(LARGEST);
        Ok(match request.uri().path() {
            ECHO => grpc.server_streaming(service_fn(echo), request).await,
            CHAT => grpc.streaming(service_fn(chat), request).await,
            path => Status::unimplemented(path).into_http(),
        })
    })
}

/// Serves on each inbound stream until the program ends.
pub fn serve(mut control: Control) {
    let incoming = control.accept(GRPC).expect("accepted once");
    let streams = incoming.map(|(peer, stream)| Ok::<_, io::Error>(Inbound(peer, stream.compat())));
    tokio::spawn(Server::builder().serve_with_incoming(service_fn(route), streams));
}

pub async fn call(control: Control, peer: PeerId, size: u64) -> Result<Value, String> {
    let dial = service_fn(move |_: Uri| {
        let mut control = control.clone();
        async move { control.open_stream(peer, GRPC).await.map(|s| TokioIo::new(s.compat())) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{peer}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect_with_connector(dial).await.map_err(|e| crate::events::chain(&e))?;
    let client = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST);
    all(client, size as usize).await.map_err(|e| crate::events::chain(&e))
}

async fn all(mut client: tonic::client::Grpc<tonic::transport::Channel>, size: usize) -> Result<Value, Status> {
    let unready = |e: tonic::transport::Error| Status::unavailable(e.to_string());
    let sent: Bytes = (0..size).map(|i| (i * 31 >> 4) as u8).collect();
    client.ready().await.map_err(unready)?;
    let got = client.unary(Request::new(sent.clone()), PathAndQuery::from_static(ECHO), Raw).await?;
    let trailer: Vec<&str> = got.metadata().get_all("x-size").iter().filter_map(|v| v.to_str().ok()).collect();
    client.ready().await.map_err(unready)?;
    let failed = client.unary(Request::new(Bytes::from_static(b"fail")), PathAndQuery::from_static(ECHO), Raw).await;
    let status = failed.err().map_or("OK".into(), |e| format!("{:?}", e.code()));
    client.ready().await.map_err(unready)?;
    let (sender, receiver) = mpsc::unbounded();
    let say = |i: usize| sender.unbounded_send(Bytes::from(i.to_string())).map_err(|e| Status::internal(e.to_string()));
    say(0)?; // a server may send its headers with its first message
    let mut heard = client.streaming(Request::new(receiver), PathAndQuery::from_static(CHAT), Raw).await?.into_inner();
    let mut count = 0;
    for i in 0..CHATS {
        count += usize::from(heard.message().await? == Some(Bytes::from(i.to_string())));
        if i + 1 < CHATS {
            say(i + 1)?;
        }
    }
    drop(sender);
    let ended = heard.message().await?.is_none();
    Ok(json!({"same": got.get_ref() == &sent, "trailer": trailer, "status": status, "chats": count, "ended": ended}))
}

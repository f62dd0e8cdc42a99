//! How connections behave. Every value comes from outside; nothing here has a default.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::error::{Error, Result};
use crate::seen::Watching;

/// What decides how much is on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// RFC 9002, section 7.
    NewReno,
    /// Bottleneck bandwidth and round trip; quinn-proto calls its own experimental.
    Bbr,
}

impl std::str::FromStr for Congestion {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cubic" => Ok(Self::Cubic),
            "new-reno" => Ok(Self::NewReno),
            "bbr" => Ok(Self::Bbr),
            _ => Err(Error::unusable("congestion", format!("{name} is none of cubic, new-reno, bbr"))),
        }
    }
}

/// Bounds and times of an endpoint and its connections. Bytes, and seconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Streams of one connection that the peer may have open at once.
    pub streams: u32,
    /// As many at first. quinn-proto has a place in its tables for each from the start; when half of those that are
    /// allowed are open, four times as many are.
    pub first_streams: u32,
    /// Unread bytes that a peer may send on one stream.
    pub stream_window: u64,
    /// Unread bytes that a peer may send on one connection.
    pub window: u64,
    /// Bytes taken for sending beyond those that may be on the way.
    pub unsent: u64,
    /// Silence that ends a connection.
    pub idle: f64,
    /// Silence after which a packet is sent to keep it.
    pub keepalive: f64,
    /// The size of datagrams at first.
    pub first_mtu: u16,
    /// The largest datagram that is tried; `first_mtu` for no trying.
    pub largest_mtu: u16,
    /// Which controller.
    pub congestion: Congestion,
    /// Bytes on the way at first; 0 leaves it to the controller.
    pub first_window: u64,
    /// Bytes on the way at most; 0 leaves it to the controller.
    pub largest_window: u64,
    /// Packets that the peer is asked to acknowledge together; 0 leaves it to the peer.
    pub acknowledge_every: u32,
    /// Bytes of the handshake that may come out of order.
    pub handshake_bytes: usize,
    /// Attempts to connect that may wait for a decision.
    pub attempts: usize,
    /// Bytes kept of one attempt that waits for a decision, beyond its first datagram.
    pub attempt_bytes: u64,
    /// Seconds between two stateless resets.
    pub reset_pause: f64,
    /// Seconds that a Retry token is good for.
    pub retry_lifetime: f64,
    /// The round trip, in seconds, to a peer that came to us, where none was measured: at first, and at another IP.
    pub first_round_trip: f64,
}

/// A duration of a setting. Fails for what is none, such as a negative number.
pub fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).map_err(|why| Error::unusable(name, why))
}

fn varint(name: &str, value: u64) -> Result<VarInt> {
    VarInt::from_u64(value).map_err(|why| Error::unusable(name, why))
}

fn watched<F>(factory: F, largest: u64) -> Arc<dyn ControllerFactory + Send + Sync>
where
    F: ControllerFactory + Send + Sync + 'static,
{
    Arc::new(Watching { inner: Arc::new(factory), largest: if largest == 0 { u64::MAX } else { largest } })
}

impl Settings {
    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        macro_rules! made {
            ($kind:ty) => {{
                let mut config = <$kind>::default();
                if self.first_window > 0 {
                    config.initial_window(self.first_window);
                }
                watched(config, self.largest_window)
            }};
        }
        match self.congestion {
            Congestion::Cubic => made!(CubicConfig),
            Congestion::NewReno => made!(NewRenoConfig),
            Congestion::Bbr => made!(BbrConfig),
        }
    }

    /// What quinn-proto takes for connections that others make. Their peers move, servers do not (RFC 9000 section 9).
    pub(crate) fn accepting(&self) -> Result<TransportConfig> {
        let mut config = self.transport()?;
        config.initial_rtt(seconds("first_round_trip", self.first_round_trip)?);
        Ok(config)
    }

    /// What it takes for those that we make.
    pub(crate) fn transport(&self) -> Result<TransportConfig> {
        if !(1200..=65527).contains(&self.first_mtu) || self.largest_mtu < self.first_mtu {
            return Err(Error::unusable("first_mtu", "1200 to 65527, and largest_mtu is not below it"));
        }
        let idle = seconds("idle", self.idle)?.try_into().map_err(|why| Error::unusable("idle", why))?;
        let keepalive = seconds("keepalive", self.keepalive)?;
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(self.first_streams.min(self.streams).into())
            // libp2p has streams in both directions only.
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(varint("stream_window", self.stream_window)?)
            .receive_window(varint("window", self.window)?)
            .send_window(self.unsent)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval((!keepalive.is_zero()).then_some(keepalive))
            .crypto_buffer_size(self.handshake_bytes)
            .datagram_receive_buffer_size(None)
            .initial_mtu(self.first_mtu)
            .congestion_controller_factory(self.controller());
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.largest_mtu);
        config.mtu_discovery_config((self.largest_mtu > self.first_mtu).then_some(discovery));
        if self.acknowledge_every > 0 {
            let mut acks = AckFrequencyConfig::default();
            acks.ack_eliciting_threshold(self.acknowledge_every.into());
            config.ack_frequency_config(Some(acks));
        }
        Ok(config)
    }
}

//! What a congestion controller is told anyway: which packet was acknowledged last, and how many bytes arrived.
//!
//! quinn-proto tells nobody when a PING was answered. A controller learns of every acknowledgement, so ours notes it
//! and passes everything on unchanged. It also bounds the window, which BBR grows beyond what sockets hold, and widens
//! it where the round trip is so short that the turns of two programs on the processor decide, not the path.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};

/// Round trips below this count as this, as they do for the windows of the house. A window for less is used up before
/// the peer had its turn, and sends are paced by timers that take longer than what they wait for.
const SHORTEST: Duration = Duration::from_millis(2);

/// What a window is widened to at most, for that: it fits into the sockets of a system as it is installed.
const WIDE: u64 = 256 * 1024;

/// What one path has seen. Packet numbers are one more than on the wire, so that 0 is none.
#[derive(Debug, Default)]
pub struct Seen {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    delivered: AtomicU64,
}

impl Seen {
    /// The packet that was sent last.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The highest packet that was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Bytes of packets that arrived.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }
}

/// What the controller of a connection has seen on its path.
pub fn seen(controller: &dyn Controller) -> Option<Arc<Seen>> {
    let watched = controller.clone_box().into_any().downcast::<Watched>().ok()?;
    Some(watched.seen)
}

/// Makes controllers that note what they see, and whose window has a bound.
pub struct Watching<F> {
    /// What decides.
    pub inner: Arc<F>,
    /// The bound, in bytes.
    pub largest: u64,
}

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Watching<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Watched {
            inner: Arc::clone(&self.inner).build(now, current_mtu),
            largest: self.largest,
            widening: 1,
            seen: Arc::default(),
        })
    }
}

struct Watched {
    inner: Box<dyn Controller>,
    largest: u64,
    /// How many of its shortest round trips are one of `SHORTEST`.
    widening: u64,
    seen: Arc<Seen>,
}

impl Controller for Watched {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.seen.sent.store(last_packet_number.saturating_add(1), Ordering::Relaxed);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.seen.delivered.fetch_add(bytes, Ordering::Relaxed);
        let times = SHORTEST.as_nanos() / rtt.min().as_nanos().max(1);
        self.widening = u64::try_from(times).unwrap_or(u64::MAX).clamp(1, 64);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        if let Some(number) = largest {
            self.seen.acknowledged.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.inner.window();
        window.max(window.saturating_mul(self.widening).min(WIDE)).min(self.largest)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            largest: self.largest,
            widening: self.widening,
            seen: Arc::clone(&self.seen),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

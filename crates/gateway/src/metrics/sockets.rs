//! Metrics of sockets and their frames.

use confab_protocol::frame::{ClientFrame, ServerFrame};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{AllConnectionMetrics, at_zero, register};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabel {
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrameLabels {
    direction: &'static str,
    r#type: &'static str,
}

/// Metrics of sockets.
#[derive(Debug, Clone)]
pub(crate) struct SocketMetrics {
    open: Gauge,
    ended: Family<CloseLabel, Counter>,
    /// Those of their frames.
    pub(crate) frames: FrameMetrics,
    /// Those of all connections.
    pub(crate) connections: AllConnectionMetrics,
}

/// Counts a socket as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSocket(Gauge);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl SocketMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            ended: Family::default(),
            frames: FrameMetrics::default(),
            connections: AllConnectionMetrics::new(registry),
        };
        register(registry, "confab_sockets", metrics.open.clone());
        register(registry, "confab_sockets_ended", metrics.ended.clone());
        metrics.frames.register(registry);
        at_zero(
            &metrics.ended,
            [1000, 1001, 1006].map(|code| CloseLabel { code }),
        );
        metrics
    }

    pub(crate) fn opened(&self) -> OpenSocket {
        self.open.inc();
        OpenSocket(self.open.clone())
    }

    pub(crate) fn ended(&self, code: u16) {
        self.ended
            .get_or_create(&CloseLabel {
                code: u32::from(code),
            })
            .inc();
    }
}

/// Metrics of frames. An event goes to many sockets, so that its counters are looked up once.
#[derive(Debug, Clone)]
pub(crate) struct FrameMetrics {
    frames: Family<FrameLabels, Counter>,
    bytes: Family<FrameLabels, Counter>,
    events: Counter,
    event_bytes: Counter,
}

impl Default for FrameMetrics {
    fn default() -> Self {
        let frames: Family<_, Counter> = Family::default();
        let bytes: Family<_, Counter> = Family::default();
        let labels = FrameLabels {
            direction: "out",
            r#type: "event",
        };
        Self {
            events: frames.get_or_create_owned(&labels),
            event_bytes: bytes.get_or_create_owned(&labels),
            frames,
            bytes,
        }
    }
}

impl FrameMetrics {
    fn register(&self, registry: &mut Registry) {
        register(registry, "confab_socket_frames", self.frames.clone());
        register(registry, "confab_socket_frame_payload", self.bytes.clone());
    }

    /// A frame came; none means that it was none of ours.
    pub(crate) fn heard(&self, frame: Option<&ClientFrame>, bytes: usize) {
        self.count("in", frame.map_or("bad", client_type), bytes);
    }

    /// A frame of the gateway's own was queued for a client.
    pub(crate) fn told(&self, frame: &ServerFrame, bytes: usize) {
        self.count("out", server_type(frame), bytes);
    }

    /// An event was queued for a client.
    pub(crate) fn event(&self, bytes: usize) {
        self.events.inc();
        self.event_bytes.inc_by(bytes as u64);
    }

    fn count(&self, direction: &'static str, r#type: &'static str, bytes: usize) {
        let labels = FrameLabels { direction, r#type };
        self.frames.get_or_create(&labels).inc();
        self.bytes.get_or_create(&labels).inc_by(bytes as u64);
    }
}

const fn client_type(frame: &ClientFrame) -> &'static str {
    match frame {
        ClientFrame::Hello(_) => "hello",
        ClientFrame::Seen(_) => "seen",
        ClientFrame::Bye(_) => "bye",
        ClientFrame::Send(_) => "send",
        ClientFrame::Edit(_) => "edit",
        ClientFrame::Delete(_) => "delete",
        ClientFrame::Read(_) => "read",
        ClientFrame::Typing(_) => "typing",
        ClientFrame::Presence(_) => "presence",
        ClientFrame::Auth(_) => "auth",
        ClientFrame::Ping(_) => "ping",
    }
}

const fn server_type(frame: &ServerFrame) -> &'static str {
    match frame {
        ServerFrame::Welcome(_) => "welcome",
        ServerFrame::Ack(_) => "ack",
        ServerFrame::Error(_) => "error",
        ServerFrame::Typing(_) => "typing",
        ServerFrame::Receipt(_) => "receipt",
        ServerFrame::Presence(_) => "presence",
        ServerFrame::PresenceSnapshot(_) => "presenceSnapshot",
        ServerFrame::Truncated(_) => "truncated",
        ServerFrame::ResumeToken(_) => "resumeToken",
        ServerFrame::TokenExpiring(_) => "tokenExpiring",
        ServerFrame::Goaway(_) => "goaway",
        ServerFrame::Pong { .. } => "pong",
    }
}

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Error;

mod late;

use late::Late;

/// The treatment of connections and bytes by a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Carries them.
    Pass,
    /// Holds bytes back, as a network that loses every packet; new connections are taken and held, too.
    Stall,
    /// Takes bytes and loses them. What lost some is cut when traffic changes again.
    Swallow,
    /// As [`Traffic::Swallow`], but what comes from the one who connected is carried: a half-open link.
    SwallowDown,
    /// As [`Traffic::Swallow`], but what goes to the one who connected is carried.
    SwallowUp,
    /// Carries so many bytes a second to the one who connected, and all the other way.
    Throttle(u32),
    /// Carries each byte to the one who connected so much later, and all the other way at once. What is late already stays so.
    DelayDown(Duration),
    /// Cuts all links and refuses new ones.
    Refuse,
}

impl Traffic {
    fn swallows(self, way: Direction) -> bool {
        match self {
            Self::Swallow => true,
            Self::SwallowDown => way == Direction::Down,
            Self::SwallowUp => way == Direction::Up,
            Self::Pass | Self::Stall | Self::Throttle(_) | Self::DelayDown(_) | Self::Refuse => {
                false
            }
        }
    }

    /// Returns how much later bytes are carried.
    fn delay(self, way: Direction) -> Duration {
        match self {
            Self::DelayDown(delay) if way == Direction::Down => delay,
            _ => Duration::ZERO,
        }
    }

    /// The bytes that may pass at once, and after how long the next.
    fn pace(self, way: Direction) -> Option<(usize, Duration)> {
        /// In how many parts a second's bytes go.
        const PARTS_PER_SECOND: u32 = 20;
        match self {
            Self::Throttle(bytes) if way == Direction::Down => {
                let part = usize::try_from(bytes / PARTS_PER_SECOND).unwrap_or(usize::MAX);
                Some((part.max(1), Duration::from_secs(1) / PARTS_PER_SECOND))
            }
            _ => None,
        }
    }
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// From the one who connected to the target.
    Up,
    /// Back.
    Down,
}

/// A TCP link that tests can hold, lose and cut. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: watch::Sender<Control>,
    listening: watch::Receiver<bool>,
    _task: JoinSet<()>,
}

/// The control of the links.
#[derive(Clone, Copy, Debug)]
struct Control {
    traffic: Traffic,
    /// Links made before a cut end.
    cuts: u64,
    /// Links made before a fuse was lit end when they have carried so many more bytes down.
    fuses: u64,
    fuse: usize,
    /// Links made before a silence carry nothing any more.
    silences: u64,
    /// Where new links lead.
    address: SocketAddr,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and carries each connection to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self, Error> {
        Self::with_buffer(target, None).await
    }

    /// As [`Proxy::start`], and what the kernel keeps of each link on its way to the one who connected is about so many
    /// bytes, so that the target feels a slow one.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub async fn narrow(target: SocketAddr, buffer: u32) -> Result<Self, Error> {
        Self::with_buffer(target, Some(buffer)).await
    }

    async fn with_buffer(target: SocketAddr, buffer: Option<u32>) -> Result<Self, Error> {
        let port = crate::free_port()?;
        let listener = listen(port)
            .await
            .map_err(Error::io(format!("listen on port {port}")))?;
        let (control, control_read) = watch::channel(Control {
            traffic: Traffic::Pass,
            cuts: 0,
            fuses: 0,
            fuse: 0,
            silences: 0,
            address: target,
        });
        let (listening_write, listening) = watch::channel(true);
        let mut task = JoinSet::new();
        task.spawn(serve(
            Some(listener),
            port,
            buffer,
            control_read,
            listening_write,
        ));
        Ok(Self {
            port,
            control,
            listening,
            _task: task,
        })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens to bytes and connections; what is said about listening holds on return.
    pub async fn set(&mut self, traffic: Traffic) {
        self.control
            .send_modify(|control| control.traffic = traffic);
        let wanted = traffic != Traffic::Refuse;
        // An error means that the task has ended, with everything cut.
        let _ended = self
            .listening
            .wait_for(|listening| *listening == wanted)
            .await
            .is_err();
    }

    /// Cuts each present link when it has carried so many more bytes to the one who connected, amid whatever they are.
    pub fn cut_after(&self, bytes: usize) {
        self.control.send_modify(|control| {
            control.fuses += 1;
            control.fuse = bytes;
        });
    }

    /// All present links carry nothing any more, either way, and stay open, as when a machine between forgot them; new ones are
    /// treated as before.
    pub fn silence(&self) {
        self.control.send_modify(|control| control.silences += 1);
    }

    /// New links lead to `target`; present ones stay where they are.
    pub fn lead_to(&self, target: SocketAddr) {
        self.control.send_modify(|control| control.address = target);
    }

    /// Cuts all present links; new ones are treated as before.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }
}

/// The address that links lead to.
#[derive(Clone, Copy, Debug)]
struct LinkTarget {
    address: SocketAddr,
    buffer: Option<u32>,
}

impl LinkTarget {
    async fn connect(self) -> std::io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(buffer) = self.buffer {
            socket.set_recv_buffer_size(buffer)?;
        }
        socket.connect(self.address).await
    }
}

async fn listen(port: u16) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn serve(
    mut listener: Option<TcpListener>,
    port: u16,
    buffer: Option<u32>,
    mut control: watch::Receiver<Control>,
    listening: watch::Sender<bool>,
) {
    let mut links = JoinSet::new();
    loop {
        if control.borrow().traffic == Traffic::Refuse {
            listener = None;
            links.shutdown().await;
        } else if listener.is_none() {
            listener = relisten(port).await;
            if listener.is_none() {
                tracing::error!(port, "the port was taken by another: this proxy has ended");
                return;
            }
        }
        listening.send_replace(listener.is_some());
        tokio::select! {
            changed = control.changed() => if changed.is_err() { return },
            Some(stream) = accept(listener.as_ref()) => {
                let address = control.borrow().address;
                links.spawn(link(stream, LinkTarget { address, buffer }, control.clone()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// The port may be taken for a moment by a connection that happened to get its number.
async fn relisten(port: u16) -> Option<TcpListener> {
    for _ in 0..500 {
        match listen(port).await {
            Ok(listener) => return Some(listener),
            Err(error) => tracing::debug!(port, %error, "cannot listen yet"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => None,
    }
}

async fn link(near: TcpStream, target: LinkTarget, mut control: watch::Receiver<Control>) {
    let Control { cuts, silences, .. } = *control.borrow_and_update();
    let up_to = control.clone();
    let carried = async {
        let far = target.connect().await.ok()?;
        // Small packets go at once, as they would without the proxy between.
        near.set_nodelay(true)
            .and_then(|()| far.set_nodelay(true))
            .ok()?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::try_join!(
            carry(Direction::Up, near_read, far_write, up_to.clone()),
            carry(Direction::Down, far_read, near_write, up_to)
        )
        .ok()
    };
    let mut carried = std::pin::pin!(carried);
    tokio::select! {
        _ = carried.as_mut() => return,
        _ = control.wait_for(|control| control.cuts != cuts || control.silences != silences) => {}
    }
    // Kept, and not polled: whoever waits for it waits.
    let _ended = control
        .wait_for(|control| control.cuts != cuts)
        .await
        .is_err();
}

/// Why both directions of a link must end.
#[derive(Debug)]
struct Broken;

/// Carries one direction to its end, which is handed on by dropping `to`.
async fn carry(
    way: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    let fuses = control.borrow().fuses;
    let mut left = None;
    let mut late = Late::default();
    loop {
        let passing = control
            .wait_for(|control| control.traffic != Traffic::Stall)
            .await;
        let now = *passing.map_err(|_ended| Broken)?;
        if lost && !now.traffic.swallows(way) {
            return Err(Broken);
        }
        if way == Direction::Down && now.fuses != fuses {
            left.get_or_insert(now.fuse);
        }
        let pace = now.traffic.pace(way);
        let most = pace.map_or(buffer.len(), |(part, _)| part.min(buffer.len()));
        let room = buffer.get_mut(..most).unwrap_or_default();
        let count = tokio::select! {
            biased;
            changed = control.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Err(Broken),
            },
            due = late.next() => {
                to.write_all(&due).await.map_err(|_gone| Broken)?;
                continue;
            }
            read = from.read(room), if late.has_room() => read.unwrap_or(0),
        };
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            while !late.is_empty() {
                let due = late.next().await;
                to.write_all(&due).await.map_err(|_gone| Broken)?;
            }
            return Ok(());
        };
        if now.traffic.swallows(way) {
            lost = true;
            continue;
        }
        let delay = now.traffic.delay(way);
        if !delay.is_zero() || !late.is_empty() {
            late.push(delay, bytes);
            continue;
        }
        let part = bytes.get(..left.unwrap_or(count)).unwrap_or(bytes);
        to.write_all(part).await.map_err(|_gone| Broken)?;
        left = left.map(|left| left.saturating_sub(count));
        if left == Some(0) {
            return Err(Broken);
        }
        if let Some((_, wait)) = pace {
            tokio::time::sleep(wait).await;
        }
    }
}

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Error;

/// What a proxy does with connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Carries them.
    Pass,
    /// Holds bytes back, as a network that loses every packet; new connections are taken and held, too.
    Stall,
    /// Takes bytes and loses them. What lost some is cut when traffic changes again.
    Swallow,
    /// Cuts all links and refuses new ones.
    Refuse,
}

/// A TCP link that tests can hold, lose and cut. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: watch::Sender<Control>,
    listening: watch::Receiver<bool>,
    _task: JoinSet<()>,
}

/// What the links are told.
#[derive(Clone, Copy, Debug)]
struct Control {
    traffic: Traffic,
    /// Links made before a cut end.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and carries each connection to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self, Error> {
        let port = crate::free_port()?;
        let listener = listen(port)
            .await
            .map_err(Error::io(format!("listen on port {port}")))?;
        let (control, control_read) = watch::channel(Control {
            traffic: Traffic::Pass,
            cuts: 0,
        });
        let (listening_write, listening) = watch::channel(true);
        let mut task = JoinSet::new();
        task.spawn(serve(
            Some(listener),
            port,
            target,
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

    /// Cuts all present links; new ones are treated as before.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }
}

async fn listen(port: u16) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn serve(
    mut listener: Option<TcpListener>,
    port: u16,
    target: SocketAddr,
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
                links.spawn(link(stream, target, control.clone()));
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

async fn link(near: TcpStream, target: SocketAddr, mut control: watch::Receiver<Control>) {
    let cuts = control.borrow_and_update().cuts;
    let up_to = control.clone();
    let carried = async {
        let far = TcpStream::connect(target).await.ok()?;
        // Small packets go at once, as they would without the proxy between.
        near.set_nodelay(true)
            .and_then(|()| far.set_nodelay(true))
            .ok()?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::try_join!(
            carry(near_read, far_write, up_to.clone()),
            carry(far_read, near_write, up_to)
        )
        .ok()
    };
    tokio::select! {
        _ = carried => {}
        _ = control.wait_for(|control| control.cuts != cuts) => {}
    }
}

/// Why both directions of a link must end.
#[derive(Debug)]
struct Broken;

/// Carries one direction to its end, which is handed on by dropping `to`.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    loop {
        let passing = control
            .wait_for(|control| control.traffic != Traffic::Stall)
            .await
            .map(|control| *control);
        if passing.map_or(true, |control| lost && control.traffic != Traffic::Swallow) {
            return Err(Broken);
        }
        let count = tokio::select! {
            biased;
            changed = control.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Err(Broken),
            },
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        if control.borrow().traffic == Traffic::Swallow {
            lost = true;
        } else if to.write_all(bytes).await.is_err() {
            return Err(Broken);
        }
    }
}

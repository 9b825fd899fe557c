//! An HTTP server for a key set that can change, fail and be unreachable.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is served, counted.
struct ServedKeys {
    /// Status and body.
    answer: Mutex<(u16, String)>,
    fetches: AtomicUsize,
}

/// A running key set. Dropping it takes it away.
pub(crate) struct Jwks {
    pub(crate) url: String,
    port: u16,
    state: Arc<ServedKeys>,
    server: JoinSet<()>,
}

impl Jwks {
    /// Serves `body` on a free port.
    pub(crate) async fn start(body: String) -> Self {
        let port = confab_stack::free_port().unwrap();
        let state = Arc::new(ServedKeys {
            answer: Mutex::new((200, body)),
            fetches: AtomicUsize::new(0),
        });
        let mut jwks = Self {
            url: format!("http://127.0.0.1:{port}/jwks.json"),
            port,
            state,
            server: JoinSet::new(),
        };
        jwks.up().await;
        jwks
    }

    /// Answers with this from now on.
    pub(crate) fn set(&self, status: u16, body: String) {
        *self.state.answer.lock().unwrap() = (status, body);
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// Refuses connections until [`Self::up`].
    pub(crate) async fn down(&mut self) {
        self.server.shutdown().await;
    }

    /// Listens again, on the same port.
    pub(crate) async fn up(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap();
        self.server.spawn(serve(listener, Arc::clone(&self.state)));
    }
}

async fn serve(listener: TcpListener, state: Arc<ServedKeys>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A caller that goes away in between is its own affair.
        let _gone = answer(stream, &state).await.is_err();
    }
}

async fn answer(stream: TcpStream, state: &ServedKeys) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    state.fetches.fetch_add(1, Ordering::SeqCst);
    let (status, body) = state.answer.lock().unwrap().clone();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

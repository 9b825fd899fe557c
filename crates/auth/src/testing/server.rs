//! An HTTP server of one answer, which can be changed, and which counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The server's answer to a request.
#[derive(Clone)]
pub(crate) enum ServerAnswer {
    /// 200 with this body.
    Body(String),
    /// Exactly these bytes, then the end.
    Raw(String),
    /// The head of a 200 and the beginning of a body, and then nothing more.
    Stall,
}

pub(crate) struct KeyServer {
    pub(crate) url: String,
    shared: Arc<ServerState>,
    _tasks: JoinSet<()>,
}

struct ServerState {
    answer: Mutex<ServerAnswer>,
    requests: AtomicUsize,
}

impl KeyServer {
    pub(crate) async fn start(answer: ServerAnswer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let requests = AtomicUsize::new(0);
        let shared = Arc::new(ServerState {
            answer: Mutex::new(answer),
            requests,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            url,
            shared,
            _tasks: tasks,
        }
    }

    /// From now on it answers so.
    pub(crate) fn answer(&self, answer: ServerAnswer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Returns how many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<ServerState>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move { serve(stream, &shared).await.unwrap_or_default() });
    }
}

/// Answers one request. The client may go away at any time: that is no failure of the test.
async fn serve(mut stream: TcpStream, shared: &ServerState) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let answer = shared.answer.lock().unwrap().clone();
    let length = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    match answer {
        ServerAnswer::Body(body) => {
            stream.write_all(length(body.len()).as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        ServerAnswer::Raw(bytes) => stream.write_all(bytes.as_bytes()).await,
        ServerAnswer::Stall => {
            stream.write_all(length(1000).as_bytes()).await?;
            stream.write_all(b"{\"keys\":[").await?;
            std::future::pending().await
        }
    }
}

//! An echo server on the gateway's own WebSocket code: `cargo run -p confab-gateway --example echo -- --listen ADDR`.

use std::io::{self, Write};
use std::net::SocketAddr;

use clap::Parser;
use confab_gateway::echo::{self, Settings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Echoes WebSocket messages, for RFC 6455 conformance suites.
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Largest message, in bytes, its fragments together.
    #[arg(long, default_value_t = 64 << 20)]
    message_bytes: usize,
    /// Most fragments of a message.
    #[arg(long, default_value_t = 1 << 20)]
    fragments: usize,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen).await?;
    writeln!(io::stdout(), "echo: ws://{}", listener.local_addr()?)?;
    let settings = Settings {
        message_bytes: args.message_bytes,
        fragments: args.fragments,
    };
    let stop = CancellationToken::new();
    let server = echo::serve(listener, settings, stop.clone());
    let stopped = async {
        let signal = tokio::signal::ctrl_c().await;
        stop.cancel();
        signal
    };
    tokio::join!(server, stopped).1
}

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use confab_stack::{Error, get};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::{TEST_TIMEOUT, lives, start_nats};

/// Asks JetStream's API for something and returns the answer, by hand: this crate knows no NATS client.
async fn ask(port: u16, subject: &str, body: &str) -> Result<String, std::io::Error> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    let size = body.len();
    let text = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{subject} answer {size}\r\n{body}\r\n"
    );
    stream.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    while !line.starts_with("MSG ") {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    line.clear();
    stream.read_line(&mut line).await?;
    Ok(line)
}

async fn make_stream(port: u16, name: &str) -> Result<String, std::io::Error> {
    let body = format!("{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"]}}");
    ask(port, &format!("STREAM.CREATE.{name}"), &body).await
}

async fn has_stream(port: u16, name: &str) -> bool {
    let answer = ask(port, &format!("STREAM.INFO.{name}"), "")
        .await
        .unwrap_or_default();
    !answer.contains("\"error\"") && answer.contains("created")
}

#[tokio::test]
async fn nats_keeps_port_and_streams_over_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut nats = start_nats(folder.path()).await.unwrap();
    make_stream(nats.port(), "kept").await.unwrap();
    let (before, url) = (nats.process().unwrap().id(), nats.url());
    nats.restart().await.unwrap();
    assert!(!lives(before));
    assert_eq!(nats.url(), url);
    assert!(has_stream(nats.port(), "kept").await);
}

#[tokio::test]
async fn nats_store_can_be_erased_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let mut nats = start_nats(folder.path()).await.unwrap();
    make_stream(nats.port(), "old").await.unwrap();
    assert!(matches!(nats.copy_store(), Err(Error::Misuse(_))));
    nats.stop(TEST_TIMEOUT).await.unwrap();
    nats.copy_store().unwrap();
    nats.up().await.unwrap();
    make_stream(nats.port(), "young").await.unwrap();

    nats.kill().unwrap();
    nats.put_back_store().unwrap();
    nats.up().await.unwrap();
    assert!(has_stream(nats.port(), "old").await && !has_stream(nats.port(), "young").await);

    nats.kill().unwrap();
    nats.erase_store().unwrap();
    nats.up().await.unwrap();
    assert!(!has_stream(nats.port(), "old").await);
}

#[tokio::test]
async fn port_in_use_is_error_with_log() {
    let folder = tempfile::tempdir().unwrap();
    let first = start_nats(folder.path()).await.unwrap();
    let settings = confab_stack::NatsSettings {
        folder: folder.path().join("second"),
        port: first.port(),
        monitor: None,
    };
    let error = confab_stack::Nats::start(&crate::support::programs().unwrap(), settings)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("address already in use"),
        "{error}"
    );
}

#[tokio::test]
async fn without_tools_the_error_says_what_to_run() {
    let error = match confab_stack::Programs::find(Path::new("/nonexistent")) {
        Err(error) => error.to_string(),
        // This machine has both on its PATH.
        Ok(_) => return,
    };
    assert!(error.contains("make setup"), "{error}");
}

#[tokio::test]
async fn monitoring_answers_where_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let monitor = confab_stack::free_port().unwrap();
    let port = confab_stack::free_port().unwrap();
    let settings = confab_stack::NatsSettings {
        folder: folder.path().to_owned(),
        port,
        monitor: Some(monitor),
    };
    let _nats = confab_stack::Nats::start(&crate::support::programs().unwrap(), settings)
        .await
        .unwrap();
    let (status, body) = get(monitor, "/varz", Duration::from_secs(5)).await.unwrap();
    assert!(
        status == 200 && body.contains("\"ping_interval\": 5000000000"),
        "{body}"
    );
}

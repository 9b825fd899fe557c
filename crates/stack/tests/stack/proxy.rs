use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use confab_stack::{Proxy, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Long enough for an answer that is on its way, short enough to wait for one that must not come.
const SHORT_WAIT: Duration = Duration::from_millis(150);

/// A server that sends back what it hears.
async fn echo(tasks: &mut JoinSet<()>) -> Result<SocketAddr, std::io::Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut links = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            links.spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Ok(address)
}

async fn connect(proxy: &Proxy) -> Result<TcpStream, std::io::Error> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await
}

async fn say(stream: &mut TcpStream, word: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    stream.write_all(word).await?;
    hear(stream, word.len()).await
}

async fn hear(stream: &mut TcpStream, size: usize) -> Result<Vec<u8>, std::io::Error> {
    let mut heard = vec![0; size];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await??;
    Ok(heard)
}

/// The end of a link, told as an end or as a reset.
async fn is_cut(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
    matches!(read, Ok(Err(_)))
}

#[tokio::test]
async fn bytes_pass_and_an_end_is_handed_on() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"hello").await.unwrap(), b"hello");
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn stalled_link_delivers_all_when_passing_again() {
    let mut tasks = JoinSet::new();
    let mut proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.set(Traffic::Stall).await;
    stream.write_all(b"two").await.unwrap();
    let mut fresh = connect(&proxy).await.unwrap();
    fresh.write_all(b"new").await.unwrap();
    assert!(
        tokio::time::timeout(SHORT_WAIT, stream.read_u8())
            .await
            .is_err()
    );
    proxy.set(Traffic::Pass).await;
    assert_eq!(hear(&mut stream, 3).await.unwrap(), b"two");
    assert_eq!(hear(&mut fresh, 3).await.unwrap(), b"new");
}

#[tokio::test]
async fn delayed_bytes_come_later_and_in_order() {
    const LINK_DELAY: Duration = Duration::from_millis(300);
    let mut tasks = JoinSet::new();
    let mut proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    proxy.set(Traffic::DelayDown(LINK_DELAY)).await;
    let began = Instant::now();
    for word in [b"one", b"two"] {
        stream.write_all(word).await.unwrap();
        tokio::time::sleep(SHORT_WAIT).await;
    }
    // What waits already is not overtaken.
    proxy.set(Traffic::Pass).await;
    stream.write_all(b"end").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(hear(&mut stream, 3).await.unwrap(), b"one");
    assert!(began.elapsed() >= LINK_DELAY);
    assert_eq!(hear(&mut stream, 6).await.unwrap(), b"twoend");
    assert!(began.elapsed() >= LINK_DELAY + SHORT_WAIT);
    assert!(stream.read_u8().await.is_err(), "the end is handed on");
}

#[tokio::test]
async fn lossy_link_is_cut_when_passing_again() {
    let mut tasks = JoinSet::new();
    let mut proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let (mut stream, mut quiet) = (
        connect(&proxy).await.unwrap(),
        connect(&proxy).await.unwrap(),
    );
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.set(Traffic::Swallow).await;
    stream.write_all(b"lost").await.unwrap();
    assert!(
        tokio::time::timeout(SHORT_WAIT, stream.read_u8())
            .await
            .is_err()
    );
    proxy.set(Traffic::Pass).await;
    assert!(is_cut(&mut stream).await);
    assert_eq!(say(&mut quiet, b"whole").await.unwrap(), b"whole");
}

#[tokio::test]
async fn links_are_cut_and_new_ones_made() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.cut();
    assert!(is_cut(&mut stream).await);
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"two").await.unwrap(), b"two");
}

#[tokio::test]
async fn refused_is_refused_until_it_passes_again() {
    let mut tasks = JoinSet::new();
    let mut proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.set(Traffic::Refuse).await;
    assert!(is_cut(&mut stream).await);
    assert!(connect(&proxy).await.is_err());
    proxy.set(Traffic::Pass).await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"two").await.unwrap(), b"two");
}

#[tokio::test]
async fn a_half_open_link_carries_one_way() {
    let mut tasks = JoinSet::new();
    let mut proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    for half in [Traffic::SwallowDown, Traffic::SwallowUp] {
        let mut stream = connect(&proxy).await.unwrap();
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        proxy.set(half).await;
        stream.write_all(b"lost").await.unwrap();
        let heard = tokio::time::timeout(SHORT_WAIT, stream.read_u8()).await;
        assert!(heard.is_err(), "{half:?}");
        proxy.set(Traffic::Pass).await;
        assert!(is_cut(&mut stream).await, "{half:?}");
    }
}

#[tokio::test]
async fn a_link_is_cut_amid_its_bytes() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.cut_after(5);
    assert_eq!(say(&mut stream, b"two").await.unwrap(), b"two");
    stream.write_all(b"three").await.unwrap();
    assert_eq!(hear(&mut stream, 2).await.unwrap(), b"th");
    assert!(is_cut(&mut stream).await);
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"further").await.unwrap(), b"further");
}

#[tokio::test]
async fn throttled_link_is_slow_and_loses_nothing() {
    let mut tasks = JoinSet::new();
    let target = echo(&mut tasks).await.unwrap();
    let mut proxy = Proxy::narrow(target, 4096).await.unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
    proxy.set(Traffic::Throttle(1_000)).await;
    let before = tokio::time::Instant::now();
    assert_eq!(say(&mut stream, &[7; 300]).await.unwrap(), [7; 300]);
    assert!(before.elapsed() >= Duration::from_millis(200));
    proxy.set(Traffic::Pass).await;
    assert_eq!(say(&mut stream, &[8; 3000]).await.unwrap(), [8; 3000]);
}

#[tokio::test]
async fn silent_link_stays_open_while_new_leads_elsewhere() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(echo(&mut tasks).await.unwrap()).await.unwrap();
    let mut silent = connect(&proxy).await.unwrap();
    assert_eq!(say(&mut silent, b"hello").await.unwrap(), b"hello");
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    proxy.lead_to(elsewhere.local_addr().unwrap());
    assert_eq!(say(&mut silent, b"there").await.unwrap(), b"there");
    proxy.silence();
    silent.write_all(b"heard?").await.unwrap();
    let silence = tokio::time::timeout(SHORT_WAIT, silent.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    let mut fresh = connect(&proxy).await.unwrap();
    let (mut far, _) = elsewhere.accept().await.unwrap();
    far.write_all(b"new").await.unwrap();
    assert_eq!(hear(&mut fresh, 3).await.unwrap(), b"new");
    proxy.cut();
    assert!(is_cut(&mut silent).await);
}

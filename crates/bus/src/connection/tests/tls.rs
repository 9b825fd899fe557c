//! TLS as servers require it: with an authority of their own, with client certificates, first of all.

use std::net::Ipv4Addr;
use std::path::Path;

use confab_stack::{Launch, Process};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;

use super::*;

/// What nats-server logs of a client that ends the handshake, or does not do its part.
const NO_HANDSHAKE: &str = "TLS handshake error";

/// An authority, and two certificates of it: of a server at 127.0.0.1 and of a client.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Self { folder };
        authority.write();
        authority
    }

    /// Makes a new authority and certificates, in the place of those that are there.
    fn write(&self) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        std::fs::write(self.path("ca.pem"), ca).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, host) in [("server", "127.0.0.1"), ("client", "gateway")] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap().pem();
            std::fs::write(self.path(&format!("{name}.pem")), certificate).unwrap();
            std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server's part of its configuration, with `more` in it.
    fn config(&self, more: &str) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, timeout: 5{more} }}\n",
            self.path("server.pem"),
            self.path("server.key"),
            self.path("ca.pem"),
        )
    }

    /// `settings` with the authority.
    fn trusted(&self, mut settings: Settings) -> Settings {
        settings.tls.nats_tls_ca = Some(self.path("ca.pem"));
        settings
    }

    /// `settings` with the authority and the client's certificate.
    fn proven(&self, settings: Settings) -> Settings {
        let mut settings = self.trusted(settings);
        settings.tls.nats_tls_cert = Some(self.path("client.pem"));
        settings.tls.nats_tls_key = Some(self.path("client.key"));
        settings
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_authority_is_taken_from_its_file() {
    let authority = Authority::new();
    let server = Strict::start(&authority.config("")).await;
    server.refuses(&server.settings(), NO_HANDSHAKE).await;
    let another = Authority::new();
    let settings = another.trusted(server.settings());
    server.refuses(&settings, NO_HANDSHAKE).await;
    server.takes(&authority.trusted(server.settings())).await;
    let url = format!("tls://127.0.0.1:{}", server.nats.port());
    let settings = authority.trusted(Settings::of_server(url));
    server.takes(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificate_is_shown_where_required() {
    let authority = Authority::new();
    let server = Strict::start(&authority.config(", verify: true")).await;
    let settings = authority.trusted(server.settings());
    server.refuses(&settings, NO_HANDSHAKE).await;
    server.takes(&authority.proven(server.settings())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn required_tls_refuses_a_plain_server() {
    let server = Strict::start("").await;
    server.takes(&server.settings()).await;
    let mut settings = server.settings();
    settings.tls.nats_tls = true;
    server.refuses(&settings, "[ERR]").await;
    // An authority says as much.
    let authority = Authority::new();
    let settings = authority.trusted(server.settings());
    server.refuses(&settings, "[ERR]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_first_reaches_a_server_that_waits() {
    let authority = Authority::new();
    let port = free_port().unwrap();
    let config = authority.path("first.conf");
    let tls = authority.config(", handshake_first: true");
    std::fs::write(&config, format!("listen: \"127.0.0.1:{port}\"\n{tls}")).unwrap();
    let log = authority.path("first.log");
    let _server = bare(&config, &log, port).await;
    let mut settings = authority.trusted(Settings::of_server(format!("nats://127.0.0.1:{port}")));
    let waiting = Bus::connect(&settings, "test").await.unwrap();
    settings.tls.nats_tls_first = true;
    let first = Bus::connect(&settings, "test").await.unwrap();
    is_connected(&first).await;
    assert!(!waiting.is_connected(), "without it both sides wait");
}

/// A server whose greeting cannot be read.
async fn bare(config: &Path, log: &Path, port: u16) -> Process {
    let launch = Launch {
        name: "nats-server".to_owned(),
        program: programs().nats_server,
        args: vec!["--config".to_owned(), config.display().to_string()],
        env: Vec::new(),
        log: log.to_owned(),
    };
    let process = Process::spawn(launch).unwrap();
    let listens = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(TEST_TIMEOUT, listens)
        .await
        .expect("a server that listens");
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_certificates_are_read_again() {
    let authority = Authority::new();
    let verify = authority.config(", verify: true");
    let mut server = Strict::start(&verify).await;
    let bus = server.takes(&authority.proven(server.settings())).await;
    authority.write();
    server.restart(&verify).await;
    link_is(&bus, |link| link.connected && link.epoch >= 2).await;
}

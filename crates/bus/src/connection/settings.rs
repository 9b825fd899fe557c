//! The settings of the connection to NATS, and of what confab makes there.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_REPLICAS: usize = 1;
const DEFAULT_EVENTS_MAX_AGE_SECONDS: u64 = 20 * 60;
const DEFAULT_EVENTS_MAX_BYTES: i64 = 1 << 30;

/// Where NATS is, as whom to connect, and the bounds of the streams there.
#[derive(Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct Settings {
    /// NATS servers, separated by commas. Required unless NATS is on this machine.
    ///
    /// `nats://host:4222`, or `tls://…` where the connection must be encrypted. A user and password, or a token, may stand before the
    /// host, percent-encoded: `nats://user:password@host`, `nats://token@host`.
    #[arg(
        long,
        env = "CONFAB_NATS_URL",
        hide_env_values = true,
        default_value = DEFAULT_URL,
        value_delimiter = ',',
        value_name = "URL",
        help_heading = "Required"
    )]
    pub nats_url: Vec<String>,
    /// As whom to connect.
    #[command(flatten)]
    pub auth: AuthSettings,
    /// How the connection is encrypted.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// The JetStream domain, where it is another than the servers', as behind a leaf node.
    #[arg(long, env = "CONFAB_NATS_JETSTREAM_DOMAIN", value_name = "NAME", value_parser = domain)]
    pub nats_jetstream_domain: Option<String>,
    /// Replicas of the streams that confab makes: 1, or 3 on a cluster.
    #[arg(long, env = "CONFAB_NATS_REPLICAS", value_name = "NUMBER", default_value_t = DEFAULT_REPLICAS)]
    pub nats_replicas: usize,
    /// How long events are kept in the stream: the resume window and a margin.
    #[arg(long, env = "CONFAB_EVENTS_MAX_AGE", value_name = "SECONDS", default_value_t = DEFAULT_EVENTS_MAX_AGE_SECONDS)]
    pub events_max_age: u64,
    /// How many bytes of events are kept in the stream at most; the oldest go first.
    #[arg(long, env = "CONFAB_EVENTS_MAX_BYTES", value_name = "BYTES", default_value_t = DEFAULT_EVENTS_MAX_BYTES)]
    pub events_max_bytes: i64,
}

/// As whom to connect: in one way, or in none. Files are read again for each connection, so that what is in them can be replaced while
/// the process runs.
#[derive(Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct AuthSettings {
    /// The user at NATS.
    #[arg(long, env = "CONFAB_NATS_USER", value_name = "NAME")]
    pub nats_user: Option<String>,
    /// File with the user's name, read again at each connection.
    #[arg(long, env = "CONFAB_NATS_USER_FILE", value_name = "PATH")]
    pub nats_user_file: Option<PathBuf>,
    /// The user's password.
    #[arg(
        long,
        env = "CONFAB_NATS_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub nats_password: Option<String>,
    /// File with the user's password, read again at each connection.
    #[arg(long, env = "CONFAB_NATS_PASSWORD_FILE", value_name = "PATH")]
    pub nats_password_file: Option<PathBuf>,
    /// The token of NATS servers that want one.
    #[arg(
        long,
        env = "CONFAB_NATS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub nats_token: Option<String>,
    /// File with the token, read again at each connection.
    #[arg(long, env = "CONFAB_NATS_TOKEN_FILE", value_name = "PATH")]
    pub nats_token_file: Option<PathBuf>,
    /// File with the seed of the user's nkey, read again at each connection.
    #[arg(long, env = "CONFAB_NATS_NKEY", value_name = "PATH")]
    pub nats_nkey: Option<PathBuf>,
    /// Credentials file (JWT and nkey seed), read again at each connection.
    #[arg(long, env = "CONFAB_NATS_CREDENTIALS", value_name = "PATH")]
    pub nats_credentials: Option<PathBuf>,
}

/// How the connection is encrypted. Any of these makes TLS required; without, it is used where the server requires it. The files are read
/// again for each connection.
#[derive(Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct TlsSettings {
    /// Refuse a connection to NATS that is not encrypted.
    #[arg(long, env = "CONFAB_NATS_TLS", value_parser = BoolishValueParser::new())]
    pub nats_tls: bool,
    /// Begin TLS before the server has said anything, for servers with `handshake_first`.
    #[arg(long, env = "CONFAB_NATS_TLS_FIRST", value_parser = BoolishValueParser::new())]
    pub nats_tls_first: bool,
    /// PEM file of the authorities that servers' certificates must be of [default: the system's].
    #[arg(long, env = "CONFAB_NATS_TLS_CA", value_name = "PATH")]
    pub nats_tls_ca: Option<PathBuf>,
    /// PEM file of the client certificate for NATS, with what leads to its authority.
    #[arg(
        long,
        env = "CONFAB_NATS_TLS_CERT",
        value_name = "PATH",
        requires = "nats_tls_key"
    )]
    pub nats_tls_cert: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    #[arg(
        long,
        env = "CONFAB_NATS_TLS_KEY",
        value_name = "PATH",
        requires = "nats_tls_cert"
    )]
    pub nats_tls_key: Option<PathBuf>,
}

impl Settings {
    /// The defaults for one server by its URL, without authentication.
    #[must_use]
    pub fn of_server(url: String) -> Self {
        Self {
            nats_url: vec![url],
            auth: AuthSettings::default(),
            tls: TlsSettings::default(),
            nats_jetstream_domain: None,
            nats_replicas: DEFAULT_REPLICAS,
            events_max_age: DEFAULT_EVENTS_MAX_AGE_SECONDS,
            events_max_bytes: DEFAULT_EVENTS_MAX_BYTES,
        }
    }
}

/// Secrets stand in it.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("nats_replicas", &self.nats_replicas)
            .finish_non_exhaustive()
    }
}

/// A domain is one token of a subject.
fn domain(text: &str) -> Result<String, String> {
    let is_token = |letter: char| !letter.is_whitespace() && !".*>".contains(letter);
    match !text.is_empty() && text.chars().all(is_token) {
        true => Ok(text.to_owned()),
        false => Err("must be a name without blanks, '.', '*' and '>'".to_owned()),
    }
}

//! Wrong Postgres setups on a real server, as `confab doctor` reports them.

use confab_stack::free_port;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use super::{NATS_CONFIG, NatsServer, SetupFault, worker};
use crate::connections::pool;
use crate::support::{Database, Folder};

/// A database of the shared server, and a NATS server that does.
struct DatabaseFixture {
    folder: Folder,
    server: NatsServer,
    database: Database,
}

impl DatabaseFixture {
    async fn new() -> Self {
        let folder = Folder::of_test();
        Self {
            server: NatsServer::start(&folder, NATS_CONFIG).await,
            folder,
            database: Database::shared().await,
        }
    }

    async fn run(&self, statement: String) {
        let mut connection = PgConnection::connect(&self.database.url).await.unwrap();
        let statement = sqlx::query(AssertSqlSafe(statement));
        statement.execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// `host:port/database`, and the name of the database.
    fn parts(&self) -> (&str, &str) {
        let (_, host) = self.database.url.rsplit_once('@').unwrap();
        host.split_once('/').unwrap()
    }

    /// A worker on a database URL.
    async fn told(
        &mut self,
        url: &str,
        check: &'static str,
        words: &'static str,
        remedy: &'static str,
    ) {
        let fault = SetupFault {
            role: "worker",
            env: &worker(&self.server.url, url),
            check,
            status: "fail",
            words,
            remedy,
            logged: None,
        };
        fault.is_told(&self.folder).await;
    }

    async fn end(mut self) {
        self.database.end().await;
    }
}

#[tokio::test]
async fn wrong_port_of_postgres_is_told() {
    let mut place = DatabaseFixture::new().await;
    let url = format!(
        "postgres://confab:hidden@127.0.0.1:{}/d",
        free_port().unwrap()
    );
    let (words, remedy) = ("Connection refused (os error 111)", "start Postgres");
    place.told(&url, "postgres", words, remedy).await;
    place.end().await;
}

#[tokio::test]
async fn wrong_password_is_told() {
    let mut place = DatabaseFixture::new().await;
    let (host, database) = place.parts();
    let url = format!("postgres://confab:hidden@{host}/{database}");
    let (words, remedy) = (
        "password authentication failed",
        "correct user and password",
    );
    place.told(&url, "postgres", words, remedy).await;
    place.end().await;
}

#[tokio::test]
async fn database_that_was_not_migrated_is_told() {
    let mut place = DatabaseFixture::new().await;
    let empty = format!("empty_{}", Uuid::now_v7().simple());
    place.run(format!("create database {empty}")).await;
    let url = place.database.url.replace(place.parts().1, &empty);
    let (words, remedy) = ("never migrated", "run `confab migrate`");
    place.told(&url, "postgres.migrations", words, remedy).await;
    place
        .run(format!("drop database {empty} with (force)"))
        .await;
    place.end().await;
}

#[tokio::test]
async fn read_only_postgres_is_told() {
    let mut place = DatabaseFixture::new().await;
    let database = place.parts().1.to_owned();
    place
        .run(format!(
            "alter database {database} set default_transaction_read_only = on"
        ))
        .await;
    let url = place.database.url.clone();
    let (words, remedy) = (
        "Postgres is read-only",
        "set default_transaction_read_only to off",
    );
    place.told(&url, "postgres.primary", words, remedy).await;
    place.end().await;
}

#[tokio::test]
async fn standby_is_told() {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, NATS_CONFIG).await;
    let mut database = Database::with_standby(folder.path()).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let url = database.failover().standby.url(name);
    let fault = SetupFault {
        role: "worker",
        env: &worker(&server.url, &url),
        check: "postgres.primary",
        status: "fail",
        words: "Postgres is a standby",
        remedy: "name the primary",
        logged: None,
    };
    fault.is_told(&folder).await;
    database.end().await;
}

#[tokio::test]
async fn too_few_connections_are_told() {
    let mut place = DatabaseFixture::new().await;
    let role = format!("few_{}", Uuid::now_v7().simple());
    let (host, database) = place.parts();
    let url = format!("postgres://{role}:hidden@{host}/{database}");
    place
        .run(format!(
            "create role {role} login password 'hidden' connection limit 5"
        ))
        .await;
    place
        .run(format!(
            "grant all on all tables in schema public to {role}"
        ))
        .await;
    let fault = SetupFault {
        role: "worker",
        env: &worker(&place.server.url, &url),
        check: "postgres.connections",
        status: "warn",
        words: "are left",
        remedy: "raise max_connections",
        logged: Some("fewer connections left"),
    };
    fault.is_told(&place.folder).await;
    place
        .run(format!("alter role {role} connection limit 0"))
        .await;
    let (words, remedy) = ("too many connections for role", "raise max_connections");
    place.told(&url, "postgres", words, remedy).await;
    place.run(format!("drop owned by {role}")).await;
    place.run(format!("drop role {role}")).await;
    place.end().await;
}

#[tokio::test]
async fn pooler_by_transaction_is_told() {
    let place = DatabaseFixture::new().await;
    let (mut pooler, url) = pool(&place.folder, &place.database, "transaction").await;
    let fault = SetupFault {
        role: "worker",
        env: &worker(&place.server.url, &url),
        check: "postgres.pooler",
        status: "fail",
        words: "loses the settings of a session",
        remedy: "Postgres itself",
        logged: Some("confab ends with an error"),
    };
    fault.is_told(&place.folder).await;
    pooler.kill().unwrap();
    place.end().await;
}

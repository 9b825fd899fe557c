//! Postgres roles for a test's own worker.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Cluster;

/// A role that may use the tables; the test must [`DatabaseRole::end`] it, since roles are the server's and not a database's.
pub(crate) struct DatabaseRole(String);

impl DatabaseRole {
    /// With these attributes (`CREATE ROLE`).
    pub(crate) async fn new(cluster: &Cluster, attributes: &str) -> Self {
        let role = Self(format!("role_{}", Uuid::now_v7().simple()));
        let name = &role.0;
        for statement in [
            format!("create role {name} login {attributes}"),
            format!("grant all on all tables in schema public to {name}"),
            format!("grant all on all sequences in schema public to {name}"),
        ] {
            run(cluster, statement).await;
        }
        role
    }

    /// The URL of the cluster's database as this role, with a password where there is one.
    pub(crate) fn url(&self, cluster: &Cluster, password: &str) -> String {
        let (_, place) = cluster.database.url.rsplit_once('@').unwrap();
        let password = match password {
            "" => String::new(),
            password => format!(":{password}"),
        };
        format!("postgres://{}{password}@{place}", self.0)
    }

    /// Another password is asked for from now on, and connections that stand are ended.
    pub(crate) async fn takes(&self, cluster: &Cluster, password: &str) {
        let name = &self.0;
        run(cluster, format!("alter role {name} password '{password}'")).await;
        self.disconnect(cluster).await;
    }

    async fn disconnect(&self, cluster: &Cluster) {
        let name = &self.0;
        let end = format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{name}'"
        );
        run(cluster, end).await;
    }

    /// Takes it away; who connects as it must be gone.
    pub(crate) async fn end(self, cluster: &Cluster) {
        self.disconnect(cluster).await;
        let name = &self.0;
        run(cluster, format!("drop owned by {name}")).await;
        run(cluster, format!("drop role {name}")).await;
    }
}

async fn run(cluster: &Cluster, statement: String) {
    let statement = sqlx::query(AssertSqlSafe(statement));
    statement.execute(&cluster.store).await.unwrap();
}

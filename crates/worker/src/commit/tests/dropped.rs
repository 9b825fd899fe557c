//! A command that is given up at its beginning leaves no transaction behind in which what follows would be carried out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use confab_protocol::command::{MarkRead, Outcome};
use confab_protocol::error::Code;
use confab_stack::{Proxy, Traffic};
use tokio::time::timeout;

use crate::commit::{Committer, Mark};
use crate::database::Pool;
use crate::planner::{Locking, Open};
use crate::testing::{Fixture, caller, code, message, patch, removal, request, sent, soon};

/// How long a test waits for what comes at once on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn mark_behind_a_dropped_transaction_is_kept() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    sent(fixture.send(message(group, "alice", "hello")).await);
    let options = sqlx::postgres::PgConnectOptions::clone(&fixture.pool.connect_options());
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, options.get_port()));
    let mut proxy = Proxy::start(target).await.unwrap();
    let pool = Pool::new(options.port(proxy.port()), 1, DEADLINE);
    let worker = Committer::on(&pool);
    // The one connection that there is stands open.
    pool.acquire().await.unwrap().release();

    proxy.set(Traffic::Stall).await;
    let given_up = request("alice", patch(group, r#"{"name":"given up"}"#));
    let beginning = worker.alone(&given_up, soon(), Locking::Skip, Open::default());
    let dropped = timeout(Duration::from_millis(200), Box::pin(beginning)).await;
    assert!(dropped.is_err(), "nothing came through");
    proxy.set(Traffic::Pass).await;

    let mark = Mark {
        caller: caller("bob"),
        read: MarkRead::UpTo {
            conversation: group,
            seq: 2,
        },
        deadline: soon(),
        origin: crate::origin::Origin::default(),
    };
    let told = worker.finish_marks(&[mark]).await.remove(0);
    assert!(matches!(told, Ok(Outcome::Read(marks)) if marks[0].up_to == 2));
    // It ends with a rollback, which takes with it whatever the connection was in.
    let refused = request("mallory", removal(group, "bob"));
    let (refused, _) = worker.finish_alone(&refused, soon()).await;
    assert_eq!(code(refused), Code::ConversationNotFound);
    let stands =
        "select last_read_seq from participants where conversation_id = $1 and user_id = 'bob'";
    let stands: i64 = sqlx::query_scalar(stands)
        .bind(group.0)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(stands, 2);
    let version = sqlx::query_scalar::<_, i64>("select version from conversations where id = $1");
    let version = version.bind(group.0).fetch_one(&fixture.pool);
    assert_eq!(version.await.unwrap(), 1);
}

//! Several workers that want one conversation, and a commit whose end is not seen.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use confab_protocol::error::Code;
use confab_protocol::resource::ConversationType;
use confab_stack::{Postgres, PostgresSettings, Proxy, free_port};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::commit::{Fate, Item};
use crate::database;
use crate::planner::{Locking, Open};
use crate::settings::DatabaseSettings;
use crate::testing::{
    Fixture, committer, creation, durability, eventually, message, patch, programs, request, sent,
    soak, soon,
};

#[tokio::test]
async fn two_workers_share_one_conversation_without_long_waits() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let until = Instant::now() + Duration::from_secs(soak(60, 3) as u64);
    // On a shared machine a short run says only that nobody waits for ever.
    let longest = Duration::from_secs(soak(1, 5) as u64);
    let (one, other) = (fixture.another_committer(), fixture.another_committer());
    let batches = async {
        let mut stored = 0;
        while Instant::now() < until {
            let began = Instant::now();
            let batch: Vec<_> = (0..20).map(|_| message(group, "alice", "x")).collect();
            for outcome in one.finish_batch(&batch).await.outcomes {
                stored += usize::from(outcome.is_ok());
            }
            assert!(began.elapsed() < longest, "{:?}", began.elapsed());
        }
        stored
    };
    let patches = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut changed = 0;
        while Instant::now() < until {
            ticks.tick().await;
            let began = Instant::now();
            let name = format!(r#"{{"name":"{changed}"}}"#);
            let command = request("alice", patch(group, &name));
            let (outcome, committed) = other.finish_alone(&command, soon()).await;
            outcome.unwrap();
            assert_eq!(committed.unwrap().events.len(), 1);
            changed += 1;
            assert!(began.elapsed() < longest, "{:?}", began.elapsed());
        }
        changed
    };
    let (stored, changed) = tokio::join!(batches, patches);
    println!("{stored} sends and {changed} changes of one conversation by two workers");
    assert!(stored > 0 && changed > 0);
    let log = fixture.log(group).await;
    let of_type = |named| log.iter().filter(|event_type| *event_type == named).count();
    assert_eq!(
        (of_type("message.created"), of_type("conversation.updated")),
        (stored, changed)
    );
}

/// Postgres waits for a standby that is not there, inside the commit: the lock is held, the message as good as stored.
#[tokio::test]
async fn commit_of_unseen_end_is_never_refused() {
    let folder = TempDir::new().unwrap();
    let settings = PostgresSettings {
        folder: folder.path().join("postgres"),
        port: free_port().unwrap(),
        durability: durability(),
    };
    let port = settings.port;
    let server = Postgres::start(&programs(), settings).await.unwrap();
    let url = server.database("unseen").await.unwrap();
    let database = DatabaseSettings::of_url(url.clone());
    database::migrate(&database).await.unwrap();
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let proxy = Proxy::start(target).await.unwrap();
    let through = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    assert_ne!(url, through);
    let worker = committer(&through);
    let begin = request("alice", creation("k", ConversationType::Group, &["alice"]));
    let (begun, _) = worker.finish_alone(&begin, soon()).await;
    begun.unwrap();
    let mut direct = PgConnection::connect(&url).await.unwrap();
    sqlx::query("set synchronous_commit = local")
        .execute(&mut direct)
        .await
        .unwrap();
    let group: uuid::Uuid = sqlx::query_scalar("select id from conversations")
        .fetch_one(&mut direct)
        .await
        .unwrap();
    let group = confab_protocol::ids::ConversationId(group);
    let mut standbys = async |names: &str| {
        let alter = format!("alter system set synchronous_standby_names = '{names}'");
        for text in [alter.as_str(), "select pg_reload_conf()"] {
            let text = sqlx::AssertSqlSafe(text.to_owned());
            sqlx::raw_sql(text).execute(&mut direct).await.unwrap();
        }
    };
    standbys("nobody").await;
    let mut watching = PgConnection::connect(&url).await.unwrap();
    let item = message(group, "alice", "hello");
    let append = item.append.clone();
    let batch = [item];
    let sending = worker.batch(&batch, Locking::Skip);
    let cutting = async {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        eventually("the commit waits for a standby", async || {
            let count = sqlx::query_scalar(waiting).fetch_one(&mut watching);
            let count: i64 = count.await.unwrap();
            (count > 0).then_some(())
        })
        .await;
        proxy.cut();
    };
    let (mut end, ()) = tokio::join!(sending, cutting);
    let Fate::Locked(open) = end.fates.remove(0) else {
        panic!("the run behind the lost connection was not left out");
    };
    assert!(open.is_unknown);
    assert_eq!(open.when_late().code, Code::Timeout);

    standbys("").await;
    let again = Item {
        append,
        deadline: soon(),
        open: Open::clone(&open),
        origin: crate::origin::Origin::default(),
    };
    let outcome = worker.finish_batch(&[again]).await.outcomes.remove(0);
    assert_eq!(sent(outcome).seq, 2);
}

use std::collections::BTreeSet;
use std::time::Duration;

use confab_protocol::command::{Caller, Command, Outcome, Request, Revoke};
use confab_protocol::error::Code;
use confab_protocol::ids::SessionId;
use confab_protocol::query::{Answer, Query};
use confab_protocol::revocation::{Lifetimes, Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use crate::commit::CommandOutcome;
use crate::metrics::Metrics;
use crate::outbox::sweep::{REVOCATIONS, delete_all};
use crate::reads;
use crate::revocations::lifetimes;
use crate::testing::{Fixture, code, eventually, key, request, soak, soon};

/// How long the gateways' tokens are valid at most.
const TOKEN_MAX_LIFETIME: Duration = Duration::from_secs(1000);

#[tokio::test]
async fn a_revocation_is_kept_until_every_token_that_it_covers_has_expired() {
    let fixture = Fixture::new().await;
    say(&fixture, TOKEN_MAX_LIFETIME.as_secs(), 100).await;
    let login = revoked(by_admin(&fixture, RevocationTarget::Login("l".into())).await);
    assert_eq!(lifetime(&login), TOKEN_MAX_LIFETIME);
    let now = revoked(by_admin(&fixture, tokens("alice", None)).await);
    assert_eq!(now.target, tokens("alice", Some(now.created_at)));
    assert_eq!(lifetime(&now), TOKEN_MAX_LIFETIME);

    // Tokens that are issued later than now are covered as well.
    let hour = now.created_at.to_datetime() + Duration::from_secs(3600);
    let target = tokens("alice", Some(Timestamp::new(hour)));
    let later = revoked(by_admin(&fixture, target.clone()).await);
    assert_eq!(later.target, target);
    let kept = (later.expires_at.to_datetime() - hour).unsigned_abs();
    assert_eq!(kept, TOKEN_MAX_LIFETIME);
    // What was revoked stays revoked.
    let again = revoked(by_admin(&fixture, tokens("alice", None)).await);
    assert_eq!(again.target, target);
    assert_eq!(again.expires_at, later.expires_at);
    assert!(again.revision > later.revision && later.revision > now.revision);
    assert_eq!(all(&fixture).await, [login, again]);

    let end = tokens("bob", Some("9999-12-31T23:59:59Z".parse().unwrap()));
    assert_eq!(revoked(by_admin(&fixture, end.clone()).await).target, end);
}

#[tokio::test]
async fn repeat_by_its_key_covers_no_later_token() {
    let fixture = Fixture::new().await;
    let keyed = |target, client_id| {
        let mut request = request("backend", revoke(target));
        request.caller.admin = true;
        let Command::Revoke(command) = &mut request.command else {
            panic!("a revocation");
        };
        command.key = Some(client_id);
        request
    };
    let (one, other) = (key(), key());
    let carry_out = async |request: Request| {
        let (outcome, _) = fixture.committer.finish_alone(&request, soon()).await;
        outcome
    };
    let first = revoked(carry_out(keyed(tokens("alice", None), one)).await);
    let again = revoked(carry_out(keyed(tokens("alice", None), one)).await);
    assert_eq!(again, first);
    let named = tokens("alice", Some(first.created_at));
    assert_eq!(revoked(carry_out(keyed(named, one)).await), first);
    let reused = carry_out(keyed(tokens("bob", None), one)).await;
    assert_eq!(code(reused), Code::IdempotencyKeyReused);
    let later = revoked(carry_out(keyed(tokens("alice", None), other)).await);
    assert!(later.revision > first.revision);
}

#[tokio::test]
async fn who_names_a_foreign_session_does_not_touch_its_revocation() {
    let fixture = Fixture::new().await;
    let session = SessionId(Uuid::now_v7());
    let own = |user: &str| RevocationTarget::Session {
        session,
        user: Some(user.parse().unwrap()),
    };
    let bobs = revoked(fixture.alone("bob", revoke(own("bob"))).await.0);
    let alices = revoked(fixture.alone("alice", revoke(own("alice"))).await.0);
    let again = revoked(fixture.alone("bob", revoke(own("bob"))).await.0);
    assert!(bobs.revision < alices.revision && alices.revision < again.revision);
    assert_eq!(all(&fixture).await, [alices, again]);
    let foreign = fixture.alone("alice", revoke(own("bob"))).await.0;
    assert_eq!(code(foreign), Code::InsufficientScope);
}

#[tokio::test]
async fn who_has_read_up_to_a_revision_misses_none_below_it() {
    let fixture = Fixture::new().await;
    let count = soak(60, 6);
    let (workers, done) = (8, std::sync::atomic::AtomicBool::new(false));
    let revoking = join_all((0..workers).map(|worker| {
        let fixture = &fixture;
        async move {
            for n in 0..count {
                let login = RevocationTarget::Login(format!("{worker}-{n}"));
                revoked(by_admin(fixture, login).await);
            }
        }
    }));
    let revoking = async {
        revoking.await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let reading = async {
        let (mut seen, mut after) = (BTreeSet::new(), 0);
        loop {
            let is_last = done.load(std::sync::atomic::Ordering::SeqCst);
            let (page, more) = page(&fixture, after).await;
            assert!(page.is_sorted_by_key(|one| one.revision));
            after = page.last().map_or(after, |one| one.revision);
            seen.extend(page.into_iter().map(|one| one.revision));
            if is_last && !more {
                return seen;
            }
        }
    };
    let (seen, ()) = Box::pin(async { tokio::join!(reading, revoking) }).await;
    assert_eq!(seen.len(), workers * count);
}

#[tokio::test]
async fn revocation_is_kept_for_longest_lifetime_of_gateways() {
    let fixture = Fixture::new().await;
    let login = |name: &str| RevocationTarget::Login(name.to_owned());
    let session = || RevocationTarget::Session {
        session: SessionId(Uuid::now_v7()),
        user: None,
    };
    say(&fixture, 1000, 100).await;
    let first = revoked(by_admin(&fixture, login("a")).await);
    let ended = revoked(by_admin(&fixture, session()).await);
    assert_eq!(lifetime(&first).as_secs(), 1000);
    assert_eq!(lifetime(&ended).as_secs(), 100);
    // Another gateway needs less, and a third one more of tokens: what stands is kept longer, and told once more.
    say(&fixture, 500, 50).await;
    assert_eq!(all(&fixture).await, [first.clone(), ended.clone()]);
    say(&fixture, 3000, 100).await;
    let told = all(&fixture).await;
    assert_eq!(told[0], ended);
    assert_eq!(told[1].target, first.target);
    assert_eq!(lifetime(&told[1]).as_secs(), 3000);
    assert!(told[1].revision > ended.revision);
    say(&fixture, 500, 200).await;
    let told = all(&fixture).await;
    assert_eq!(told[1].target, ended.target);
    assert_eq!(lifetime(&told[1]).as_secs(), 200);
    let last = revoked(by_admin(&fixture, login("b")).await);
    assert_eq!(lifetime(&last).as_secs(), 3000);
    // What no gateway has said for its own length counts no more.
    sqlx::query("update revocation_lifetimes set said_at = said_at - interval '2000 seconds' where seconds <> 3000")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let last = revoked(by_admin(&fixture, login("c")).await);
    assert_eq!(
        lifetime(&last).as_secs(),
        3000,
        "it counts for 3,000 seconds"
    );
    sqlx::query("update revocation_lifetimes set said_at = said_at - interval '2 hours'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    say(&fixture, 500, 50).await;
    let last = revoked(by_admin(&fixture, login("d")).await);
    assert_eq!(lifetime(&last).as_secs(), 500);
}

#[tokio::test]
async fn user_revokes_thousand_of_its_sessions_at_once() {
    let fixture = Fixture::new().await;
    say(&fixture, 1000, 100).await;
    let of = |user: &str| RevocationTarget::Session {
        session: SessionId(Uuid::now_v7()),
        user: Some(user.parse().unwrap()),
    };
    let first = of("alice");
    revoked(fixture.alone("alice", revoke(first.clone())).await.0);
    sqlx::query(
        "insert into revocations (revision, tenant, kind, subject, user_id, created_at, expires_at) \
         select nextval('revocation_revisions'), 'default', 'session', gen_random_uuid()::text, 'alice', now(), now() + interval '1 minute' \
         from generate_series(1, 999)",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    let refused = fixture.alone("alice", revoke(of("alice"))).await.0;
    assert_eq!(code(refused), Code::RateLimited);
    // Neither is a repeat refused, nor anyone else.
    revoked(fixture.alone("alice", revoke(first)).await.0);
    revoked(fixture.alone("bob", revoke(of("bob"))).await.0);
    revoked(by_admin(&fixture, RevocationTarget::Login("l".into())).await);
    sqlx::query(
        "update revocations set expires_at = now() - interval '1 second' where user_id = 'alice'",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    revoked(fixture.alone("alice", revoke(of("alice"))).await.0);
}

#[tokio::test]
async fn what_expired_is_swept_and_its_revision_never_given_again() {
    let fixture = Fixture::new().await;
    let first = revoked(by_admin(&fixture, RevocationTarget::Login("a".into())).await);
    sqlx::query("update revocations set expires_at = now() - interval '1 second'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    sweep(&fixture).await;
    assert_eq!(all(&fixture).await, []);
    let second = revoked(by_admin(&fixture, RevocationTarget::Login("a".into())).await);
    assert!(second.revision > first.revision);
    sweep(&fixture).await;
    eventually("it is read", async || {
        (all(&fixture).await == [second.clone()]).then_some(())
    })
    .await;
}

/// A gateway says for how many seconds it needs revocations of tokens and sessions.
async fn say(fixture: &Fixture, token_seconds: u64, session_seconds: u64) {
    let said = Lifetimes {
        token_seconds,
        session_seconds,
    };
    lifetimes::note(&fixture.connections, said).await.unwrap();
}

async fn sweep(fixture: &Fixture) {
    let metrics = Metrics::new(&mut Registry::default());
    delete_all(&REVOCATIONS, &fixture.connections, &metrics, || true)
        .await
        .unwrap();
}

fn revoke(target: RevocationTarget) -> Command {
    Command::Revoke(Revoke { target, key: None })
}

fn tokens(user: &str, issued_before: Option<Timestamp>) -> RevocationTarget {
    RevocationTarget::User {
        user: user.parse().unwrap(),
        issued_before,
    }
}

async fn by_admin(fixture: &Fixture, target: RevocationTarget) -> CommandOutcome {
    let mut request = request("backend", revoke(target));
    request.caller = Caller {
        admin: true,
        ..request.caller
    };
    fixture.committer.finish_alone(&request, soon()).await.0
}

fn revoked(outcome: CommandOutcome) -> Revocation {
    match outcome.unwrap() {
        Outcome::Revoked(revocation) => revocation,
        other => panic!("{other:?}"),
    }
}

fn lifetime(revocation: &Revocation) -> Duration {
    let kept = revocation.expires_at.to_datetime() - revocation.created_at.to_datetime();
    kept.unsigned_abs()
}

async fn page(fixture: &Fixture, after: u64) -> (Vec<Revocation>, bool) {
    let query = Query::Revocations {
        after,
        lifetimes: None,
    };
    let answer = reads::answer(&fixture.connections, &query, Duration::from_secs(20)).await;
    match answer.unwrap() {
        Answer::Revocations { revocations, more } => (revocations, more),
        other => panic!("{other:?}"),
    }
}

/// All revocations, which fit one answer.
async fn all(fixture: &Fixture) -> Vec<Revocation> {
    let (revocations, more) = page(fixture, 0).await;
    assert!(!more);
    revocations
}

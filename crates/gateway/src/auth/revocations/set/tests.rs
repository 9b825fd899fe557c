use std::collections::BTreeSet;

use confab_auth::Scope;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(second).unwrap()
}

fn caller(tenant: &str, user: &str, login: &str, issued: i64) -> Caller {
    Caller {
        tenant: tenant.parse().unwrap(),
        user: user.parse().unwrap(),
        device: "device".to_owned(),
        login_session: login.to_owned(),
        issued_at: at(issued),
        expires_at: at(issued + 3600),
        scope: Scope::parse(""),
    }
}

fn revocation(tenant: &str, target: RevocationTarget, expires: i64) -> Revocation {
    Revocation {
        revision: 1,
        tenant: tenant.parse().unwrap(),
        target,
        created_at: Timestamp::new(at(50)),
        expires_at: Timestamp::new(at(expires)),
    }
}

fn login(name: &str) -> RevocationTarget {
    RevocationTarget::Login(name.to_owned())
}

fn user(name: &str, before: Option<i64>) -> RevocationTarget {
    RevocationTarget::User {
        user: name.parse().unwrap(),
        issued_before: before.map(|before| Timestamp::new(at(before))),
    }
}

fn session(n: u128, owner: Option<&str>) -> RevocationTarget {
    RevocationTarget::Session {
        session: SessionId(Uuid::from_u128(n)),
        user: owner.map(|owner| owner.parse().unwrap()),
    }
}

#[test]
fn users_tokens_are_revoked_up_to_time() {
    let mut set = RevocationSet::default();
    assert!(set.apply(&revocation("t", user("alice", Some(100)), 9999)));
    assert!(set.covers(&caller("t", "alice", "l", 99)));
    assert!(!set.covers(&caller("t", "alice", "l", 100)));
    assert!(!set.covers(&caller("t", "bob", "l", 99)));
    assert!(!set.covers(&caller("other", "alice", "l", 99)));

    assert!(
        !set.apply(&revocation("t", user("alice", Some(80)), 9999)),
        "an earlier time"
    );
    assert!(set.covers(&caller("t", "alice", "l", 99)));
    assert!(set.apply(&revocation("t", user("bob", None), 9999)));
    assert!(
        set.covers(&caller("t", "bob", "l", 49)),
        "by the time of the revocation"
    );
    assert!(!set.covers(&caller("t", "bob", "l", 50)));
    assert_eq!(set.len(), 2);
}

#[test]
fn named_login_is_revoked_and_unnamed_never() {
    let mut set = RevocationSet::default();
    set.apply(&revocation("t", login("stolen"), 9999));
    assert!(set.covers(&caller("t", "alice", "stolen", 999)));
    assert!(set.covers(&caller("t", "bob", "stolen", 1)));
    assert!(!set.covers(&caller("t", "alice", "", 1)));
    assert!(!set.covers(&caller("other", "alice", "stolen", 1)));
}

#[test]
fn revoking_anothers_session_changes_nothing() {
    let mut set = RevocationSet::default();
    let (tenant, id) = ("t".parse().unwrap(), SessionId(Uuid::from_u128(1)));
    let alice = "alice".parse().unwrap();
    assert!(set.apply(&revocation("t", session(1, Some("mallory")), 9999)));
    assert!(!set.covers_session(&tenant, &alice, id));
    assert!(set.apply(&revocation("t", session(1, Some("alice")), 9999)));
    assert!(set.covers_session(&tenant, &alice, id));
    assert!(!set.covers_session(&"other".parse().unwrap(), &alice, id));
    assert!(
        !set.covers(&caller("t", "alice", "l", 1)),
        "its token is not revoked"
    );

    set.apply(&revocation("t", session(2, None), 9999));
    assert!(set.covers_session(&tenant, &alice, SessionId(Uuid::from_u128(2))));
}

#[test]
fn expired_revocation_is_forgotten_and_repeat_extends_it() {
    let mut set = RevocationSet::default();
    for target in [login("a"), user("alice", Some(1)), session(1, None)] {
        set.apply(&revocation("t", target, 100));
    }
    assert!(!set.apply(&revocation("t", login("a"), 200)));
    assert!(!set.apply(&revocation("t", login("a"), 150)));
    set.expire(at(99));
    assert_eq!(set.len(), 3);
    set.expire(at(100));
    assert_eq!(set.len(), 1);
    assert!(set.covers(&caller("t", "alice", "a", 1)));
    set.expire(at(200));
    assert_eq!((set.len(), set.tenants.len()), (0, 0));
}

fn any_revocation() -> impl Strategy<Value = Revocation> {
    let target = prop_oneof![
        (0..3_u8).prop_map(|n| login(&format!("l{n}"))),
        (0..3_u8, prop::option::of(0..9_i64)).prop_map(|(n, b)| user(&format!("u{n}"), b)),
        (0..3_u128, prop::option::of(0..3_u8))
            .prop_map(|(n, owner)| session(n, owner.map(|n| format!("u{n}")).as_deref())),
    ];
    (target, 0..2_u8, 100..110_i64)
        .prop_map(|(target, tenant, expires)| revocation(&format!("t{tenant}"), target, expires))
}

/// Everything that the set can be asked.
fn told(set: &RevocationSet) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for (tenant, user) in (0..2).flat_map(|t| (0..3).map(move |u| (t, u))) {
        let (tenant, user) = (format!("t{tenant}"), format!("u{user}"));
        for (login, issued) in (0..3).flat_map(|l| (0..60).map(move |i| (l, i))) {
            let caller = caller(&tenant, &user, &format!("l{login}"), issued);
            if set.covers(&caller) {
                told.insert(format!("{tenant} {user} {login} {issued}"));
            }
        }
        for n in 0..3 {
            let (tenant, user) = (tenant.parse().unwrap(), user.parse().unwrap());
            if set.covers_session(&tenant, &user, SessionId(Uuid::from_u128(n))) {
                told.insert(format!("{tenant} {user} session {n}"));
            }
        }
    }
    told
}

proptest! {
    #[test]
    fn order_and_repeats_do_not_matter(
        revocations in prop::collection::vec(any_revocation(), 0..12),
        order in any::<prop::sample::Index>(),
        now in 99..112_i64,
    ) {
        let mut first = RevocationSet::default();
        for one in &revocations {
            first.apply(one);
        }
        let mut second = RevocationSet::default();
        let turn = if revocations.is_empty() { 0 } else { order.index(revocations.len()) };
        let turned = revocations.iter().skip(turn).chain(revocations.iter().take(turn));
        for one in turned.clone().rev().chain(turned) {
            second.apply(one);
        }
        prop_assert_eq!(told(&first), told(&second));
        prop_assert_eq!(first.len(), second.len());
        for one in &revocations {
            prop_assert!(!second.apply(one), "a repeat revokes nothing new");
        }
        first.expire(at(now));
        second.expire(at(now));
        prop_assert_eq!(told(&first), told(&second));
        prop_assert_eq!(first.len(), second.len());
    }
}

#[test]
fn expiry_goes_in_steps_through_what_expired() {
    let mut set = RevocationSet::default();
    let count = 3 * MAX_EXPIRED;
    for n in 0..count {
        set.apply(&revocation("t", session(n as u128, Some("alice")), 100));
        set.apply(&revocation("t", login(&n.to_string()), 200));
    }
    assert!(set.expire(at(100)));
    assert_eq!(set.len(), 2 * count - MAX_EXPIRED);
    while set.expire(at(150)) {}
    assert_eq!((set.len(), set.expiring.len()), (count, count));
    while set.expire(at(200)) {}
    assert_eq!(
        (set.len(), set.expiring.len(), set.tenants.len()),
        (0, 0, 0)
    );
}

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Answer, Membership, MembershipsOf, Query, UserMemberships};
use uuid::Uuid;

use super::ask;
use crate::testing::{Fixture, message, sent};

#[tokio::test]
async fn memberships_are_those_present_and_those_that_ended_above_what_is_held() {
    let fixture = Fixture::new().await;
    let present = fixture.group(&["alice", "bob"]).await;
    let (below, at, long_ago) = (
        left(&fixture).await,
        left(&fixture).await,
        left(&fixture).await,
    );
    end_two_days_ago(&fixture, long_ago).await;
    let foreign = fixture.group(&["alice"]).await;
    let held = vec![
        (present, 1),
        (below, 1),
        (at, 2),
        (long_ago, 0),
        (foreign, 0),
    ];
    let answer = memberships(&fixture, question("bob", held)).await;

    let one = |conversation, left, head| Membership {
        conversation,
        joined: 1,
        left,
        head,
        members: if left.is_some() { 1 } else { 2 },
    };
    let mut expected = [
        one(present, None, 1),
        one(below, Some(2), 3),
        one(long_ago, Some(2), 3),
    ];
    expected.sort_unstable_by_key(|membership| membership.conversation);
    assert_eq!(answer.memberships, expected);
    assert_eq!(answer.next, None);
    // Those that ended lately are told to every new session, held or not.
    assert_eq!(
        sorted(answer.ended),
        sorted(vec![one(below, Some(2), 3), one(at, Some(2), 3)])
    );

    let stranger = memberships(&fixture, question("mallory", vec![(present, 0)])).await;
    assert_eq!((stranger.memberships, stranger.ended), (vec![], vec![]));
}

#[tokio::test]
async fn a_question_about_some_conversations_is_answered_about_those() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.group(&["bob"]).await, fixture.group(&["bob"]).await);
    let gone = left(&fixture).await;
    for (only, told, ended) in [
        (vec![one], vec![one], vec![]),
        (vec![other, gone], vec![other], vec![gone]),
    ] {
        let question = MembershipsOf {
            only: Some(only),
            ..question("bob", Vec::new())
        };
        let answer = memberships(&fixture, question).await;
        assert_eq!(ids(&answer.memberships), told);
        assert_eq!(ids(&answer.ended), ended);
    }
}

#[tokio::test]
async fn another_tenants_user_of_the_same_name_has_none_of_them() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["bob"]).await;
    let foreign = MembershipsOf {
        tenant: "other".parse().unwrap(),
        ..question("bob", vec![(group, 0)])
    };
    let answer = memberships(&fixture, foreign).await;
    assert_eq!(answer.memberships, []);
}

#[tokio::test]
async fn pages_of_memberships_add_up_for_every_user_asked_for() {
    let fixture = Fixture::new().await;
    for (user, count) in [("bob", 9000), ("carol", 7500), ("dora", 3)] {
        begin_many(&fixture, user, count).await;
    }
    let late = left(&fixture).await;
    let mut open = ["bob", "carol", "dora"].map(|user| question(user, Vec::new()));
    let mut told: [Vec<Membership>; 3] = Default::default();
    let mut ended: [Vec<Membership>; 3] = Default::default();
    let mut is_open = [true; 3];
    while is_open.contains(&true) {
        let asked: Vec<usize> = (0..3).filter(|n| is_open[*n]).collect();
        let questions = asked.iter().map(|n| open[*n].clone()).collect();
        let answers = match ask(&fixture, Query::Memberships(questions)).await {
            Answer::Memberships(answers) => answers,
            other => panic!("{other:?}"),
        };
        assert_eq!(answers.len(), asked.len());
        assert!(answers.iter().any(|answer| !answer.memberships.is_empty()));
        for (n, answer) in asked.into_iter().zip(answers) {
            told[n].extend(answer.memberships);
            ended[n].extend(answer.ended);
            is_open[n] = answer.next.is_some();
            open[n].after = answer.next;
        }
    }
    for (told, count) in told.iter().zip([9000, 7500, 3]) {
        let ids = ids(told);
        assert!(ids.is_sorted_by(|one, next| one < next));
        assert_eq!(ids.len(), count);
    }
    // On the first page and on the last: what ends between two pages is told by one of them.
    assert_eq!(ids(&ended[0]), [late, late]);
    assert!(ended[1].is_empty() && ended[2].is_empty());
}

#[tokio::test]
async fn what_ended_lately_is_told_also_to_who_found_no_room_at_first() {
    let fixture = Fixture::new().await;
    begin_many(&fixture, "alice", 7000).await;
    let late = left(&fixture).await;
    let questions = vec![question("alice", Vec::new()), question("bob", Vec::new())];
    let Answer::Memberships(answers) = ask(&fixture, Query::Memberships(questions)).await else {
        panic!("memberships");
    };
    let after = answers[1].next;
    assert!(after.is_some() && answers[1].ended.is_empty());
    let again = MembershipsOf {
        after,
        ..question("bob", Vec::new())
    };
    assert_eq!(ids(&memberships(&fixture, again).await.ended), [late]);
}

#[tokio::test]
async fn who_joined_one_conversation_often_is_told_all_of_it_and_what_comes_behind() {
    let fixture = Fixture::new().await;
    let often = fixture.group(&["alice"]).await;
    let behind = fixture.group(&["bob"]).await;
    join_and_leave(&fixture, often, "bob", 1500).await;
    begin_many(&fixture, "carol", 6500).await;
    let held = vec![(often, 0)];
    let first = question("carol", Vec::new());
    let mut questions = vec![first, question("bob", held.clone())];
    let mut told = Vec::new();
    loop {
        let Answer::Memberships(mut answers) = ask(&fixture, Query::Memberships(questions)).await
        else {
            panic!("memberships");
        };
        let answer = answers.pop().unwrap();
        told.extend(answer.memberships);
        if answer.next.is_none() {
            break;
        }
        let after = answer.next;
        questions = vec![MembershipsOf {
            after,
            ..question("bob", held.clone())
        }];
    }
    assert_eq!(told.len(), 1501);
    assert!(told.iter().take(1500).all(|one| one.conversation == often));
    assert_eq!(told[1500].conversation, behind);
}

/// A group that bob left with seq 2, and that went on.
async fn left(fixture: &Fixture) -> ConversationId {
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.remove("bob", "bob", group).await;
    sent(fixture.send(message(group, "alice", "alone")).await);
    group
}

async fn end_two_days_ago(fixture: &Fixture, group: ConversationId) {
    let sql = "update participants set left_at = now() - interval '2 days' \
        where conversation_id = $1 and left_seq is not null";
    sqlx::query(sql)
        .bind(group.0)
        .execute(&fixture.pool)
        .await
        .unwrap();
}

/// Memberships that ended long ago, each but for one event behind the other.
async fn join_and_leave(fixture: &Fixture, group: ConversationId, user: &str, count: i32) {
    sqlx::query(
        "insert into participants (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, left_seq, left_at, \
            last_read_seq) \
         select $1, $2, n * 2, 'default', 'member', 0, now() - interval '3 days', n * 2 + 1, now() - interval '2 days', n * 2 \
         from generate_series(1, $3) n",
    )
    .bind(group.0)
    .bind(user)
    .bind(count)
    .execute(&fixture.pool)
    .await
    .unwrap();
}

pub(super) async fn begin_many(fixture: &Fixture, user: &str, count: i32) {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "with begun as ( \
            insert into conversations \
                (id, tenant, type, metadata, created_by, created_at, updated_at, last_seq, last_event_at, members) \
            select id, 'default', 'group', '{}', $2, now(), now(), 1, now(), 1 from unnest($1::uuid[]) as t(id) \
            returning id) \
         insert into participants \
            (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq) \
         select id, $2, 1, 'default', 'admin', 0, now(), 1 from begun",
    )
    .bind(ids)
    .bind(user)
    .execute(&fixture.pool)
    .await
    .unwrap();
}

pub(super) fn question(user: &str, held: Vec<(ConversationId, Seq)>) -> MembershipsOf {
    MembershipsOf {
        tenant: "default".parse().unwrap(),
        user: user.parse().unwrap(),
        only: None,
        held,
        after: None,
    }
}

async fn memberships(fixture: &Fixture, question: MembershipsOf) -> UserMemberships {
    match ask(fixture, Query::Memberships(vec![question])).await {
        Answer::Memberships(mut answers) => answers.remove(0),
        other => panic!("{other:?}"),
    }
}

fn ids(memberships: &[Membership]) -> Vec<ConversationId> {
    memberships.iter().map(|one| one.conversation).collect()
}

fn sorted(mut memberships: Vec<Membership>) -> Vec<Membership> {
    memberships.sort_unstable_by_key(|one| one.conversation);
    memberships
}

//! Memberships of many users in one question.

use std::collections::BTreeSet;

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Answer, MembershipsOf, Query, UserMemberships};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::ask;
use super::memberships::{begin_many, question};
use crate::testing::{Fixture, addition};

#[tokio::test]
async fn a_question_about_a_hundred_users_is_answered_as_a_hundred_about_one_each() {
    let fixture = Fixture::new().await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let users: Vec<String> = (0..30).map(|n| format!("user{n}")).collect();
    let groups = mix(&fixture, &users, &mut random).await;
    begin_many(&fixture, "user7", 1500).await;
    let questions: Vec<_> = (0..100)
        .map(|_| ask_at_random(&users, &groups, &mut random))
        .collect();
    let together = memberships(&fixture, questions.clone()).await;
    for (question, answer) in questions.into_iter().zip(together) {
        let mut alone = memberships(&fixture, vec![question.clone()]).await;
        assert_eq!(vec![answer], alone, "seed {seed}: {question:?}");
        let all = alone.remove(0);
        let only = question.only.clone().map(BTreeSet::from_iter);
        assert!(all.ended.iter().all(|one| {
            one.left.is_some()
                && only
                    .as_ref()
                    .is_none_or(|only| only.contains(&one.conversation))
        }));
    }
    assert_eq!(memberships(&fixture, Vec::new()).await, []);
}

#[tokio::test]
async fn one_who_has_more_than_a_page_leaves_no_room_for_those_behind() {
    let fixture = Fixture::new().await;
    begin_many(&fixture, "few", 20).await;
    begin_many(&fixture, "many", 8000).await;
    let users = ["few", "many", "few", "nobody"];
    let questions: Vec<_> = users.map(|user| question(user, Vec::new())).to_vec();
    let answers = memberships(&fixture, questions).await;
    let told: Vec<_> = answers
        .iter()
        .map(|answer| (answer.memberships.len(), answer.next.is_some()))
        .collect();
    assert_eq!(told, [(20, false), (6980, true), (0, true), (0, true)]);
    let rest = MembershipsOf {
        after: answers[1].next,
        ..question("many", Vec::new())
    };
    let rest = memberships(&fixture, vec![rest]).await;
    assert_eq!((rest[0].memberships.len(), rest[0].next), (1020, None));
}

#[tokio::test]
async fn none_of_thousands_of_memberships_that_ended_lately_is_lost() {
    let fixture = Fixture::new().await;
    begin_many(&fixture, "bob", 9500).await;
    sqlx::query(
        "update participants set left_seq = 2, left_at = now() where conversation_id in \
            (select conversation_id from participants order by random() limit 9000)",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    let mut open = question("bob", Vec::new());
    let (mut present, mut ended, mut pages) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        let answer = memberships(&fixture, vec![open.clone()]).await.remove(0);
        present.extend(answer.memberships.iter().map(|one| one.conversation));
        ended.extend(answer.ended.iter().map(|one| one.conversation));
        pages += 1;
        if answer.next.is_none() {
            break;
        }
        open.after = answer.next;
    }
    assert_eq!((present.len(), ended.len(), pages), (500, 9000, 2));
}

/// Groups that users join and leave at random; some left long ago.
async fn mix(fixture: &Fixture, users: &[String], random: &mut SmallRng) -> Vec<ConversationId> {
    let mut groups = Vec::new();
    for _ in 0..25 {
        let group = fixture.group(&["owner"]).await;
        groups.push(group);
        for _ in 0..10 {
            let user = &users[random.random_range(0..users.len())];
            let (added, _) = fixture.alone("owner", addition(group, &[user])).await;
            if added.is_err() || random.random_bool(0.5) {
                fixture.remove("owner", user, group).await;
            }
        }
    }
    sqlx::query(
        "update participants set left_at = now() - interval '2 days' where left_seq is not null and left_seq % 3 = 0",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    groups
}

fn ask_at_random(
    users: &[String],
    groups: &[ConversationId],
    random: &mut SmallRng,
) -> MembershipsOf {
    let some = |random: &mut SmallRng| -> Vec<ConversationId> {
        let chance = random.random_range(0.0..0.5);
        groups
            .iter()
            .copied()
            .filter(|_| random.random_bool(chance))
            .collect()
    };
    // Few ask for all of the one with many, so that all have room.
    let user = &users[random.random_range(0..users.len())];
    let only = (user == "user7" || random.random_bool(0.3)).then(|| some(random));
    let held = some(random);
    let held = held
        .into_iter()
        .map(|id| (id, random.random_range(0..20_u64)));
    let held = held.collect();
    let after = groups[random.random_range(0..groups.len())];
    MembershipsOf {
        only,
        after: random.random_bool(0.3).then_some(after),
        ..question(user, held)
    }
}

async fn memberships(fixture: &Fixture, questions: Vec<MembershipsOf>) -> Vec<UserMemberships> {
    match ask(fixture, Query::Memberships(questions)).await {
        Answer::Memberships(answers) => answers,
        other => panic!("{other:?}"),
    }
}

//! A message that goes alone is decided, stored and answered as one that goes in a batch is: each story is told both ways.

use confab_protocol::command::{Caller, SendAnswer};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::resource::ConversationType;
use uuid::Uuid;

use crate::commit::{CommandOutcome, Item};
use crate::messages::{self, Append};
use crate::origin::Origin;
use crate::planner::Open;
use crate::testing::{Fixture, backend, caller, deletion, edit, key, keyed, message, sent, unsend};

/// What a message is answered with: its seq, whether it is a repeat, and whether its message came along.
type Answer = Result<(Seq, bool, bool), Code>;

#[derive(Debug, Clone, Copy)]
enum Way {
    Alone,
    /// With a message to another conversation, before it and behind it.
    InABatch,
}

const WAYS: [Way; 2] = [Way::Alone, Way::InABatch];

struct Teller {
    fixture: Fixture,
    way: Way,
    elsewhere: ConversationId,
}

impl Teller {
    async fn new(way: Way) -> Self {
        let fixture = Fixture::new().await;
        let elsewhere = fixture.group(&["zoe"]).await;
        Self {
            fixture,
            way,
            elsewhere,
        }
    }

    async fn outcome(&self, item: Item) -> CommandOutcome {
        let mut outcomes = match self.way {
            Way::Alone => self.fixture.committer.finish_batch(&[item]).await.outcomes,
            Way::InABatch => {
                let filler = || message(self.elsewhere, "zoe", "filler");
                let items = [filler(), item, filler()];
                self.fixture.committer.finish_batch(&items).await.outcomes
            }
        };
        outcomes.remove(outcomes.len() / 2)
    }

    async fn send(&self, item: Item) -> Answer {
        let outcome = self.outcome(item).await;
        let sent = sent(Ok(outcome.map_err(|failure| failure.code)?));
        Ok((sent.seq, sent.duplicate, sent.message.is_some()))
    }

    /// The messages that repeats are answered with.
    async fn contents(&self, items: &[Item]) -> Vec<String> {
        let mut contents = Vec::new();
        for item in items {
            let Append {
                caller, message, ..
            } = &item.append;
            let again = messages::send(caller.clone(), message.clone()).unwrap();
            let item = Item {
                append: again,
                deadline: item.deadline,
                open: Open::default(),
                origin: Origin::default(),
            };
            contents.push(
                sent(self.outcome(item).await)
                    .message
                    .unwrap()
                    .as_str()
                    .to_owned(),
            );
        }
        contents
    }

    async fn run(&self, statement: &'static str) {
        sqlx::query(statement)
            .execute(&self.fixture.pool)
            .await
            .unwrap();
    }
}

fn by(caller: Caller, mut item: Item) -> Item {
    item.append.caller = caller;
    item
}

fn reply(to: EventId, mut item: Item) -> Item {
    item.append.message.reply_to = Some(to);
    item
}

fn acknowledged(mut item: Item) -> Item {
    item.append.message.answer = SendAnswer::Ack;
    item
}

fn of_another_tenant(user: &str, admin: bool) -> Caller {
    Caller {
        tenant: "other".parse().unwrap(),
        admin,
        ..caller(user)
    }
}

#[tokio::test]
async fn who_may_send_what_where() {
    for way in WAYS {
        let teller = Teller::new(way).await;
        let fixture = &teller.fixture;
        let group = fixture.group(&["alice", "bob"]).await;
        let channel = fixture
            .begin(ConversationType::Channel, &["alice", "bob"])
            .await;
        let nowhere = ConversationId(Uuid::now_v7());
        let is = |seq| Ok((seq, false, true));
        let none = Err(Code::ConversationNotFound);
        let forbidden = Err(Code::InsufficientPermissions);
        let theirs = |admin| by(of_another_tenant("alice", admin), message(group, "x", "a"));
        let ours = |conversation| by(backend(), message(conversation, "x", "a"));
        for (what, item, answer) in [
            ("a member", message(group, "alice", "a"), is(2)),
            (
                "for an ack",
                acknowledged(message(group, "bob", "a")),
                Ok((3, false, false)),
            ),
            ("a stranger", message(group, "eve", "a"), none),
            ("the backend", ours(group), is(4)),
            ("nowhere", message(nowhere, "alice", "a"), none),
            ("the backend, nowhere", ours(nowhere), none),
            ("a namesake", theirs(false), none),
            ("another's backend", theirs(true), none),
            ("its admin", message(channel, "alice", "a"), is(2)),
            ("no admin", message(channel, "bob", "a"), forbidden),
            ("the backend in a channel", ours(channel), is(3)),
        ] {
            assert_eq!(teller.send(item).await, answer, "{what}, {way:?}");
        }
    }
}

#[tokio::test]
async fn what_may_be_replied_to() {
    for way in WAYS {
        let teller = Teller::new(way).await;
        let group = teller.fixture.group(&["alice", "bob"]).await;
        let other = teller.fixture.group(&["alice", "bob"]).await;
        let first = message(group, "alice", "first");
        let there = message(other, "alice", "there");
        let (first_id, there_id) = (first.append.id, there.append.id);
        assert_eq!(teller.send(first).await, Ok((2, false, true)));
        assert_eq!(teller.send(there).await, Ok((2, false, true)));
        let creation: Uuid =
            sqlx::query_scalar("select id from events where conversation_id = $1 and seq = 1")
                .bind(group.0)
                .fetch_one(&teller.fixture.pool)
                .await
                .unwrap();
        let none = Err(Code::MessageNotFound);
        for (what, to, answer) in [
            ("a message", first_id, Ok((3, false, true))),
            ("one of another conversation", there_id, none),
            ("no message", EventId(creation), none),
            ("nothing", EventId(Uuid::now_v7()), none),
        ] {
            let reply = reply(to, message(group, "bob", "reply"));
            assert_eq!(teller.send(reply).await, answer, "{what}, {way:?}");
        }
    }
}

#[tokio::test]
async fn repeats_of_what_was_changed_and_of_what_is_over() {
    for way in WAYS {
        let teller = Teller::new(way).await;
        let fixture = &teller.fixture;
        let group = fixture.group(&["alice", "bob", "carol"]).await;
        let (edited, deleted) = (key(), key());
        let say = |user: &str, text: &str, key| keyed(group, user, text, key);
        let (one, two) = (say("bob", "one", edited), say("bob", "two", deleted));
        let ids = [one.append.id, two.append.id];
        assert_eq!(teller.send(one).await, Ok((2, false, true)));
        assert_eq!(teller.send(two).await, Ok((3, false, true)));
        let other = teller.send(say("bob", "other", edited)).await;
        assert_eq!(other, Err(Code::IdempotencyKeyReused), "{way:?}");
        fixture
            .alone("bob", edit(None, ids[0], "changed"))
            .await
            .0
            .unwrap();
        fixture.alone("bob", unsend(None, ids[1])).await.0.unwrap();
        fixture.remove("alice", "bob", group).await;
        let again = async |what: &str| {
            for (seq, text, key) in [(2, "one", edited), (3, "two", deleted)] {
                let told = teller.send(say("bob", text, key)).await;
                assert_eq!(told, Ok((seq, true, true)), "{what}, {way:?}");
                let told = teller.send(acknowledged(say("bob", text, key))).await;
                assert_eq!(told, Ok((seq, true, false)), "{what}, {way:?}");
                let told = teller.send(say("bob", "other", key)).await;
                assert_eq!(told, Ok((seq, true, true)), "{what}, {way:?}");
            }
            let contents = teller
                .contents(&[say("bob", "one", edited), say("bob", "two", deleted)])
                .await;
            assert!(
                contents[0].contains("changed") && !contents[0].contains("one"),
                "{contents:?}"
            );
            assert!(
                contents[1].contains("deletedAt") && !contents[1].contains("two"),
                "{contents:?}"
            );
        };
        again("removed").await;
        let none = Err(Code::ConversationNotFound);
        assert_eq!(teller.send(message(group, "bob", "new")).await, none);

        fixture.alone("alice", deletion(group)).await.0.unwrap();
        again("deleted").await;
        let gone = Err(Code::ConversationDeleted);
        for (what, item, answer) in [
            ("a member until then", message(group, "alice", "new"), gone),
            ("one before", message(group, "bob", "new"), gone),
            (
                "the backend",
                by(backend(), message(group, "x", "new")),
                gone,
            ),
            ("a stranger", message(group, "eve", "new"), none),
        ] {
            assert_eq!(teller.send(item).await, answer, "{what}, {way:?}");
        }
    }
}

/// Times, activity and what is to be published: the rows must be the same but for ids and the clock.
#[tokio::test]
async fn what_is_stored() {
    for way in WAYS {
        let teller = Teller::new(way).await;
        let group = teller.fixture.group(&["alice", "bob"]).await;
        // Long quiet, and told by a clock that runs ahead.
        teller
            .run("update conversations set active_at = active_at - interval '2 minutes'")
            .await;
        teller
            .run("update recents set active_at = active_at - interval '2 minutes'")
            .await;
        let ahead = "update conversations set last_event_at = date_trunc('milliseconds', now()) + interval '1 hour' where id = $1";
        sqlx::query(ahead)
            .bind(group.0)
            .execute(&teller.fixture.pool)
            .await
            .unwrap();
        let payload = message(group, "alice", "a").append.message.payload;
        for seq in [2, 3] {
            assert_eq!(
                teller.send(message(group, "alice", "a")).await,
                Ok((seq, false, true))
            );
        }
        let rows: Vec<(bool, bool, bool, bool, bool, String)> = sqlx::query_as(
            "select c.last_seq = 3 and c.last_message_seq = 3, e.created_at = c.last_event_at,                 c.active_at = c.last_event_at,                 (select bool_and(r.active_at = c.active_at) from recents r where r.conversation_id = c.id),                 e.type = 'message.created' and e.actor = 'alice' and e.client_id is not null                     and e.edited_at is null,                 e.payload              from conversations c join events e on e.conversation_id = c.id and e.seq > 1 where c.id = $1",
        )
        .bind(group.0)
        .fetch_all(&teller.fixture.pool)
        .await
        .unwrap();
        let row = (true, true, true, true, true, payload.as_str().to_owned());
        assert_eq!(rows, [row.clone(), row], "{way:?}");
        let queued: Vec<(i64, bool)> = sqlx::query_as(
            "select k.seq, o.created_at <= clock_timestamp() and o.published_at is null              from outbox o, unnest(o.conversation_ids, o.seqs) as k(conversation, seq)              where k.conversation = $1 order by 1",
        )
        .bind(group.0)
        .fetch_all(&teller.fixture.pool)
        .await
        .unwrap();
        assert_eq!(queued, [(1, true), (2, true), (3, true)], "{way:?}");
    }
}

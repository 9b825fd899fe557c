//! Whose pages are looked at, and by which statements.

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{History, ListConversations, ListOrder, Query};
use uuid::Uuid;

use super::fill::{begin_many, fill};
use crate::reads::{
    ROOM, conversations, events, history, list, memberships, messages, participants,
};
use crate::testing::{Fixture, caller, message, sent};

/// A statement with the types of its parameters and their values.
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) types: &'static str,
    pub(super) values: String,
}

/// A user with many conversations, and a channel with a long log.
pub(super) struct Case {
    user: &'static str,
    channel: ConversationId,
    conversations: i32,
    events: i64,
    message: Uuid,
    /// Fifty conversations of the user have an id above this one.
    above: Uuid,
}

const BY_RECENT: &str = "text, text, text[], uuid, bigint, timestamptz";
const BY_CREATED: &str = "text, text, text[], uuid, bigint, bigint";
const RANGED: &str = "uuid, bigint, bigint, text, text, bigint, bigint";
const LISTED: &str = "uuid, bigint, integer, bigint";

impl Case {
    pub(super) async fn begin(
        fixture: &Fixture,
        user: &'static str,
        conversations: i32,
        events: i64,
        members: i64,
    ) -> Self {
        begin_many(&fixture.pool, user, conversations).await;
        let channel = fixture.group(&[user]).await;
        fill(&fixture.pool, channel, user, events, members).await;
        let message = sent(fixture.send(message(channel, user, "last")).await).message_id;
        let above = "select conversation_id from participants where user_id = $1 order by 1 desc offset 50 limit 1";
        let (above,): (Uuid,) = sqlx::query_as(above)
            .bind(user)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
        Self {
            user,
            channel,
            conversations,
            events,
            message: message.0,
            above,
        }
    }

    pub(super) fn statements(&self) -> Vec<Statement> {
        let mut all = self.of_lists();
        all.extend(self.of_logs());
        all.extend(self.of_members());
        all.extend(self.of_gateways());
        let statement = |(name, text, types, values)| Statement {
            name,
            text,
            types,
            values,
        };
        all.into_iter().map(statement).collect()
    }

    fn of_lists(&self) -> Vec<Described> {
        let listed = |end: &str| {
            format!(
                "'default', '{}', '{{direct,group,channel}}', '{}', 51, {end}",
                self.user,
                Uuid::max()
            )
        };
        let middle = format!("now() - {} * interval '5 seconds'", self.conversations);
        let (recent, created) = (ListOrder::Recent, ListOrder::Created);
        let all = [
            ("recent", recent, BY_RECENT, listed("'9999-12-31'")),
            ("recent, deep", recent, BY_RECENT, listed(&middle)),
            ("created", created, BY_CREATED, listed("51")),
            ("created, a type", created, BY_CREATED, listed("1000")),
        ];
        all.map(|(name, order, types, values)| (name, list::statement(order), types, values))
            .to_vec()
    }

    fn of_logs(&self) -> Vec<Described> {
        let (channel, user) = (self.channel, self.user);
        let (end, middle) = (self.events + 1, self.events / 2);
        let history = |name, from: i64, kind: &str| {
            let values = format!(
                "'{channel}', {from}, {}, null, {kind}, 51, {ROOM}",
                from + 1000
            );
            (name, history::STATEMENT.to_owned(), RANGED, values)
        };
        vec![
            history("history", end - 1000, "null"),
            history("history, none", middle, r#"'{"kind":"image",'"#),
            (
                "since",
                "select first_seq_since($1, $2, $3)".to_owned(),
                "uuid, bigint, timestamptz",
                format!("'{channel}', {end}, now() - {middle} * interval '1 second'"),
            ),
            (
                "log",
                events::range(),
                "uuid, text, bigint, bigint, bigint, bigint",
                format!("'{channel}', 'default', {middle}, {end}, {ROOM}, 1000"),
            ),
            (
                "message",
                messages::STATEMENT.to_owned(),
                "uuid, text, text",
                format!("'{}', 'default', '{user}'", self.message),
            ),
        ]
    }

    fn of_members(&self) -> Vec<Described> {
        let channel = self.channel;
        let listed = |name, which, after: i64| {
            let values = format!("'{channel}', {after}, 0, 101");
            (name, participants::statement(which), LISTED, values)
        };
        vec![
            (
                "conversation",
                conversations::statement(),
                "uuid, text",
                format!("'{channel}', '{}'", self.user),
            ),
            listed("participants", "left_seq is null", 2),
            listed("participants ever", "true", 2),
            listed("admins", "left_seq is null and role = 'admin'", 0),
        ]
    }

    fn of_gateways(&self) -> Vec<Described> {
        let Self {
            channel,
            user,
            above,
            ..
        } = self;
        let (end, middle) = (self.events + 1, self.events / 2);
        let ranges = |name, room: usize, most: i64| {
            let values = format!(
                "'{{{channel},{above},{channel}}}', 'default', '{{{middle},0,0}}', '{{{},2,{end}}}', {room}, {most}",
                middle + 200
            );
            let types = "uuid[], text, bigint[], bigint[], bigint, bigint";
            (name, events::several_ranges(), types, values)
        };
        // All above some id, some by their ids, and what ended in the channel for one of many who left it.
        let memberships = format!(
            "'{{default,default,default}}', '{{{user},{user},{user}s2}}', '{{{above},{nil},{nil}}}', '{{{channel},{above}}}', \
                '{{null,1,null}}', '{{null,2,null}}', '{{{channel},{above},{channel}}}', '{{0,1,0}}', '{{1,3,3}}', '{{2,2,3}}'",
            nil = Uuid::nil()
        );
        vec![
            ranges("ranges", ROOM, 1000),
            ranges("ranges, cut", 10_000, 1000),
            ranges("ranges, few", ROOM, 250),
            (
                "memberships",
                memberships::statement(),
                "text[], text[], uuid[], uuid[], integer[], integer[], uuid[], bigint[], integer[], integer[]",
                memberships,
            ),
        ]
    }

    pub(super) fn queries(&self) -> [(&'static str, Query); 3] {
        let list = |order| ListConversations {
            caller: caller(self.user),
            limit: 50,
            cursor: None,
            r#type: None,
            order,
        };
        let history = History {
            caller: caller(self.user),
            conversation: self.channel,
            limit: 50,
            before: None,
            after: None,
            cursor: None,
            sender: None,
            kind: None,
            from: None,
            to: None,
        };
        [
            ("recent", Query::ListConversations(list(ListOrder::Recent))),
            (
                "created",
                Query::ListConversations(list(ListOrder::Created)),
            ),
            ("history", Query::History(history)),
        ]
    }
}

/// The fields of a [`Statement`].
type Described = (&'static str, String, &'static str, String);

//! Pages neither skip nor repeat items while things change between them.

use std::collections::BTreeSet;

use confab_client::{ConversationFilter, MessageFilter, NewConversation, ParticipantFilter};
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::query::ListOrder;
use confab_protocol::resource::{ConversationType, Participant};

use crate::support::{Cluster, Member, Setup, User, soak};

mod largest;

/// So that a walk has some ten pages, with changes between all of them.
const PAGE_COUNT: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversation_pages_are_exact_or_hold_no_duplicates() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let count = soak(500, 50);
    let mut first = Vec::new();
    for number in 0..count {
        first.push(group(&bob, number % 2, &["alice"]).await);
    }
    let newest_first: Vec<_> = first.iter().rev().copied().collect();
    let limit = u32::try_from(count / PAGE_COUNT).unwrap();
    for r#type in [None, Some(ConversationType::Group)] {
        let created = ConversationFilter {
            r#type,
            order: ListOrder::Created,
        };
        let listed = list(&alice, &bob, created, limit, &first).await;
        let old: Vec<_> = listed.iter().filter(|id| first.contains(id)).collect();
        assert_eq!(old, newest_first.iter().collect::<Vec<_>>());
        assert_each_once(&listed);

        let recent = ConversationFilter {
            r#type,
            order: ListOrder::Recent,
        };
        let listed = list(&alice, &bob, recent, limit, &first).await;
        assert_each_once(&listed);
        // Those that stayed where they were are all there.
        let moved: BTreeSet<_> = moved(&first).collect();
        let missed = first
            .iter()
            .find(|id| !moved.contains(id) && !listed.contains(id));
        assert_eq!(missed, None);
    }
    cluster.end().await;
}

/// Those to which is sent while their list is read.
fn moved(conversations: &[ConversationId]) -> impl Iterator<Item = ConversationId> {
    conversations.iter().copied().step_by(3)
}

/// Reads the list page by page from both gateways; between two pages a conversation begins and some move to the front.
async fn list(
    reader: &User,
    writer: &User,
    filter: ConversationFilter,
    limit: u32,
    conversations: &[ConversationId],
) -> Vec<ConversationId> {
    let (mut listed, mut cursor, mut page) = (Vec::new(), None::<String>, 0);
    let mut moving = moved(conversations);
    loop {
        let http = reader.http(page % 2);
        let answer = http.conversations_of(&filter, limit, cursor.as_deref());
        let answer = answer.await.unwrap();
        assert!(answer.conversations.len() <= limit as usize);
        listed.extend(answer.conversations.iter().map(|c| c.id));
        cursor = answer.next_cursor;
        if cursor.is_none() {
            return listed;
        }
        page += 1;
        group(writer, page % 2, &["alice"]).await;
        for id in moving.by_ref().take(3) {
            send(writer, page % 2, id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_participants_are_paged_once_each() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let reader = cluster.user("reader");
    let count = soak(300, 60);
    let names = |prefix: &str| -> Vec<UserId> {
        (0..count)
            .map(|number| format!("{prefix}-{number}").parse().unwrap())
            .collect()
    };
    let (staying, going, coming) = (names("staying"), names("going"), names("coming"));
    let conversation = alice.create_group(std::slice::from_ref(&reader.id)).await;
    // Those who stay and those who go in turn, some of them named by one event.
    for (stay, go) in staying.chunks(3).zip(going.chunks(3)) {
        alice.add(conversation, &[stay, go].concat()).await;
    }
    let mut expected = vec![alice.id.clone(), reader.id.clone()];
    expected.extend(staying.iter().cloned());
    for (include_left, going) in [(false, &going[..count / 2]), (true, &going[count / 2..])] {
        let mut changes = going.iter().zip(&coming);
        let filter = ParticipantFilter {
            include_left,
            role: None,
        };
        let (mut read, mut cursor, mut page) = (Vec::<Participant>::new(), None::<String>, 0);
        loop {
            let http = reader.http(page % 2);
            let answer = http.participants_page(conversation, &filter, 7, cursor.as_deref());
            let answer = answer.await.unwrap();
            read.extend(answer.participants);
            cursor = answer.next_cursor;
            if cursor.is_none() {
                break;
            }
            page += 1;
            // They go behind and before the cursor, and some come back as others.
            for (gone, come) in changes.by_ref().take(2) {
                replace(&alice, conversation, gone, come, page).await;
            }
        }
        let memberships: Vec<_> = read.iter().map(|p| (&p.user_id, p.joined_at)).collect();
        assert_each_once(&memberships);
        assert!(read.is_sorted_by_key(|participant| participant.joined_at));
        let stayed: Vec<_> = read
            .iter()
            .map(|participant| participant.user_id.clone())
            .filter(|user| expected.contains(user))
            .collect();
        assert_eq!(stayed, expected);
        if include_left {
            // Whoever joined before the first page is there, gone or not.
            let missed = going
                .iter()
                .find(|user| !read.iter().any(|p| p.user_id == **user));
            assert_eq!(missed, None);
        }
    }
    drop(alice);
    cluster.end().await;
}

/// One leaves; another joins, or the same again.
async fn replace(
    admin: &Member,
    conversation: ConversationId,
    gone: &UserId,
    come: &UserId,
    number: usize,
) {
    let removal = admin.http.remove_participant(conversation, gone);
    removal.await.unwrap();
    let back = if number.is_multiple_of(2) { come } else { gone };
    let is_there = admin
        .http
        .participants(conversation, &ParticipantFilter::default())
        .await
        .unwrap()
        .iter()
        .any(|participant| participant.user_id == *back);
    if !is_there {
        admin.add(conversation, std::slice::from_ref(back)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_history_and_log_are_paged_once() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let conversation = group(&alice, 0, &["bob"]).await;
    let count = soak(1000, 80);
    for number in 0..count {
        let sender = [&alice, &bob][number % 2];
        send(sender, number / 2 % 2, conversation).await;
    }
    let head = Seq::try_from(count + 1).unwrap();
    let limit = u32::try_from(count / PAGE_COUNT).unwrap();

    let history = history(&bob, &alice, conversation, MessageFilter::default(), limit).await;
    assert_eq!(history, (2..=head).rev().collect::<Vec<_>>());
    // Alice's are those with an even seq, and what was sent between the pages.
    let of_alice = MessageFilter {
        sender: Some(alice.id.clone()),
        before: Some(head + 1),
        after: Some(3),
        ..MessageFilter::default()
    };
    let history = self::history(&bob, &alice, conversation, of_alice, limit).await;
    let even: Vec<_> = (4..=head).rev().filter(|seq| seq % 2 == 0).collect();
    assert_eq!(history, even);

    let (mut log, mut page) = (Vec::new(), 0);
    loop {
        let after = log.last().copied().unwrap_or(0);
        let http = bob.http(page % 2);
        let answer = http.events_page(conversation, after, limit).await.unwrap();
        log.extend(answer.events.iter().map(|event| event.seq));
        assert!(log.last().is_some_and(|last| *last <= answer.head_seq));
        if log.last() == Some(&answer.head_seq) {
            break;
        }
        page += 1;
        for _ in 0..3 {
            send(&alice, page % 2, conversation).await;
        }
    }
    let last = *log.last().unwrap();
    assert!(last > head);
    assert_eq!(log, (1..=last).collect::<Vec<_>>());
    cluster.end().await;
}

/// Reads messages page by page from both gateways, while more are sent between the pages.
async fn history(
    reader: &User,
    writer: &User,
    conversation: ConversationId,
    filter: MessageFilter,
    limit: u32,
) -> Vec<Seq> {
    let (mut seqs, mut cursor, mut page) = (Vec::new(), None::<String>, 0);
    loop {
        let http = reader.http(page % 2);
        let answer = http.messages_page(conversation, &filter, limit, cursor.as_deref());
        let answer = answer.await.unwrap();
        seqs.extend(answer.messages.iter().map(|message| message.seq));
        cursor = answer.next_cursor;
        if cursor.is_none() {
            return seqs;
        }
        page += 1;
        send(writer, page % 2, conversation).await;
        send(writer, page % 2, conversation).await;
    }
}

async fn group(user: &User, gateway: usize, others: &[&str]) -> ConversationId {
    let group = NewConversation {
        r#type: ConversationType::Group,
        participants: others.iter().map(|user| user.parse().unwrap()).collect(),
        metadata: None,
    };
    let begun = user.http(gateway);
    let begun = begun.create_conversation(&group, None).await.unwrap();
    begun.answer.conversation.id
}

async fn send(user: &User, gateway: usize, conversation: ConversationId) {
    let path = format!("/v1/conversations/{conversation}");
    user.says(gateway, &path, "word").await;
}

fn assert_each_once<T: Ord + std::fmt::Debug>(list: &[T]) {
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
}

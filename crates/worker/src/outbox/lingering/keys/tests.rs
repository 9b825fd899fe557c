use std::collections::BTreeMap;

use confab_protocol::wire;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn key(tenant: &str, conversation: u128, seq: Seq, joined: &[&str]) -> Key {
    Key {
        tenant: tenant.parse().unwrap(),
        conversation: ConversationId(Uuid::from_u128(conversation)),
        seq,
        joined: joined.iter().map(|user| user.parse().unwrap()).collect(),
    }
}

/// The heads that announcements tell, and who joined.
fn told(announcements: &[Announcement]) -> (BTreeMap<u128, Seq>, Vec<String>) {
    let (mut heads, mut joined) = (BTreeMap::new(), Vec::new());
    for announced in announcements.iter().flat_map(|one| &one.tenants) {
        for (id, seq) in &announced.heads {
            let before = heads.insert(id.0.as_u128(), *seq);
            assert_eq!(before, None, "told once");
        }
        let users = announced.joined.iter().flat_map(|one| &one.users);
        joined.extend(users.map(|user| user.as_str().to_owned()));
    }
    joined.sort();
    (heads, joined)
}

#[test]
fn newest_head_of_each_conversation_is_told() {
    let mut keys = Keys::default();
    keys.take(1, key("a", 1, 4, &[]));
    keys.take(2, key("b", 2, 1, &["alice", "bob"]));
    keys.take(3, key("a", 1, 6, &[]));
    keys.take(4, key("a", 1, 5, &[]));
    let announcements = keys.announce(Selection::New);
    let users = vec!["alice".to_owned(), "bob".to_owned()];
    assert_eq!(told(&announcements), ([(1, 6), (2, 1)].into(), users));
    assert!(announcements.iter().all(|one| !one.is_cut));
    assert_eq!(told(&keys.announce(Selection::New)).0, [].into());
    keys.take(5, key("a", 1, 7, &[]));
    assert_eq!(told(&keys.announce(Selection::New)).0, [(1, 7)].into());
    keys.published_below(Some(5));
    assert_eq!(told(&keys.announce(Selection::All)).0, [(1, 7)].into());
    keys.published_below(None);
    assert!(keys.announce(Selection::All).is_empty());
    assert_eq!(keys.bytes, 0);
}

#[test]
fn too_many_keys_are_said_until_published() {
    let mut keys = Keys::default();
    let count = 3 * MAX_ANNOUNCED_BYTES / HEAD_BYTES;
    for n in 1..=count {
        keys.take(i64::try_from(n).unwrap(), key("a", n as u128, 1, &[]));
    }
    let announcements = keys.announce(Selection::All);
    assert!(announcements.iter().all(|one| one.is_cut));
    let (heads, _) = told(&announcements);
    assert!(heads.contains_key(&(count as u128)), "the newest is told");
    assert!(!heads.contains_key(&1));
    // The newest rows alone are left: all of them can be told.
    keys.published_below(Some(i64::try_from(count - 10).unwrap()));
    let announcements = keys.announce(Selection::All);
    assert!(announcements.iter().all(|one| !one.is_cut));
    assert_eq!(told(&announcements).0.len(), 11);
}

#[test]
fn what_is_left_out_alone_is_said() {
    let mut keys = Keys::default();
    keys.leave_out(9);
    let announcements = keys.announce(Selection::All);
    assert!(announcements.len() == 1 && announcements[0].is_cut);
    keys.published_below(Some(10));
    assert!(keys.announce(Selection::All).is_empty());
}

#[test]
fn stepped_over_rows_are_told_as_such() {
    let announcements = stepped_over(vec![key("a", 1, 4, &["alice"]), key("b", 2, 9, &[])]);
    let is_such = |one: &Announcement| one.kind == AnnouncementKind::SteppedOver && !one.is_cut;
    assert!(announcements.iter().all(is_such));
    let (heads, joined) = told(&announcements);
    assert_eq!(heads, [(1, 4), (2, 9)].into());
    assert_eq!(joined, ["alice"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever lingers and is published: announcements are small, none tells more than there is, and none keeps silent of what it leaves out.
    #[test]
    fn announcements_are_bounded_and_true(
        events in prop::collection::vec((0..3_usize, 0..400_u128, 0..300_usize, 0..40_usize), 1..400),
        published in 0..500_i64,
    ) {
        let mut keys = Keys::default();
        let mut heads: BTreeMap<u128, (i64, Seq)> = BTreeMap::new();
        for ((tenant, conversation, users, length), row) in events.iter().zip(1..) {
            let seq = heads.get(conversation).map_or(1, |(_, seq)| seq + 1);
            heads.insert(*conversation, (row, seq));
            let names: Vec<String> = (0..*users).map(|n| format!("{n:0>length$}", length = length + 3)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let conversation = conversation * 3 + *tenant as u128;
            keys.take(row, key(["a", "b", "c"][*tenant], conversation, seq, &names));
            prop_assert!(keys.bytes <= MAX_ANNOUNCED_BYTES);
        }
        keys.published_below(Some(published));
        let announcements = keys.announce(Selection::All);
        let mut all = 0;
        for announcement in &announcements {
            let bytes = wire::encode(announcement).unwrap().len();
            prop_assert!(bytes <= 2 * MAX_MESSAGE_BYTES, "{}", bytes);
            all += bytes;
        }
        prop_assert!(all <= 2 * MAX_ANNOUNCED_BYTES, "{}", all);
        let is_cut = announcements.iter().any(|one| one.is_cut);
        let (told, _) = told(&announcements);
        let mut last: BTreeMap<u128, (i64, Seq)> = BTreeMap::new();
        for ((tenant, conversation, ..), row) in events.iter().zip(1..) {
            let id = conversation * 3 + *tenant as u128;
            last.insert(id, (row, 0));
        }
        for (id, (row, _)) in last {
            let is_lingering = row >= published;
            prop_assert!(is_cut || told.contains_key(&id) == is_lingering, "{} of row {}", id, row);
        }
    }
}

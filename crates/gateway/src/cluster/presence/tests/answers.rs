//! What gateways answer of each other, and who comes and goes meanwhile.

use rustc_hash::FxHashSet;

use super::*;

#[test]
fn answer_older_than_a_word_changes_nothing() {
    let mut here = Here::new();
    let carries = |id| (id == ROOM_ID).then_some(true);
    here.presences.asks();
    let gone = word("alice", Offline);
    let now = here.at(0);
    here.presences
        .heard((gateway(1), 7), &gone, UpdateKind::Change, now, carries);
    let online = word("alice", Online);
    let mut answers = |number| {
        let from = gateway(1);
        here.presences
            .heard_answer(from, number, &online, now, carries)
    };
    assert!(!answers(6), "she left since");
    assert!(answers(8));
    let alice = account("alice");
    assert_eq!(here.presences.status_of(&alice), Some(Online));
    here.presences.heard(
        (gateway(1), 9),
        &word("alice", Away),
        UpdateKind::Change,
        now,
        carries,
    );
    here.presences
        .heard_answer(gateway(1), 8, &online, now, carries);
    assert_eq!(here.presences.status_of(&alice), Some(Away));
    here.presences.answered();
    // Who is owed its end hears of it, though only an answer told that she was there.
    here.hears(1, "alice", Offline, UpdateKind::Change, 1000);
    here.told(1000);
    let ids = [ROOM_ID].into_iter().collect();
    let mut lingering = Vec::new();
    let give = |id, account: &Account| lingering.push((id, account.clone()));
    assert!(here.presences.lingering_in(&ids, 2, give));
    assert_eq!(lingering, [(IN_ROOM, (*alice).clone())]);
    assert_eq!(here.presences.status_of(&alice), Some(Away));
    assert!(!here.presences.lingering_in(&ids, 0, |_, _| {}), "too many");
    assert_eq!(here.told(11_000), one("alice", Offline));
}

/// Who is named to a session beside the answers, asked at `ms`.
fn came(here: &Here, ms: u64) -> Vec<String> {
    let (ids, mut came) = ([ROOM_ID].into_iter().collect(), Vec::new());
    let give = |_, account: &Account| came.push(account.user.as_str().to_owned());
    assert!(here.presences.came_to(&ids, here.at(ms), give));
    came
}

#[test]
fn snapshot_claims_nothing_when_too_many_came() {
    let mut here = Here::new();
    here.presences.asks();
    for n in 0..5 {
        here.hears(1, &format!("user{n}"), Online, UpdateKind::Change, 100 + n);
    }
    let ids = room();
    assert!(!here.presences.came_to(&ids, here.at(50), |_, _| {}));
    assert!(here.presences.came_to(&ids, here.at(101), |_, _| {}));
}

#[test]
fn who_comes_behind_an_answer_is_named() {
    let mut here = Here::new();
    here.hears(1, "bob", Online, UpdateKind::Change, 0);
    here.hears(1, "bob", Offline, UpdateKind::Change, 100);
    here.told(100);
    here.presences.asks();
    // Each gateway has answered by now: none of them had either.
    here.hears(1, "alice", Online, UpdateKind::Change, 200);
    // He was never away for those who know him, and is told to nobody.
    here.hears(2, "bob", Online, UpdateKind::Change, 300);
    assert_eq!(here.told(300), one("alice", Online));
    assert_eq!(came(&here, 100), ["bob", "alice"]);
    assert_eq!(came(&here, 250), ["bob"], "the answers named her");
    here.presences.answered();
    assert!(came(&here, 0).is_empty());
}

#[test]
fn gateway_answers_for_present_and_returning_users() {
    let mut here = Here::new();
    let (alice, bob) = (account("alice"), account("bob"));
    for (key, user) in [(1, &alice), (2, &bob)] {
        here.opens(SessionKey(key), user);
    }
    here.presences.set(SessionKey(1), Away);
    here.says(0);
    here.told(0);
    here.presences.closed(SessionKey(2));
    here.says(1000);
    let tenant = &alice.tenant;
    let members = vec![(Arc::clone(&alice), IN_ROOM)];
    let Answer {
        words, is_whole, ..
    } = here
        .presences
        .answer(tenant, vec![bob.user.clone()], &room(), members);
    let told: Vec<_> = words
        .iter()
        .map(|word| (word.user.as_str(), word.status))
        .collect();
    assert_eq!(
        (told, is_whole),
        (vec![("bob", Online), ("alice", Away)], true)
    );
    assert_eq!(words[1].conversations, [ROOM_ID]);
    here.told(11_000);
    let Answer { words, .. } =
        here.presences
            .answer(tenant, vec![bob.user.clone()], &room(), vec![]);
    assert_eq!(words, []);
}

fn room() -> FxHashSet<ConversationId> {
    [ROOM_ID].into_iter().collect()
}

#[test]
fn who_closed_is_answered_until_that_is_said() {
    let mut here = Here::new();
    let (alice, key) = (account("alice"), SessionKey(1));
    let answer = |here: &Here| {
        let answer = here
            .presences
            .answer(&alice.tenant, vec![], &room(), vec![]);
        assert!(answer.is_whole);
        answer
    };
    here.opens(key, &alice);
    here.says(0);
    assert_eq!(answer(&here).words, [], "her shard names her");
    here.presences.closed(key);
    let named = answer(&here).words;
    assert_eq!((named.len(), named[0].status), (1, Online));
    assert_eq!(named[0].conversations, [ROOM_ID]);
    here.says(1000);
    let answer = answer(&here);
    assert_eq!(answer.words, []);
    let lingers = &answer.lingering[0];
    assert_eq!(
        (lingers.status, lingers.member_of().next()),
        (Online, Some(IN_ROOM))
    );
}

#[test]
fn user_who_left_is_not_named() {
    let mut here = Here::new();
    let alice = account("alice");
    let lingering = |here: &Here| {
        let mut named = 0;
        let give = |_, _: &Account| named += 1;
        assert!(here.presences.lingering_in(&room(), 100, give));
        named
    };
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.told(0);
    here.hears(1, "alice", Offline, UpdateKind::Change, 100);
    assert_eq!(lingering(&here), 1);
    here.presences.left((*alice).clone(), ROOM_ID, 2);
    assert_eq!(lingering(&here), 0);
    assert_eq!(told_in(&mut here, 10_100), [(Offline, vec![])]);
}

/// What is told to the conversations in which it is.
fn told_in(here: &mut Here, ms: u64) -> Vec<(PresenceStatus, Vec<ConversationId>)> {
    let told = here.presences.told(here.at(ms)).into_iter();
    told.map(|one| (one.status, one.conversations)).collect()
}

#[test]
fn early_leaver_is_not_answered() {
    let mut here = Here::new();
    let (alice, key) = (account("alice"), SessionKey(1));
    here.opens(key, &alice);
    here.says(0);
    here.presences.left((*alice).clone(), ROOM_ID, 2);
    here.presences.closed(key);
    let answer = here
        .presences
        .answer(&alice.tenant, vec![], &room(), vec![]);
    let nobody = Answer {
        is_whole: true,
        ..Answer::default()
    };
    assert_eq!(answer, nobody);
}

#[test]
fn lingering_user_with_missed_leave_is_unnamed() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.told(0);
    // Nobody was here for a moment, and nobody heard who left meanwhile.
    here.presences.hosts(ROOM_ID, 2);
    here.hears(1, "alice", Offline, UpdateKind::Change, 100);
    let named = |here: &Here| {
        let mut named = 0;
        let are_all = here.presences.lingering_in(&room(), 100, |_, _| named += 1);
        (named, are_all)
    };
    assert_eq!(named(&here), (0, false));
    here.presences.asks();
    let is_here = |id| (id == ROOM_ID).then_some(true);
    let mut hears = |status, ms| {
        let since = MemberOf {
            as_of: 2,
            ..IN_ROOM
        };
        let (tenant, user) = ("t".parse().unwrap(), "alice".parse().unwrap());
        let word = Presence::new(tenant, user, status, [since]);
        let (from, now) = ((gateway(2), 0), here.at(ms));
        here.presences
            .heard(from, &word, UpdateKind::Change, now, is_here);
    };
    hears(Online, 200);
    hears(Offline, 300);
    assert_eq!(came(&here, 0), ["alice"], "her gateway named it since");
    assert_eq!(named(&here), (1, true));
}

#[test]
fn returning_user_is_announced_where_present() {
    let mut here = Here::new();
    let alice = account("alice");
    here.opens(SessionKey(1), &alice);
    here.says(0);
    // She left the room meanwhile, and had been its last member here.
    here.presences.closed(SessionKey(1));
    here.opens(SessionKey(2), &alice);
    let now = here.at(1000);
    let said = here.presences.say(now, |_| Some(Vec::new()), |_| false);
    assert_eq!((said.changes.len(), said.repeats.len()), (0, 1));
    here.presences.closed(SessionKey(2));
    let answer = here
        .presences
        .answer(&alice.tenant, vec![], &room(), vec![]);
    let nobody = Answer {
        is_whole: true,
        ..Answer::default()
    };
    assert_eq!(answer, nobody);
}

#[test]
fn newest_membership_seq_counts() {
    let mut here = Here::new();
    let up_to = |as_of| {
        let member_of = MemberOf { as_of, ..IN_ROOM };
        Presence::new(
            "t".parse().unwrap(),
            "alice".parse().unwrap(),
            Online,
            [member_of],
        )
    };
    let now = here.at(0);
    let carries = |id| (id == ROOM_ID).then_some(true);
    let known = |here: &Here| here.presences.known[&account("alice")].conversations[0].as_of;
    for (word, as_of, counts) in [
        (UpdateKind::Change, 7, 7),
        (UpdateKind::Change, 5, 7),
        (UpdateKind::Answer, 6, 7),
        (UpdateKind::Answer, 9, 9),
        (UpdateKind::Unheard, 8, 9),
        (UpdateKind::Repeat, 10, 10),
    ] {
        let from = (gateway(1), 0);
        here.presences
            .heard(from, &up_to(as_of), word, now, carries);
        assert_eq!(known(&here), counts, "{word:?}");
    }
    let told = here.presences.told(now);
    assert_eq!(told.len(), 2, "what was not heard is told once more");
    assert!(told.iter().all(|one| one.as_of.len() == 1));
}

/// Nobody at this gateway shared a conversation with her when she was there.
#[test]
fn returning_user_is_named_in_new_conversation() {
    let (mut here, mut there) = (Here::new(), Here::new());
    let (alice, key) = (account("alice"), SessionKey(1));
    here.opens(key, &alice);
    here.says(0);
    here.presences.closed(key);
    let said = here.says(1000);
    assert_eq!(said.changes[0].status, Offline);
    here.presences.sweep(here.at(1000), |_| false);
    there.presences.own = gateway(1);
    let nowhere = |_| None;
    let from = gateway(0);
    there.presences.heard(
        (from, 1),
        &said.changes[0],
        UpdateKind::Change,
        there.at(1000),
        nowhere,
    );
    there.presences.hosts(ROOM_ID, 1);
    there.presences.asks();
    let answer = here
        .presences
        .answer(&alice.tenant, vec![], &room(), vec![]);
    let carries = |id| (id == ROOM_ID).then_some(true);
    let now = there.at(2000);
    there
        .presences
        .heard_lingering(&answer.lingering[0], now, carries);
    let mut named = Vec::new();
    let are_all = there
        .presences
        .lingering_in(&room(), 100, |one, user| named.push((one, user.clone())));
    assert_eq!((named, are_all), (vec![(IN_ROOM, (*alice).clone())], true));
    assert_eq!(there.presences.status_of(&alice), Some(Online));
    assert_eq!(there.told(11_999), []);
    // Others who are here believe that she is gone.
    let mut back = there;
    back.hears(2, "alice", Online, UpdateKind::Change, 11_999);
    assert_eq!(back.told(11_999), one("alice", Online));
    // Her gateway does not name her any more then.
    here.told(11_000);
    let answer = here
        .presences
        .answer(&alice.tenant, vec![], &room(), vec![]);
    assert_eq!(answer.lingering, []);
}

/// She was known here by another conversation.
#[test]
fn return_is_told_where_user_was_unknown() {
    let mut here = Here::new();
    let elsewhere = MemberOf {
        conversation: ConversationId(Uuid::from_u128(2)),
        as_of: 1,
    };
    let hears = |here: &mut Here, by, status, of: &[MemberOf], ms| {
        let (tenant, user) = ("t".parse().unwrap(), "alice".parse().unwrap());
        let word = Presence::new(tenant, user, status, of.iter().copied());
        let (from, now) = ((gateway(by), 0), here.at(ms));
        let carries = |_| Some(true);
        here.presences
            .heard(from, &word, UpdateKind::Change, now, carries);
        told_in(here, ms)
    };
    let said = hears(&mut here, 1, Online, &[elsewhere], 0);
    assert_eq!(said, [(Online, vec![elsewhere.conversation])]);
    // Her gateway dies, and the room has its first member here.
    let now = here.at(6000);
    here.presences.alive(&[gateway(0)], now);
    here.presences.hosts(ROOM_ID, 1);
    let said = hears(&mut here, 2, Online, &[elsewhere, IN_ROOM], 7000);
    assert_eq!(said, [(Online, vec![ROOM_ID])]);
    assert_eq!(hears(&mut here, 2, Online, &[elsewhere, IN_ROOM], 8000), []);
}

/// She went while nobody could say how large the room is, and came back before.
#[test]
fn return_is_told_where_only_end_was() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    assert_eq!(here.told(0), one("alice", Online));
    here.hears(1, "alice", Offline, UpdateKind::Change, 1000);
    let carries = |carries| move |id| (id == ROOM_ID).then_some(carries);
    let hears = |here: &mut Here, word, is_counted, ms| {
        let (from, now) = ((gateway(2), 0), here.at(ms));
        let online = self::word("alice", Online);
        here.presences
            .heard(from, &online, word, now, carries(is_counted));
        told_in(here, ms)
    };
    assert_eq!(hears(&mut here, UpdateKind::Repeat, false, 2000), []);
    let alice = account("alice");
    let asked: Vec<_> = here.presences.told_in([&*alice].into_iter()).collect();
    assert_eq!(asked, [ROOM_ID], "so that it is asked whether it is here");
    here.hears(2, "alice", Offline, UpdateKind::Change, 3000);
    assert_eq!(told_in(&mut here, 13_000), [(Offline, vec![ROOM_ID])]);
    let nowhere = hears(&mut here, UpdateKind::Change, false, 14_000);
    assert_eq!(nowhere, [(Online, vec![])]);
    let said = hears(&mut here, UpdateKind::Repeat, true, 15_000);
    assert_eq!(said, [(Online, vec![ROOM_ID])]);
    assert_eq!(hears(&mut here, UpdateKind::Repeat, true, 16_000), []);
}

#[test]
fn user_of_unanswering_gateway_is_named() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.hears(2, "bob", Away, UpdateKind::Change, 0);
    here.hears(2, "carol", Online, UpdateKind::Change, 0);
    here.hears(2, "carol", Offline, UpdateKind::Change, 0);
    let named = |here: &Here, answered: &[u128], ms| {
        let answered = answered.iter().map(|n| gateway(*n)).collect();
        let mut named = Vec::new();
        let give = |one, user: &Account| named.push((one, user.user.as_str().to_owned()));
        let presences = &here.presences;
        let have_answered = presences.unanswered_in(&room(), &answered, 100, give);
        (named, have_answered && !presences.lost_lately(here.at(ms)))
    };
    assert_eq!(named(&here, &[0, 1, 2], 0), (vec![], true));
    let bob = (IN_ROOM, "bob".to_owned());
    assert_eq!(named(&here, &[0, 1], 0), (vec![bob], false));
    let now = here.at(6000);
    here.presences.alive(&[gateway(0), gateway(1)], now);
    assert_eq!(named(&here, &[0, 1], 6000), (vec![], false), "he lingers");
    assert_eq!(named(&here, &[0, 1], 16_000), (vec![], true));
    // The last session of one that ends as it should was told to be gone.
    here.hears(1, "alice", Offline, UpdateKind::Change, 20_000);
    assert_eq!(named(&here, &[0], 20_000), (vec![], true));
    let now = here.at(26_000);
    here.presences.alive(&[gateway(0)], now);
    assert_eq!(named(&here, &[0], 26_000), (vec![], true));
}

/// The room had no member here when she was there last.
#[test]
fn return_is_told_after_missed_end() {
    let mut here = Here::new();
    let hears = |here: &mut Here, status, carries: Option<bool>, ms| {
        let (from, now) = ((gateway(1), 0), here.at(ms));
        let word = word("alice", status);
        let is_here = |id: ConversationId| if id == ROOM_ID { carries } else { Some(true) };
        here.presences
            .heard(from, &word, UpdateKind::Change, now, is_here);
        told_in(here, ms)
    };
    let elsewhere = ConversationId(Uuid::from_u128(99));
    let told = hears(&mut here, Online, None, 0);
    assert_eq!(told, [(Online, vec![elsewhere])]);
    assert_eq!(hears(&mut here, Offline, Some(true), 1000), []);
    let mut lingering = 0;
    here.presences
        .lingering_in(&room(), 100, |_, _| lingering += 1);
    assert_eq!(lingering, 1);
    let told = hears(&mut here, Online, Some(true), 2000);
    assert_eq!(told, [(Online, vec![ROOM_ID])]);
}

#[test]
fn unknown_users_of_returned_gateway_are_told() {
    let mut here = Here::new();
    here.hears(1, "bob", Online, UpdateKind::Change, 0);
    here.told(0);
    let now = here.at(6000);
    here.presences.alive(&[gateway(0)], now);
    assert_eq!(here.told(16_000), one("bob", Offline));
    let now = here.at(17_000);
    assert!(here.presences.alive(&[gateway(0), gateway(1)], now));
    here.hears(1, "alice", Online, UpdateKind::Repeat, 18_000);
    assert_eq!(here.told(18_000), one("alice", Online));
    here.hears(1, "dave", Online, UpdateKind::Answer, 18_500);
    assert_eq!(here.told(18_500), one("dave", Online));
    here.hears(1, "carol", Online, UpdateKind::Repeat, 30_000);
    assert_eq!(here.told(30_000), [], "she is known to who asked");
}

/// She is heard to leave before a word of hers that was said before.
#[test]
fn who_left_is_named_by_no_older_word() {
    let mut here = Here::new();
    let alice = account("alice");
    let up_to = |as_of| MemberOf { as_of, ..IN_ROOM };
    here.presences.left((*alice).clone(), ROOM_ID, 5);
    assert_eq!(here.presences.named_up_to(&alice, up_to(4)), None);
    assert_eq!(here.presences.named_up_to(&alice, up_to(5)), Some(Seq::MAX));
    let mut hears = |as_of| {
        let (tenant, user) = ("t".parse().unwrap(), "alice".parse().unwrap());
        let word = Presence::new(tenant, user, Online, [up_to(as_of)]);
        let (from, now) = ((gateway(1), 0), here.at(as_of));
        here.presences
            .heard(from, &word, UpdateKind::Change, now, |_| Some(true));
        told_in(&mut here, as_of)
    };
    assert_eq!(hears(4), []);
    // She is back.
    assert_eq!(hears(6), [(Online, vec![ROOM_ID])]);
}

/// Whoever joined since she said so is told her end, where nobody heard her leave.
#[test]
fn end_is_told_to_who_joined_since() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    let as_of = |here: &mut Here, ms| here.presences.told(here.at(ms))[0].as_of.clone();
    assert_eq!(as_of(&mut here, 0), [Seq::MAX]);
    here.hears(1, "alice", Offline, UpdateKind::Change, 1000);
    assert_eq!(as_of(&mut here, 11_000), [Seq::MAX]);
    here.hears(1, "alice", Online, UpdateKind::Change, 12_000);
    here.presences.hosts(ROOM_ID, 7);
    here.hears(1, "alice", Offline, UpdateKind::Change, 13_000);
    here.told(12_000);
    assert_eq!(as_of(&mut here, 23_000), [1], "she may have left unheard");
}

/// Her gateway is ahead of this one: she left, and is a member again.
#[test]
fn late_leave_ends_no_later_membership() {
    let mut here = Here::new();
    let alice = account("alice");
    let again = MemberOf {
        as_of: 7,
        ..IN_ROOM
    };
    let (tenant, user) = (alice.tenant.clone(), alice.user.clone());
    let word = Presence::new(tenant, user, Online, [again]);
    let (from, now) = ((gateway(1), 0), here.at(0));
    here.presences
        .heard(from, &word, UpdateKind::Change, now, |_| Some(true));
    here.presences.left((*alice).clone(), ROOM_ID, 5);
    assert_eq!(told_in(&mut here, 0).len(), 1);
    here.hears(1, "alice", Offline, UpdateKind::Change, 1000);
    assert_eq!(told_in(&mut here, 11_000), [(Offline, vec![ROOM_ID])]);
}

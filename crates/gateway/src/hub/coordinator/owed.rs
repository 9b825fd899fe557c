//! What a session that opens is owed, of what a worker told of its memberships.

use confab_protocol::ids::Seq;
use confab_protocol::query::Membership;

use crate::hub::Start;

/// What a session that opens is owed nothing of, and what it is, each from behind a seq, in the order of conversation and
/// joining.
pub(super) fn owed(
    start: &Start,
    mut memberships: Vec<Membership>,
    ended: Vec<Membership>,
) -> (Vec<Membership>, Vec<(Membership, Seq)>) {
    let held = start.held();
    let Behind { over, later } = end_told(&mut memberships, ended);
    let from = |m: &Membership, otherwise: Option<Seq>| match held.get(&m.conversation) {
        Some(position) if m.left.is_some_and(|left| left <= *position) => None,
        Some(position) => Some((*position).max(m.joined - 1)),
        None if start.resumed => Some(m.joined - 1),
        None => otherwise,
    };
    let mut owed = Vec::new();
    let mut nothing = Vec::new();
    let mut sort = |m: Membership, otherwise| match from(&m, otherwise) {
        Some(cursor) => owed.push((m, cursor)),
        None => nothing.push(m),
    };
    for m in memberships {
        // One that ended behind the page that told it is owed its end.
        sort(m, Some(m.head));
    }
    for m in later {
        sort(m, Some(m.joined - 1));
    }
    for m in over {
        sort(m, None);
    }
    owed.sort_unstable_by_key(|(m, _)| (m.conversation, m.joined));
    (nothing, owed)
}

/// What ended while a session's memberships were read page by page.
#[derive(Default)]
struct Behind {
    /// What was over before: it is not owed.
    over: Vec<Membership>,
    /// What began behind one that was told as present.
    later: Vec<Membership>,
}

/// A membership that ended behind the page that told it as present is owed its end, and so are those between that and the
/// last page. Pages come in the order of conversation and joining.
fn end_told(memberships: &mut [Membership], ended: Vec<Membership>) -> Behind {
    let place = |m: &Membership| (m.conversation, m.joined);
    let mut behind = Behind::default();
    for one in ended {
        match memberships.binary_search_by_key(&place(&one), place) {
            Ok(at) => {
                if let Some(told) = memberships.get_mut(at) {
                    told.left = one.left;
                }
            }
            Err(at) => {
                let before = at.checked_sub(1).and_then(|before| memberships.get(before));
                if before.is_some_and(|told| told.conversation == one.conversation) {
                    behind.later.push(one);
                } else {
                    behind.over.push(one);
                }
            }
        }
    }
    behind.later.sort_unstable_by_key(place);
    behind
}

//! What is said of presence, in messages for the other gateways.

use confab_bus::GatewayId;
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::{Presence, PresenceNews};
use rustc_hash::FxHashMap;

use crate::cluster::presence::PresenceUpdates;

/// About how many bytes of news go in one message: far from what NATS takes, and little to read at once.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// About how many bytes a word takes without its conversations, and each of those with its seq.
const UPDATE_BYTES: usize = 200;
const CONVERSATION_BYTES: usize = 18;
const AS_OF: usize = 9;

/// Puts what is said into messages: of one tenant each, and of a bounded size.
pub(super) fn news(
    own: GatewayId,
    said: PresenceUpdates,
    wanted: impl Iterator<Item = (TenantId, ConversationId)>,
) -> Vec<(TenantId, PresenceNews)> {
    let mut pages = Pages {
        own,
        full: Vec::new(),
        open: FxHashMap::default(),
    };
    let size =
        |word: &Presence| UPDATE_BYTES + (CONVERSATION_BYTES + AS_OF) * word.conversations.len();
    for word in said.changes {
        let page = pages.with(word.tenant.clone(), size(&word));
        page.changes.push(word);
    }
    for word in said.repeats {
        let page = pages.with(word.tenant.clone(), size(&word));
        page.repeats.push(word);
    }
    for word in said.unheard {
        let page = pages.with(word.tenant.clone(), size(&word));
        page.unheard.push(word);
    }
    for (tenant, id) in wanted {
        pages.with(tenant, CONVERSATION_BYTES).wanted.push(id);
    }
    let open = pages.open.into_iter();
    let open = open.map(|(tenant, (page, _))| (tenant, page));
    pages.full.into_iter().chain(open).collect()
}

struct Pages {
    own: GatewayId,
    full: Vec<(TenantId, PresenceNews)>,
    open: FxHashMap<TenantId, (PresenceNews, usize)>,
}

impl Pages {
    /// A page with room for so many bytes.
    fn with(&mut self, tenant: TenantId, bytes: usize) -> &mut PresenceNews {
        let empty = || PresenceNews {
            gateway: self.own.0,
            number: 0,
            changes: Vec::new(),
            repeats: Vec::new(),
            unheard: Vec::new(),
            wanted: Vec::new(),
        };
        let (page, size) = self
            .open
            .entry(tenant.clone())
            .or_insert_with(|| (empty(), 0));
        if *size > 0 && *size + bytes > MAX_MESSAGE_BYTES {
            let full = std::mem::replace(page, empty());
            self.full.push((tenant, full));
            *size = 0;
        }
        *size += bytes;
        page
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::Seq;
    use confab_protocol::signal::{MemberOf, PresenceStatus};
    use confab_protocol::wire;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn updates_fit_nats_messages_by_tenant() {
        let member_of = MemberOf {
            conversation: ConversationId(Uuid::now_v7()),
            as_of: Seq::MAX,
        };
        let word = |n: usize| {
            let tenant = if n == 0 { "a" } else { "b" }.parse().unwrap();
            let user = format!("{n:0>100}").parse().unwrap();
            let of = vec![member_of; 10_000 * (n % 2)];
            Presence::new(tenant, user, PresenceStatus::Online, of)
        };
        let said = PresenceUpdates {
            changes: (0..10).map(word).collect(),
            repeats: vec![word(3)],
            unheard: vec![word(5)],
        };
        let wanted =
            (0..50_000).map(|n| ("b".parse().unwrap(), ConversationId(Uuid::from_u128(n))));
        let pages = news(GatewayId(Uuid::nil()), said, wanted);
        assert!(pages.len() < 20, "{}", pages.len());
        let (mut words, mut wanted) = (0, 0);
        for (tenant, page) in &pages {
            assert!(wire::encode(page).unwrap().len() < 2 * MAX_MESSAGE_BYTES);
            assert!(page.changes.iter().all(|word| word.tenant == *tenant));
            words += page.changes.len() + page.repeats.len() + page.unheard.len();
            wanted += page.wanted.len();
        }
        assert_eq!((words, wanted), (12, 50_000));
        assert!(
            news(
                GatewayId(Uuid::nil()),
                PresenceUpdates::default(),
                [].into_iter()
            )
            .is_empty()
        );
    }
}

//! Signals and presence around the hub: what other gateways say, what this one says, and who is told.

use std::time::Instant;

use confab_bus::GatewayId;
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::{Presence, PresenceNews};
use rustc_hash::FxHashMap;

use super::FanoutLoop;
use crate::presence::{Said, Word};
use crate::signals::FromGateways;

/// Sessions that are told of presence in one turn, about, and members of whom it is repeated.
const TURN_SESSIONS: usize = 1024;
/// About how many bytes of news go in one message: far from what NATS takes, and little to read at once.
const NEWS: usize = 256 * 1024;
/// About how many bytes a word takes without its conversations, and each of those.
const WORD: usize = 200;
const ID: usize = 18;

impl FanoutLoop {
    pub(super) fn hear_gateway(&mut self, said: FromGateways) {
        let now = Instant::now();
        match said {
            FromGateways::Signal(signal) => self.hub.signal(&signal),
            FromGateways::Presence(news) => self.hear_news(&news, now),
            FromGateways::Alive(alive) => {
                if self.presences.alive(&alive, now) {
                    self.want_all();
                }
            }
            FromGateways::Back => {
                self.presences.repeat_all();
                self.want_all();
            }
        }
    }

    fn hear_news(&mut self, news: &PresenceNews, now: Instant) {
        let gateway = GatewayId(news.gateway);
        if gateway == self.own {
            return;
        }
        for (words, word) in [(&news.changes, Word::Change), (&news.repeats, Word::Repeat)] {
            for presence in words {
                self.presences
                    .heard(gateway, presence, word, now, |id| self.hub.carries(id));
            }
        }
        let wanted = news.wanted.iter().filter(|id| self.hub.carries(**id));
        self.asked_for.extend(wanted.copied());
    }

    /// This gateway may have missed what the others said of anyone.
    fn want_all(&mut self) {
        self.wanted.extend(self.hub.all_hosted());
    }

    /// Begins to say and tell what is to be said and told; to be called several times a second.
    pub(super) fn keep_presence(&mut self) {
        let now = Instant::now();
        self.note_joined();
        self.wanted.extend(self.hub.take_hosted());
        self.say(now);
        self.presences.sweep(|id| self.hub.carries(id));
        let replays = self.hub.take_replays();
        self.replays.observe(self.hub.window(), replays);
        let [small, large] = self.hub.waiting_openings();
        self.metrics.waiting("small_openings", small);
        self.metrics.waiting("large_openings", large);
        self.metrics.waiting("questions", self.questions.waiting());
    }

    /// Tells presence of new conversations: in those that came behind a change it is none.
    pub(super) fn note_joined(&mut self) {
        for (account, id) in self.hub.take_joined() {
            self.presences.joined(&account, id);
        }
    }

    /// Whether presence is being said or told.
    pub(super) fn has_presence(&self) -> bool {
        self.presences.is_saying() || !self.tellings.is_empty() || !self.asked_for.is_empty()
    }

    /// Says and tells some more of what is to be said and told.
    pub(super) fn presence_turn(&mut self) {
        let mut room = TURN_SESSIONS;
        while room > 0
            && let Some(id) = self.asked_for.pop()
        {
            let members = self.hub.members_here(id);
            room = room.saturating_sub(1 + members.len());
            for account in members {
                self.presences.repeat(&account);
            }
        }
        if self.presences.is_saying() {
            self.say(Instant::now());
        }
        self.tellings.tell(&self.hub, TURN_SESSIONS);
    }

    fn say(&mut self, now: Instant) {
        let said = self
            .presences
            .say(now, |account| self.hub.carrying_of(account));
        let wanted = std::mem::take(&mut self.wanted);
        let wanted = wanted.into_iter().filter(|(_, id)| self.hub.carries(*id));
        for (tenant, news) in news(self.own, said, wanted) {
            self.signals.presence(tenant, news);
        }
        for presence in self.presences.told(now) {
            self.tellings.push(presence);
        }
    }
}

/// Puts what is said into messages: of one tenant each, and of a bounded size.
fn news(
    own: GatewayId,
    said: Said,
    wanted: impl Iterator<Item = (TenantId, ConversationId)>,
) -> Vec<(TenantId, PresenceNews)> {
    let mut pages = Pages {
        own,
        full: Vec::new(),
        open: FxHashMap::default(),
    };
    let size = |word: &Presence| WORD + ID * word.conversations.len();
    for word in said.changes {
        let page = pages.with(word.tenant.clone(), size(&word));
        page.changes.push(word);
    }
    for word in said.repeats {
        let page = pages.with(word.tenant.clone(), size(&word));
        page.repeats.push(word);
    }
    for (tenant, id) in wanted {
        pages.with(tenant, ID).wanted.push(id);
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
            changes: Vec::new(),
            repeats: Vec::new(),
            wanted: Vec::new(),
        };
        let (page, size) = self
            .open
            .entry(tenant.clone())
            .or_insert_with(|| (empty(), 0));
        if *size > 0 && *size + bytes > NEWS {
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
    use confab_protocol::signal::PresenceStatus;
    use confab_protocol::wire;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn news_go_in_few_messages_of_one_tenant_each_that_fit_nats() {
        let word = |n: usize| Presence {
            tenant: if n == 0 { "a" } else { "b" }.parse().unwrap(),
            user: format!("{n:0>100}").parse().unwrap(),
            status: PresenceStatus::Online,
            conversations: vec![ConversationId(Uuid::now_v7()); 10_000 * (n % 2)],
        };
        let said = Said {
            changes: (0..10).map(word).collect(),
            repeats: vec![word(3)],
        };
        let wanted =
            (0..50_000).map(|n| ("b".parse().unwrap(), ConversationId(Uuid::from_u128(n))));
        let pages = news(GatewayId(Uuid::nil()), said, wanted);
        assert!(pages.len() < 15, "{}", pages.len());
        let (mut words, mut wanted) = (0, 0);
        for (tenant, page) in &pages {
            assert!(wire::encode(page).unwrap().len() < 2 * NEWS);
            assert!(page.changes.iter().all(|word| word.tenant == *tenant));
            words += page.changes.len() + page.repeats.len();
            wanted += page.wanted.len();
        }
        assert_eq!((words, wanted), (11, 50_000));
        assert!(news(GatewayId(Uuid::nil()), Said::default(), [].into_iter()).is_empty());
    }
}

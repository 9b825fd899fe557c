//! Signals and presence around the hub: what other gateways say, what this one says, and who is told.

use std::time::Instant;

use confab_bus::GatewayId;
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::{Presence, PresenceNews};
use rustc_hash::FxHashMap;

use super::{FanoutLoop, RUN};
use crate::presence::{Said, Word};
use crate::signals::FromGateways;

/// About how many bytes of news go in one message: far from what NATS takes, and little to read at once.
const NEWS: usize = 256 * 1024;
/// About how many bytes a word takes without its conversations, and each of those.
const WORD: usize = 200;
const ID: usize = 18;

impl FanoutLoop {
    /// Hears what waits of the other gateways, so much that events do not wait for it.
    pub(super) fn hear_gateways(&mut self) {
        for _ in 0..RUN {
            match self.said.try_recv() {
                Ok(said) => self.hear_gateway(said),
                Err(_nothing) => return,
            }
        }
    }

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
        for id in &news.wanted {
            if self.hub.carries(*id) {
                for account in self.hub.members_here(*id) {
                    self.presences.repeat(&account);
                }
            }
        }
    }

    /// This gateway may have missed what the others said of anyone.
    fn want_all(&mut self) {
        self.wanted.extend(self.hub.all_hosted());
    }

    /// Says and tells what is to be said and told; to be called several times a second.
    pub(super) fn keep_presence(&mut self) {
        let now = Instant::now();
        for account in self.hub.take_joined() {
            self.presences.repeat(&account);
        }
        self.wanted.extend(self.hub.take_hosted());
        let said = self
            .presences
            .say(now, |account| self.hub.carrying_of(account));
        let wanted = std::mem::take(&mut self.wanted);
        let wanted = wanted.into_iter().filter(|(_, id)| self.hub.carries(*id));
        for (tenant, news) in news(self.own, said, wanted) {
            self.signals.presence(tenant, news);
        }
        for presence in self.presences.told(now) {
            self.hub.tell(&presence);
        }
        self.presences.sweep(|id| self.hub.carries(id));
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

//! What workers announce of commits that the feed does not carry: the order here learns that they exist, and reads them from a worker.

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::lingering::{Announced, Joined};

use super::Shard;
use super::asking::confirmation;
use crate::account::Account;

impl Shard {
    /// A worker announced what of a tenant is committed, whatever the feed carries. It may be told again and again, and come by the feed too.
    pub(crate) fn announced(&mut self, announced: &Announced) {
        for (id, seq) in &announced.heads {
            self.exists(announced, *id, *seq);
        }
        let mut of = Vec::new();
        for joined in &announced.joined {
            for user in &joined.users {
                let account = Account {
                    tenant: announced.tenant.clone(),
                    user: user.clone(),
                };
                if self.is_unconfirmed(&account, joined) {
                    of.push(confirmation(&account, joined.conversation, joined.seq));
                }
            }
        }
        self.confirm(of);
    }

    /// An event exists: what of its conversation's order lacks up to it is read as any gap is.
    fn exists(&mut self, announced: &Announced, id: ConversationId, seq: Seq) {
        match self.conversations.get_mut(&id) {
            Some(conversation) if conversation.tenant == announced.tenant => {
                conversation.sequencer.learn(seq);
                self.watch_gap(id);
            }
            Some(_) => {}
            // Whoever opens by an older answer is brought up to here.
            None => self.heard.note(id, seq, self.now),
        }
    }

    /// Whether an open session of the user does not know the membership, and nothing is on its way that will tell it: neither the order of the
    /// conversation nor an answer of a worker.
    fn is_unconfirmed(&mut self, account: &Account, joined: &Joined) -> bool {
        let (id, seq) = (joined.conversation, joined.seq);
        if !self.present.contains_key(account) {
            return false;
        }
        let there = self.conversations.get(&id);
        if there.is_some_and(|there| there.sequencer.position() < seq) {
            return false;
        }
        let keys = self.present.get(account).into_iter().flatten();
        let mut sessions = keys.filter_map(|key| self.sessions.get(key));
        let is_asked = sessions.any(|session| session.confirming.contains_key(&id));
        self.note_addition(account, id, seq) && !is_asked
    }
}

//! What is decided about a record, without doing it: what a token is good for, and what a write that was refused means.

use confab_auth::Caller;
use confab_bus::GatewayId;
use confab_bus::records::{Entry, Found, Ownership, Record, TokenHash};

use super::token::is_same;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenVerdict {
    /// It is the newest one: it resumes the session.
    Newest,
    /// It was used last: it resumes the session as long as its client is not known to have a newer one.
    Former,
    /// It is another's.
    Foreign,
    /// It is neither: the caller's own session has moved on.
    Used,
    /// It is neither, and the session is another's: nobody is told that there is one.
    Unknown,
}

/// What the token with this hash is good for in the hands of `caller`.
pub(crate) fn judge(record: &Record, hash: &TokenHash, caller: &Caller) -> TokenVerdict {
    let is_newest = is_same(&record.token, hash);
    let former = record.former.as_ref();
    let is_former = former.is_some_and(|former| is_same(former, hash));
    let is_own = (&record.tenant, &record.user, &record.device)
        == (&caller.tenant, &caller.user, &caller.device);
    match (is_newest, is_former, is_own) {
        (true, _, true) => TokenVerdict::Newest,
        (false, true, true) => TokenVerdict::Former,
        (true, _, false) | (false, true, false) => TokenVerdict::Foreign,
        (false, false, true) => TokenVerdict::Used,
        (false, false, false) => TokenVerdict::Unknown,
    }
}

/// What a write that was refused means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteDecision {
    /// The session is another's by now, or ended.
    Fenced,
    /// What stands there is older: it is written over by this revision.
    WriteOver(u64),
    /// Nothing stands there: it is written where nothing does.
    Create,
}

/// What it means for whoever holds the session as `own` in the process `gateway` that this stands in the bucket.
pub(crate) fn decide(own: Ownership, gateway: GatewayId, found: &Found) -> WriteDecision {
    match found {
        Found::Absent => WriteDecision::Create,
        Found::Unreadable { revision, .. } => WriteDecision::WriteOver(*revision),
        Found::Entry {
            entry: Entry::Ended { .. },
            ..
        } => WriteDecision::Fenced,
        Found::Baseless { record, revision }
        | Found::Entry {
            entry: Entry::Live(record),
            revision,
        } => {
            let theirs = record.owner;
            let is_later =
                theirs.generation > own.generation || (theirs > own && record.gateway != gateway);
            if is_later {
                WriteDecision::Fenced
            } else {
                WriteDecision::WriteOver(*revision)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::testing::{caller, hash, record};
    use super::*;

    #[test]
    fn token_is_good_for_its_device_only() {
        let record = Record {
            former: Some(hash(1)),
            ..record("alice", "phone", hash(2))
        };
        let own = caller("alice", "phone");
        let others = [caller("bob", "phone"), caller("alice", "laptop")];
        for (token, to_own, to_others) in [
            (2, TokenVerdict::Newest, TokenVerdict::Foreign),
            (1, TokenVerdict::Former, TokenVerdict::Foreign),
            (3, TokenVerdict::Used, TokenVerdict::Unknown),
        ] {
            assert_eq!(judge(&record, &hash(token), &own), to_own);
            for other in &others {
                assert_eq!(judge(&record, &hash(token), other), to_others);
            }
        }
        let mut other_tenant = own;
        other_tenant.tenant = "other".parse().unwrap();
        assert_eq!(
            judge(&record, &hash(2), &other_tenant),
            TokenVerdict::Foreign
        );
    }

    #[test]
    fn only_a_later_owner_or_the_end_fences() {
        let owner = |generation, take_over| Ownership {
            generation,
            take_over: Uuid::from_u128(take_over),
        };
        let gateway = |n| GatewayId(Uuid::from_u128(n));
        let of = |own, process| Found::Entry {
            entry: Entry::Live(Box::new(Record {
                owner: own,
                gateway: gateway(process),
                ..record("alice", "phone", hash(1))
            })),
            revision: 7,
        };
        let over = WriteDecision::WriteOver(7);
        let ended = Found::Entry {
            entry: Entry::Ended {
                generation: 1,
                tokens: Vec::new(),
            },
            revision: 7,
        };
        let garbage = Found::Unreadable {
            revision: 7,
            deleted: false,
        };
        let own = owner(3, 50);
        for (found, decision) in [
            (Found::Absent, WriteDecision::Create),
            (garbage, over),
            (ended, WriteDecision::Fenced),
            (of(owner(4, 1), 2), WriteDecision::Fenced),
            (of(owner(4, 1), 1), WriteDecision::Fenced),
            (of(owner(3, 51), 2), WriteDecision::Fenced),
            // Its own write that timed out; another's that was the lesser one; a store that went back.
            (of(owner(3, 50), 1), over),
            (of(owner(3, 51), 1), over),
            (of(owner(3, 49), 2), over),
            (of(owner(2, 99), 2), over),
        ] {
            assert_eq!(decide(own, gateway(1), &found), decision, "{found:?}");
        }
    }
}

//! Draws random commands from what exists.

use confab_protocol::ids::Seq;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};
use serde_json::json;

use super::command::{
    BACKEND_USER, Content, Create, MODEL_USERS, ModelAction, ModelBody, ModelCommand, Who,
};

/// Conversations that one history has at most.
const MAX_CONVERSATIONS: usize = 10;

/// What one who draws knows of a conversation; what came since does not matter, for a refusal is an answer as well.
#[derive(Debug, Clone)]
pub(super) struct Hint {
    pub(super) members: Vec<Who>,
    pub(super) version: u64,
    pub(super) head: Seq,
    pub(super) messages: Vec<(Seq, Who)>,
    pub(super) is_deleted: bool,
}

impl Hint {
    /// Of one that has just begun: all may be its members.
    pub(super) fn beginning() -> Self {
        Self {
            members: MODEL_USERS.to_vec(),
            version: 1,
            head: 1,
            messages: Vec::new(),
            is_deleted: false,
        }
    }
}

/// What there is to draw from.
#[derive(Debug, Default)]
pub(super) struct Generator {
    pub(super) conversations: Vec<Hint>,
    sends: Vec<(Who, usize, ModelAction)>,
    creations: Vec<(Who, Create)>,
    drawn: u64,
}

/// Anyone, the backend more seldom.
pub(super) fn anyone(rng: &mut StdRng) -> Who {
    if rng.random_ratio(1, 10) {
        BACKEND_USER
    } else {
        user(rng)
    }
}

fn user(rng: &mut StdRng) -> Who {
    MODEL_USERS.choose(rng).unwrap()
}

impl Generator {
    /// The next thing that `who` asks for.
    pub(super) fn draw(&mut self, rng: &mut StdRng, who: Who) -> ModelCommand {
        self.drawn += 1;
        let Some(at) = self.place(rng, who) else {
            return self.creation(rng, who);
        };
        let hint = self.conversations[at].clone();
        let action = match rng.random_range(0..100) {
            0..8 if self.may_create(who) => return self.creation(rng, who),
            0..16 => self.patch(rng, &hint),
            16..18 => ModelAction::Delete,
            18..29 => addition(rng, &hint),
            29..36 => ModelAction::SetRole {
                user: someone(rng, &hint),
                role: role(rng),
            },
            36..42 => ModelAction::Remove {
                user: someone(rng, &hint),
            },
            42..46 => ModelAction::Remove { user: who },
            46..54 => return self.repeat(rng, who, at, &hint),
            54..70 if hint.messages.is_empty() => return self.send(rng, who, at, &hint),
            54..64 => self.edit(rng, who, &hint),
            64..70 => ModelAction::Unsend {
                seq: a_message(rng, who, &hint),
            },
            70..77 => ModelAction::Read {
                up_to: rng.random_range(0..hint.head + 3),
            },
            77..81 => return self.read_messages(rng, at),
            _ => return self.send(rng, who, at, &hint),
        };
        ModelCommand::In(at, action)
    }

    /// Mostly one where the user is a member.
    fn place(&self, rng: &mut StdRng, who: Who) -> Option<usize> {
        let all = 0..self.conversations.len();
        let own: Vec<usize> = all
            .clone()
            .filter(|at| {
                let hint = &self.conversations[*at];
                !hint.is_deleted && (who == BACKEND_USER || hint.members.contains(&who))
            })
            .collect();
        let any: Vec<usize> = all.collect();
        let is_own = rng.random_ratio(5, 6) && !own.is_empty();
        if is_own { own } else { any }.choose(rng).copied()
    }

    /// Where there is enough of them, with a key that was used before.
    fn may_create(&self, who: Who) -> bool {
        let has_keys = self.creations.iter().any(|(by, _)| *by == who);
        has_keys || self.conversations.len() < MAX_CONVERSATIONS
    }

    fn creation(&mut self, rng: &mut StdRng, who: Who) -> ModelCommand {
        let earlier: Vec<_> = self.creations.iter().filter(|(by, _)| *by == who).collect();
        let is_full = self.conversations.len() >= MAX_CONVERSATIONS;
        if (is_full || rng.random_ratio(1, 3))
            && let Some((_, create)) = earlier.choose(rng)
        {
            let mut create = create.clone();
            if rng.random_ratio(1, 3) {
                create.metadata = json!({"name": "another"});
            }
            return ModelCommand::Create(create);
        }
        let r#type = *["direct", "group", "channel"].choose(rng).unwrap();
        let mut users: Vec<Who> = MODEL_USERS.sample(rng, 2).copied().collect();
        if r#type != "direct" {
            let more = rng.random_range(0..4);
            users.extend((0..more).map(|_| user(rng)));
        } else if rng.random_ratio(3, 4) && who != BACKEND_USER {
            users[0] = who;
        } else if rng.random_ratio(1, 3) {
            users.push(user(rng));
        }
        let key = rng
            .random_bool(0.5)
            .then(|| format!("k-{}", rng.next_u64()));
        let name = format!("created {}", self.drawn);
        let metadata = if rng.random_bool(0.5) {
            json!({ "name": name })
        } else {
            json!({})
        };
        let create = Create {
            r#type,
            users,
            metadata,
            key,
        };
        if create.key.is_some() {
            self.creations.push((who, create.clone()));
        }
        ModelCommand::Create(create)
    }

    fn patch(&self, rng: &mut StdRng, hint: &Hint) -> ModelAction {
        let number = self.drawn;
        let patches = [
            json!({"name": format!("name {number}")}),
            json!({"name": null, "description": format!("described {number}")}),
            json!({"custom": {"a": {"b": number, "c": null}, "d": [number]}}),
            json!({"custom": {"a": {"b": null}, "d": null}}),
            json!({"description": null, "custom": null}),
            json!({}),
        ];
        let version = hint.version + 1 - u64::from(rng.random_bool(0.8));
        let if_matches = [
            None,
            None,
            Some(("*".to_owned(), None)),
            Some((format!("\"{version}\""), Some(version))),
            Some((version.to_string(), Some(version))),
        ];
        ModelAction::Patch {
            patch: patches.choose(rng).unwrap().clone(),
            if_match: if_matches.choose(rng).unwrap().clone(),
        }
    }

    fn send(&mut self, rng: &mut StdRng, who: Who, at: usize, hint: &Hint) -> ModelCommand {
        let bytes: [u8; 16] = rng.random();
        let reply_to = rng.random_ratio(1, 5).then(|| a_message(rng, who, hint));
        let metadata = if rng.random_ratio(1, 4) {
            json!({"mark": self.drawn})
        } else {
            json!({})
        };
        let message = ModelBody {
            kind: ["text", "x-note"].choose(rng).unwrap(),
            content: self.content(rng),
            reply_to,
            metadata,
        };
        let client_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let action = ModelAction::Send { client_id, message };
        self.sends.push((who, at, action.clone()));
        ModelCommand::In(at, action)
    }

    /// A send once more, with the same content or another.
    fn repeat(&mut self, rng: &mut StdRng, who: Who, at: usize, hint: &Hint) -> ModelCommand {
        let earlier: Vec<_> = self.sends.iter().filter(|(by, ..)| *by == who).collect();
        let Some((_, at, action)) = earlier.choose(rng) else {
            return self.send(rng, who, at, hint);
        };
        let mut action = action.clone();
        if rng.random_ratio(1, 3)
            && let ModelAction::Send { message, .. } = &mut action
        {
            message.metadata = json!({"again": true});
        }
        ModelCommand::In(*at, action)
    }

    fn edit(&self, rng: &mut StdRng, who: Who, hint: &Hint) -> ModelAction {
        ModelAction::Edit {
            seq: a_message(rng, who, hint),
            content: self.content(rng),
        }
    }

    /// Every content in clear is there once.
    fn content(&self, rng: &mut StdRng) -> Content {
        if rng.random_ratio(1, 8) {
            let sealed = [("AAEC", 3), ("AAECAw==", 4)];
            let (text, size) = *sealed.choose(rng).unwrap();
            return Content::Sealed(text, size);
        }
        Content::Clear(json!({"text": format!("words {}", self.drawn)}))
    }

    /// Up to four messages, of several conversations at times.
    fn read_messages(&self, rng: &mut StdRng, at: usize) -> ModelCommand {
        let mut messages = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let at = if rng.random_ratio(2, 3) {
                at
            } else {
                rng.random_range(0..self.conversations.len())
            };
            let of = &self.conversations[at].messages;
            let seq = of.choose(rng).map_or(1, |(seq, _)| *seq);
            messages.push((at, seq));
        }
        ModelCommand::ReadMessages(messages)
    }
}

fn role(rng: &mut StdRng) -> &'static str {
    ["member", "admin", "admin"].choose(rng).unwrap()
}

/// Mostly a member.
fn someone(rng: &mut StdRng, hint: &Hint) -> Who {
    let member = hint.members.choose(rng).copied();
    member
        .filter(|_| rng.random_ratio(6, 7))
        .unwrap_or_else(|| user(rng))
}

/// Mostly users who are no members.
fn addition(rng: &mut StdRng, hint: &Hint) -> ModelAction {
    let strangers: Vec<Who> = MODEL_USERS
        .into_iter()
        .filter(|user| !hint.members.contains(user))
        .collect();
    let from = if strangers.is_empty() || rng.random_ratio(1, 6) {
        &MODEL_USERS[..]
    } else {
        &strangers
    };
    let count = rng.random_range(1..4);
    let users: Vec<Who> = from.sample(rng, count).copied().collect();
    let members = users.into_iter().map(|user| (user, role(rng))).collect();
    ModelAction::Add { members }
}

/// Mostly one's own, seldom something that is no message.
fn a_message(rng: &mut StdRng, who: Who, hint: &Hint) -> Seq {
    if rng.random_ratio(1, 10) {
        return rng.random_range(1..hint.head + 2);
    }
    let messages = hint.messages.iter();
    let own: Vec<_> = messages.filter(|(_, sender)| *sender == who).collect();
    let own = own.choose(rng).filter(|_| rng.random_ratio(4, 5));
    own.copied()
        .or_else(|| hint.messages.choose(rng))
        .map_or(1, |(seq, _)| *seq)
}

//! The bounds of the wire contract, in bytes unless the name says otherwise.

/// A frame from a client, fragments together.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;
/// Bytes that a socket may send before its hello is accepted: a hello with the largest token, and a third beside it.
pub const MAX_HELLO_BYTES: usize = 24 * 1024;
/// Message content in clear, as JSON text in its shortest form.
pub const MAX_CONTENT_BYTES: usize = 64 * 1024;
/// Encrypted message content, decoded.
pub const ENCRYPTED_CONTENT: usize = 256 * 1024;
/// A message's metadata, as JSON text in its shortest form.
pub const MESSAGE_METADATA: usize = 16 * 1024;
/// The `custom` object of a conversation's metadata, as JSON text in its shortest form.
pub const MAX_CUSTOM_BYTES: usize = 16 * 1024;
/// An event as clients receive it.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;
/// A batch of commands, and a worker's answer: both fit one NATS message of 1 MiB.
pub const MAX_RPC_BYTES: usize = 768 * 1024;
/// Characters of a conversation's name.
pub const NAME_CHARS: usize = 200;
/// Characters of a conversation's description.
pub const DESCRIPTION_CHARS: usize = 2000;
/// Characters of a conversation's avatar URL.
pub const AVATAR_CHARS: usize = 2048;
/// Users named in one request.
pub const PARTICIPANTS_PER_REQUEST: usize = 1000;
/// Participants in an answer about a conversation.
pub const PARTICIPANTS_SHOWN: usize = 100;
/// Members of a group.
pub const GROUP_MEMBERS: u64 = 1000;
/// Members of a channel.
pub const CHANNEL_MEMBERS: u64 = 100_000;
/// Memberships of a user up to which others may add it.
pub const MEMBERSHIPS_BY_OTHERS: u64 = 8_000;
/// Memberships of a user up to which it may create conversations itself.
pub const MEMBERSHIPS_BY_ONESELF: u64 = 10_000;
/// Conversations of which a client may say in one hello or `seen` what it holds: as many as a user may be in.
pub const MAX_SEEN_CONVERSATIONS: usize = 10_000;
/// Members of a group that are shown with it.
pub const MEMBERS_SHOWN: usize = 5;
/// Bound up to which unread messages are counted.
pub const MAX_UNREAD_COUNT: u64 = 1000;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY: usize = 255;
/// Seconds that a creation's outcome is kept for its key.
pub const CREATION_KEY_SECONDS: u64 = 24 * 60 * 60;
/// Messages named in one request to mark them as read.
pub const READ_MESSAGES: usize = 100;
/// Users in a snapshot of presence.
pub const PRESENCE_SNAPSHOT_USERS: usize = 1000;
/// Users of whom one request asks whether they are there.
pub const PRESENCE_USERS: usize = 100;
/// Members up to which a conversation carries signals.
pub const SIGNAL_MEMBERS: u64 = 100;

//! What is hot, by name: `micro` takes its time and counts what it allocates, `counts` its instructions.

use std::error::Error;
use std::hint::black_box;

use bytes::Bytes;
use confab_gateway::measured::{Codec, Delivery, Received, ReplayWindow, Resume, message};
use confab_protocol::event::{EventType, LogEntry};
use confab_protocol::ids::{ClientId, ConversationId, EventId, UserId};
use confab_protocol::timestamp::Timestamp;
use confab_protocol::wire;
use confab_worker::measured::Batching;
use time::macros::datetime;
use uuid::Uuid;

/// Something hot, and how it is set up.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Of what it is about, one run does so many.
    pub(crate) units: u32,
    /// Whether something must be done before each run.
    pub(crate) staged: bool,
    pub(crate) prepare: Prepare,
}

type Prepare = fn(u32) -> Result<Box<dyn Hot>, Box<dyn Error>>;

/// What can be run any number of times.
pub(crate) trait Hot {
    /// What is measured.
    fn run(&mut self);
    /// What comes before it and is not.
    fn stage(&mut self);
}

struct With<S> {
    state: S,
    stage: fn(&mut S),
    run: fn(&mut S),
}

impl<S> Hot for With<S> {
    fn run(&mut self) {
        (self.run)(&mut self.state);
    }

    fn stage(&mut self) {
        (self.stage)(&mut self.state);
    }
}

fn hot<S: 'static>(state: S, run: fn(&mut S)) -> Result<Box<dyn Hot>, Box<dyn Error>> {
    staged(state, |_| (), run)
}

fn staged<S: 'static>(
    state: S,
    stage: fn(&mut S),
    run: fn(&mut S),
) -> Result<Box<dyn Hot>, Box<dyn Error>> {
    Ok(Box::new(With { state, stage, run }))
}

const fn case(name: &'static str, units: u32, prepare: Prepare) -> Case {
    Case {
        name,
        units,
        staged: false,
        prepare,
    }
}

const fn in_steps(name: &'static str, units: u32, prepare: Prepare) -> Case {
    Case {
        staged: true,
        ..case(name, units, prepare)
    }
}

/// All of it.
pub(crate) const HOT_CASES: &[Case] = &[
    case("encode an event, JSON", 1, |_| {
        hot(sender()?, |sender| {
            black_box(entry(black_box(sender)).encode());
        })
    }),
    case("build its frame, JSON", 1, |_| {
        hot(message(1, json()?)?, |event| {
            black_box(Codec::JSON.frame(black_box(event)));
        })
    }),
    case("build its frame, MessagePack", 1, |_| {
        hot(message(1, json()?)?, |event| {
            black_box(Codec::MSGPACK.frame(black_box(event)));
        })
    }),
    case("decode a send, JSON", 1, |_| {
        decode(Received::json(send().into()))
    }),
    case("decode a send, MessagePack", 1, |_| {
        let packed = wire::msgpack_of_json(send().as_bytes())?;
        decode(Received::msgpack(packed.into()))
    }),
    in_steps("dispatch to 1", 1, dispatch),
    in_steps("dispatch to 100", 100, dispatch),
    in_steps("dispatch to 5000", 5000, dispatch),
    in_steps("take from 5000 outboxes", 5000, |sessions| {
        let waiting = |delivery: &mut Delivery| {
            delivery.write();
            delivery.dispatch();
        };
        staged(
            Delivery::to(sessions.into(), json()?)?,
            waiting,
            Delivery::take,
        )
    }),
    in_steps("prepare the write of 5000", 5000, |sessions| {
        let taken = |delivery: &mut Delivery| {
            delivery.dispatch();
            delivery.take();
        };
        staged(
            Delivery::to(sessions.into(), json()?)?,
            taken,
            Delivery::write,
        )
    }),
    case("dispatch, take, write, 5000", 5000, |sessions| {
        hot(Delivery::to(sessions.into(), json()?)?, Delivery::deliver)
    }),
    case("batch 200 sends of 50 conversations", 200, |sends| {
        hot(Batching::of(sends, 50, 200)?, |batching| {
            black_box(batching.run());
        })
    }),
    case("batch 200 sends of 1 conversation", 200, |sends| {
        hot(Batching::of(sends, 1, 200)?, |batching| {
            black_box(batching.run());
        })
    }),
    case("record in a full window", 1, |_| {
        hot(ReplayWindow::of(1000, json()?)?, ReplayWindow::record)
    }),
    case("look up 100 events of a window", 100, |_| {
        hot(ReplayWindow::of(1000, json()?)?, |window| {
            black_box(window.look_up(100));
        })
    }),
    case("weigh 100 events of a window", 100, |_| {
        hot(ReplayWindow::of(1000, json()?)?, |window| {
            black_box(window.weigh(100));
        })
    }),
    case("resume, 100 events missed", 100, |missed| {
        hot(Resume::behind(missed.into(), json()?)?, |resume| {
            let _replayed = black_box(resume.resume());
        })
    }),
];

fn decode(received: Received) -> Result<Box<dyn Hot>, Box<dyn Error>> {
    if !received.decode() {
        return Err("it is no frame".into());
    }
    hot(received, |received| {
        black_box(black_box(received).decode());
    })
}

fn dispatch(sessions: u32) -> Result<Box<dyn Hot>, Box<dyn Error>> {
    let emptied = |delivery: &mut Delivery| {
        delivery.take();
        delivery.write();
    };
    staged(
        Delivery::to(sessions.into(), json()?)?,
        emptied,
        Delivery::dispatch,
    )
}

/// Who sends, and what: 300 bytes of content.
struct PreparedSend {
    user: UserId,
    payload: String,
}

fn sender() -> Result<PreparedSend, Box<dyn Error>> {
    let text = "Lorem ipsum dolor sit amet. ".repeat(11);
    Ok(PreparedSend {
        user: "user-17".parse()?,
        payload: format!(
            r#"{{"kind":"text","content":{{"text":"{text}"}},"payloadSizeBytes":null,"replyTo":null,"metadata":{{}}}}"#
        ),
    })
}

fn entry(sender: &PreparedSend) -> LogEntry<'_> {
    LogEntry {
        conversation: ConversationId(Uuid::from_u128(0x0192_f0c1_22a0_7000_8000_0000_0000_0001)),
        seq: 123_456,
        id: EventId(Uuid::from_u128(0x0192_f0c1_22a0_7000_8000_0000_0000_0002)),
        event_type: EventType::MessageCreated,
        actor: &sender.user,
        client_id: Some(ClientId(Uuid::from_u128(
            0x0192_f0c1_22a0_7000_8000_0000_0000_0003,
        ))),
        created_at: Timestamp::new(datetime!(2026-11-24 12:34:56.789 UTC)),
        edited_at: None,
        deleted_at: None,
        version: 1,
        payload: &sender.payload,
        target_seq: None,
        target: None,
    }
}

fn json() -> Result<Bytes, Box<dyn Error>> {
    Ok(entry(&sender()?).encode().into())
}

fn send() -> String {
    let text = "Lorem ipsum dolor sit amet. ".repeat(11);
    format!(
        r#"{{"type":"send","id":"0192f0c1-22a0-7000-8000-000000000003","conversationId":"0192f0c1-22a0-7000-8000-000000000001","kind":"text","content":{{"text":"{text}"}}}}"#
    )
}

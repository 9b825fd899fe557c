//! The scenarios, and what of each is shown.

use super::super::plot::Axis;
use super::{Drawn, Lines, SettingValue, Shown};

pub(super) const SECTION_TABLE: &[Shown] = &[
    SEND_SECTION,
    FAN_OUT_SECTION,
    IDLE_SECTION,
    RESUME_SECTION,
    COMMIT_SECTION,
    PARTS_SECTION,
    HISTORY_SECTION,
];

const SEND_SECTION: Shown = Shown {
    scenario: "send",
    title: "Sends",
    each: None,
    columns: &[
        ("connections", "/settings/connections"),
        ("conversations", "/settings/conversations"),
        ("members", "/settings/members"),
        ("in flight a connection (`--max`)", "/settings/inFlight"),
        ("sends/s", "/measured/sends"),
        ("events/s", "/measured/events"),
        ("acknowledged p50, ms", "/measured/acknowledged/p50"),
        ("p99", "/measured/acknowledged/p99"),
        ("heard p50, ms", "/measured/heard/p50"),
        ("p99", "/measured/heard/p99"),
    ],
    more: &[
        ("µs a send: gateways", "/measured/processor/gateways"),
        ("workers", "/measured/processor/workers"),
        ("NATS", "/measured/processor/nats"),
        ("Postgres", "/measured/processor/postgres"),
    ],
    plots: &[
        Drawn {
            file: "send-latency.svg",
            title: "Sends at a rate, from the intended time on",
            up: "ms",
            only: Some(("/settings/max", SettingValue::Flag(false))),
            lines: Lines::Percentiles(&[
                ("acknowledged", "/measured/acknowledged"),
                ("heard by a member", "/measured/heard"),
            ]),
        },
        Drawn {
            file: "send-rate.svg",
            title: "As many sends as are taken",
            up: "sends/s",
            only: Some(("/settings/max", SettingValue::Flag(true))),
            lines: Lines::Runs {
                across: ("in flight on each connection", "/settings/inFlight"),
                axis: Axis::Doubling,
                up: &[("acknowledged", "/measured/sends")],
            },
        },
        Drawn {
            file: "send-saturation.svg",
            title: "As many sends as are taken: until acknowledged",
            up: "ms",
            only: Some(("/settings/max", SettingValue::Flag(true))),
            lines: Lines::Runs {
                across: ("in flight on each connection", "/settings/inFlight"),
                axis: Axis::Doubling,
                up: &[
                    ("p50", "/measured/acknowledged/p50"),
                    ("p99", "/measured/acknowledged/p99"),
                ],
            },
        },
    ],
};

const FAN_OUT_SECTION: Shown = Shown {
    scenario: "fanout",
    title: "Fan-out",
    each: None,
    columns: &[
        ("members", "/settings/members"),
        ("frames/s", "/measured/confab/frames"),
        ("heard p50, ms", "/measured/confab/heard/p50"),
        ("p99", "/measured/confab/heard/p99"),
    ],
    more: &[
        (
            "µs a frame: gateways",
            "/measured/confab/processor/gateways",
        ),
        ("bare servers: frames/s", "/measured/bare/frames"),
        ("µs a frame", "/measured/bare/processor/gateways"),
        ("confab : bare", "/measured/ratio"),
        (
            "p99 of other sends: with : without",
            "/measured/beside/ratio",
        ),
    ],
    plots: &[
        Drawn {
            file: "fanout-frames.svg",
            title: "Frames of a fan-out",
            up: "frames/s",
            only: Some(("/settings/max", SettingValue::Flag(true))),
            lines: Lines::Runs {
                across: ("members", "/settings/members"),
                axis: Axis::Linear,
                up: &[
                    ("confab", "/measured/confab/frames"),
                    ("bare servers", "/measured/bare/frames"),
                ],
            },
        },
        Drawn {
            file: "fanout-latency.svg",
            title: "A fan-out at a rate: until a member has a message",
            up: "ms",
            only: Some(("/settings/max", SettingValue::Flag(false))),
            lines: Lines::Percentiles(&[("heard", "/measured/confab/heard")]),
        },
    ],
};

const IDLE_SECTION: Shown = Shown {
    scenario: "idle",
    title: "Idle connections",
    each: None,
    columns: &[
        ("connections", "/settings/connections"),
        ("conversations of each", "/settings/conversations"),
        ("bytes of each further one", "/measured/gateway/own"),
        ("resident", "/measured/gateway/resident"),
        ("a bare server's", "/measured/bare/own"),
    ],
    more: &[
        ("confab : bare", "/measured/ratio"),
        ("over all connections", "/measured/gateway/ownOverAll"),
        (
            "without conversations",
            "/measured/withoutConversations/own",
        ),
    ],
    plots: &[
        Drawn {
            file: "idle-conversations.svg",
            title: "Memory of each further idle connection, by conversations",
            up: "bytes",
            only: Some(("/settings/connections", SettingValue::Number(5000.0))),
            lines: Lines::Runs {
                across: (
                    "conversations of each connection",
                    "/settings/conversations",
                ),
                axis: Axis::Linear,
                up: &[
                    ("a gateway's", "/measured/gateway/own"),
                    ("a bare server's", "/measured/bare/own"),
                ],
            },
        },
        Drawn {
            file: "idle-connections.svg",
            title: "Memory of each further idle connection, by how many there are",
            up: "bytes",
            only: Some(("/settings/conversations", SettingValue::Number(20.0))),
            lines: Lines::Runs {
                across: ("connections", "/settings/connections"),
                axis: Axis::Linear,
                up: &[
                    ("a gateway's", "/measured/gateway/own"),
                    ("a bare server's", "/measured/bare/own"),
                ],
            },
        },
    ],
};

const RESUME_SECTION: Shown = Shown {
    scenario: "resume",
    title: "Resumes, with the replay window and without (`resume --both`)",
    each: None,
    columns: &[
        ("sessions", "/settings/sessions"),
        ("missed in each conversation", "/settings/missed"),
        ("resumes/s", "/measured/withWindow/resumes"),
        ("without the window", "/measured/withoutWindow/resumes"),
        (
            "Postgres, µs a resume",
            "/measured/withWindow/processor/postgres",
        ),
        ("without", "/measured/withoutWindow/processor/postgres"),
        (
            "gateways, µs a resume",
            "/measured/withWindow/processor/gateways",
        ),
        ("without", "/measured/withoutWindow/processor/gateways"),
    ],
    more: &[],
    plots: &[
        Drawn {
            file: "resume-rate.svg",
            title: "A storm of resumes",
            up: "resumes/s",
            only: Some(("/settings/missed", SettingValue::Number(15.0))),
            lines: Lines::Runs {
                across: ("sessions", "/settings/sessions"),
                axis: Axis::Linear,
                up: &[
                    ("with the window", "/measured/withWindow/resumes"),
                    ("without", "/measured/withoutWindow/resumes"),
                ],
            },
        },
        Drawn {
            file: "resume-postgres.svg",
            title: "A storm of resumes: Postgres",
            up: "µs a resume",
            only: Some(("/settings/sessions", SettingValue::Number(3000.0))),
            lines: Lines::Runs {
                across: ("events missed in each conversation", "/settings/missed"),
                axis: Axis::Linear,
                up: &[
                    ("with the window", "/measured/withWindow/processor/postgres"),
                    ("without", "/measured/withoutWindow/processor/postgres"),
                ],
            },
        },
    ],
};

const COMMIT_SECTION: Shown = Shown {
    scenario: "limits",
    title: "Postgres alone: messages committed in batches",
    each: Some("/measured/batchCommits"),
    columns: &[
        ("messages of a batch", "/measured/events"),
        ("connections", "/measured/connections"),
        ("messages/s", "/measured/perSecond"),
        ("a batch p50, ms", "/measured/latency/p50"),
        ("p99", "/measured/latency/p99"),
        ("Postgres, µs a message", "/measured/serverMicros"),
        ("its client", "/measured/clientMicros"),
    ],
    more: &[],
    plots: &[Drawn {
        file: "commits.svg",
        title: "Postgres alone: messages committed in batches",
        up: "messages/s",
        only: None,
        lines: Lines::Runs {
            across: ("messages of a batch", "/measured/events"),
            axis: Axis::Doubling,
            up: &[("committed", "/measured/perSecond")],
        },
    }],
};

const PARTS_SECTION: Shown = Shown {
    scenario: "limits",
    title: "The other parts alone",
    each: None,
    columns: &[
        (
            "single commit p50, ms",
            "/measured/singleCommit/latency/p50",
        ),
        ("NATS round trip p50, ms", "/measured/roundTrip/latency/p50"),
        ("requests/s", "/measured/requests/perSecond"),
        ("publishes/s", "/measured/publish/perSecond"),
        ("deliveries/s", "/measured/live/perSecond"),
        ("replayed/s", "/measured/replay/perSecond"),
    ],
    more: &[
        ("a bare server's sockets", "/measured/bareFanOut/sockets"),
        ("frames/s to them", "/measured/bareFanOut/perSecond"),
        ("µs a frame", "/measured/bareFanOut/serverMicros"),
        ("bytes of each further idle one", "/measured/bareIdle/own"),
    ],
    plots: &[],
};

const HISTORY_SECTION: Shown = Shown {
    scenario: "history",
    title: "Pages and lists, of many events and of few",
    each: Some("/measured/calls"),
    columns: &[
        ("call", "/measured/call"),
        ("events", "/settings/events"),
        ("many p50, ms", "/measured/large/latency/p50"),
        ("few", "/measured/small/latency/p50"),
        ("many : few", "/measured/ratio"),
        ("Postgres, µs: many", "/measured/large/postgresMicros"),
        ("few", "/measured/small/postgresMicros"),
    ],
    more: &[],
    plots: &[],
};

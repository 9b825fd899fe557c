//! What waits between sessions, NATS and the hub, and who finds room in it.

use confab_protocol::signal::Presence;
use confab_protocol::signal::PresenceStatus;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::*;

async fn nowhere() -> Bus {
    let nowhere = confab_bus::Settings {
        events_max_age: 60,
        events_max_bytes: 1 << 20,
        ..confab_bus::Settings::of_server("nats://127.0.0.1:1".to_owned())
    };
    Bus::connect(&nowhere, "test").await.unwrap()
}

fn inbound(bus: Bus, hub: mpsc::Sender<FromGateways>) -> InboundLoop {
    InboundLoop {
        gateways: Gateways::new(bus.clone()),
        bus,
        throttle: Arc::default(),
        hub,
        missed: false,
        missed_news: false,
        tell_missed_news: Instant::now(),
        metrics: SignalMetrics::new(&mut Registry::default()),
    }
}

fn typing(n: usize) -> Signal {
    Signal {
        tenant: "t".parse().unwrap(),
        conversation: ConversationId(Uuid::from_u128(n as u128)),
        user: "loud".parse().unwrap(),
        kind: SignalKind::Typing(true),
        gateway: None,
    }
}

fn news() -> PresenceNews {
    PresenceNews {
        gateway: Uuid::from_u128(1),
        number: 1,
        changes: vec![Presence::new(
            "t".parse().unwrap(),
            "ann".parse().unwrap(),
            PresenceStatus::Offline,
            [],
        )],
        repeats: Vec::new(),
        unheard: Vec::new(),
        wanted: Vec::new(),
    }
}

#[tokio::test]
async fn overloaded_hub_learns_of_missed_signals() {
    let (hub, mut said) = mpsc::channel(1);
    let mut inbound = inbound(nowhere().await, hub);
    inbound.missed = true;
    inbound.tell(FromGateways::Alive(Vec::new()), None);
    inbound.tell_missed();
    assert!(matches!(said.try_recv(), Ok(FromGateways::Alive(_))));
    assert!(said.try_recv().is_err(), "there was no room");
    inbound.tell_missed();
    assert!(matches!(said.try_recv(), Ok(FromGateways::Back)));
    inbound.tell_missed();
    assert!(said.try_recv().is_err(), "once is enough");
}

#[tokio::test]
async fn flood_of_typing_displaces_no_presence() {
    let (hub, mut said) = mpsc::channel(8);
    let mut inbound = inbound(nowhere().await, hub);
    for n in 0..100 {
        inbound.heard(Signalled::Signal(typing(n)));
    }
    for _ in 0..4 {
        inbound.heard(Signalled::Presence(news()));
    }
    let heard: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
    let is_news = |heard: &&FromGateways| matches!(heard, FromGateways::Presence(_));
    assert_eq!(heard.iter().filter(is_news).count(), 4, "{heard:?}");
    assert!(heard.len() > 4, "signals have room as well");
}

#[tokio::test]
async fn presence_without_room_is_asked_for_again() {
    let (hub, mut said) = mpsc::channel(1);
    let mut inbound = inbound(nowhere().await, hub);
    for _ in 0..2 {
        inbound.heard(Signalled::Presence(news()));
    }
    assert!(matches!(said.try_recv(), Ok(FromGateways::Presence(_))));
    inbound.tell_missed();
    assert!(matches!(said.try_recv(), Ok(FromGateways::Missed)));
    // The others say all of it at once: another miss is told some time later.
    for _ in 0..2 {
        inbound.heard(Signalled::Presence(news()));
    }
    assert!(matches!(said.try_recv(), Ok(FromGateways::Presence(_))));
    inbound.tell_missed();
    assert!(said.try_recv().is_err());
    inbound.tell_missed_news = Instant::now();
    inbound.tell_missed();
    assert!(matches!(said.try_recv(), Ok(FromGateways::Missed)));
}

#[tokio::test]
async fn presence_is_given_back_where_no_room_is() {
    let bus = nowhere().await;
    let gateways = Gateways::new(bus.clone());
    let metrics = SignalMetrics::new(&mut Registry::default());
    let (outbound, _signalling, _said) = Outbound::new(bus, gateways, metrics);
    for n in 0..2 * BUFFER_SIGNALS {
        outbound.signal(typing(n));
    }
    let tenant = || "t".parse().unwrap();
    for _ in 0..MAX_PRESENCE_SIGNALS {
        assert!(outbound.presence(tenant(), news()).is_ok());
    }
    let unsent = outbound.presence(tenant(), news()).unwrap_err();
    assert_eq!(*unsent, (tenant(), news()));
}

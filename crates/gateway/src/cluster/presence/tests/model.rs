//! Several machines against a model: whatever connects, dies and is lost, each gateway ends up telling what is so.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Open(usize, usize),
    Close(usize),
    Set(usize, bool),
    Kill(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..3_usize).prop_map(|(g, u)| Step::Open(g, u)),
        3 => (0..6_usize).prop_map(Step::Close),
        2 => (0..6_usize, any::<bool>()).prop_map(|(n, away)| Step::Set(n, away)),
        1 => (0..3_usize).prop_map(Step::Kill),
        6 => (0..8000_u64).prop_map(Step::Wait),
    ]
}

/// Three gateways in one room, with what each was last told.
struct World {
    gateways: Vec<Option<Presences>>,
    told: Vec<BTreeMap<String, PresenceStatus>>,
    sessions: Vec<(usize, SessionKey, String, PresenceStatus)>,
    now: Instant,
    keys: u64,
}

impl World {
    fn new() -> Self {
        let machine = |n| Some(Presences::new(gateway(n), GRACE_PERIOD));
        Self {
            gateways: (0..3).map(machine).collect(),
            told: vec![BTreeMap::new(); 3],
            sessions: vec![],
            now: Instant::now(),
            keys: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Open(g, user) => {
                if let Some(machine) = &mut self.gateways[g] {
                    self.keys += 1;
                    let (key, name) = (SessionKey(self.keys), format!("u{user}"));
                    machine.opened_with(key, &account(&name), Online);
                    self.sessions.push((g, key, name, Online));
                }
            }
            Step::Close(n) if n < self.sessions.len() => {
                let (g, key, ..) = self.sessions.remove(n);
                self.gateways[g].as_mut().unwrap().closed(key);
            }
            Step::Set(n, away) if n < self.sessions.len() => {
                let session = &mut self.sessions[n];
                session.3 = if away { Away } else { Online };
                let machine = self.gateways[session.0].as_mut().unwrap();
                machine.set(session.1, session.3);
            }
            Step::Kill(g) => {
                self.gateways[g] = None;
                self.sessions.retain(|(at, ..)| *at != g);
            }
            Step::Wait(ms) => {
                for _ in 0..ms / 250 {
                    self.now += Duration::from_millis(250);
                    self.turn();
                }
            }
            _ => {}
        }
    }

    /// Everyone says what is to say, hears the others, and tells.
    fn turn(&mut self) {
        let alive: Vec<_> = (0..3_usize)
            .filter(|g| self.gateways[*g].is_some())
            .map(|g| gateway(g as u128))
            .collect();
        for g in 0..3 {
            let Some(machine) = &mut self.gateways[g] else {
                continue;
            };
            let said = machine.say(self.now, |_| Some(vec![IN_ROOM]), |_| false);
            for other in self.gateways.iter_mut().flatten() {
                for (words, kind) in [
                    (&said.changes, UpdateKind::Change),
                    (&said.repeats, UpdateKind::Repeat),
                ] {
                    for word in words {
                        other.heard((gateway(g as u128), 0), word, kind, self.now, |_| {
                            Some(true)
                        });
                    }
                }
            }
        }
        for g in 0..3 {
            let Some(machine) = &mut self.gateways[g] else {
                continue;
            };
            machine.alive(&alive, self.now);
            for presence in machine.told(self.now) {
                let user = presence.user.as_str().to_owned();
                let before = self.told[g].insert(user, presence.status);
                assert_ne!(before, Some(presence.status), "told twice");
            }
        }
    }

    fn check(&self) {
        let mut truth = BTreeMap::new();
        for (_, _, name, status) in &self.sessions {
            let highest = truth.entry(name.clone()).or_insert(*status);
            *highest = (*status).max(*highest);
        }
        for (g, machine) in self.gateways.iter().enumerate() {
            let Some(machine) = machine else { continue };
            let mut told = self.told[g].clone();
            told.retain(|_, status| *status != Offline);
            assert_eq!(told, truth, "gateway {g}");
            assert_eq!(machine.known.len(), truth.len());
            assert_eq!(machine.swept.len(), machine.known.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn gateways_converge_on_true_presence(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.take(Step::Wait(40_000));
        for machine in world.gateways.iter_mut().flatten() {
            machine.sweep(world.now + OFFLINE_MEMORY, |_| true);
        }
        world.check();
    }
}

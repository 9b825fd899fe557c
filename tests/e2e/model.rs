//! Random commands must get the same answers, store and events from the service as from a plain model.

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::support::{Cluster, Setup, soak};

mod actions;
mod command;
mod compare;
mod concurrent;
mod executor;
mod generator;
mod rendered;
mod replay;
mod state;
mod told;

use executor::{CommandRoute, Executor};
use generator::{Generator, anyone};
use rendered::with_times;
use state::{ModelAnswer, ModelState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_store_and_events_match_model() {
    let cluster = Cluster::start(Setup::default()).await;
    for seed in seeds(soak(30, 2)) {
        Box::pin(one_after_the_other(&cluster, seed, soak(400, 150))).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commands_are_linearizable_by_model() {
    let cluster = Cluster::start(Setup::default()).await;
    for seed in seeds(soak(30, 2)) {
        let _told = Seed(seed);
        Box::pin(concurrent::all_at_once(&cluster, seed, soak(150, 45))).await;
    }
    cluster.end().await;
}

async fn one_after_the_other(cluster: &Cluster, seed: u64, commands: usize) {
    let _told = Seed(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let executor = Executor::set(cluster, format!("model-{seed}")).await;
    let (mut state, mut generator) = (ModelState::default(), Generator::default());
    for number in 0..commands {
        let who = anyone(&mut rng);
        let command = generator.draw(&mut rng, who);
        let way = CommandRoute::any(&mut rng);
        let due = state.apply(who, &command);
        let answer = executor.perform(who, &command, way).await;
        assert!(
            is_same(&answer, &due),
            "seed {seed}, {number}: {who} {way:?} {command:?}\nis told {answer:?}\nand not {due:?}",
        );
        generator.conversations = state.hints();
        if rng.random_bool(0.5) {
            compare::hears(&executor, &state.conversations).await;
        }
    }
    compare::everything(cluster, &executor, &state).await;
}

/// An acknowledgement has less to say than the answer of HTTP.
fn is_same(answer: &ModelAnswer, due: &ModelAnswer) -> bool {
    let Some(seq) = answer.body.get("ack") else {
        return timeless(answer) == timeless(due);
    };
    due.status == 201 && answer.replayed == due.replayed && *seq == due.body["message"]["seq"]
}

/// When something was, is compared at the end, with the log's times.
fn timeless(answer: &ModelAnswer) -> ModelAnswer {
    ModelAnswer {
        body: with_times(&answer.body, &|_| "T".to_owned()),
        ..answer.clone()
    }
}

/// As many seeds, or the one that is asked for.
fn seeds(count: usize) -> Vec<u64> {
    let asked = std::env::var_os("CONFAB_TEST_SEED");
    if let Some(asked) = asked {
        return vec![asked.to_str().unwrap().parse().unwrap()];
    }
    (0..count).map(|_| rand::random()).collect()
}

/// Says the seed when its history fails, wherever that is.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("CONFAB_TEST_SEED={} plays this history again", self.0);
        }
    }
}

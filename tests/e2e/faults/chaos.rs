//! All faults at random; a failure prints the seed to set as `CONFAB_TEST_SEED`.

use std::time::Duration;

use confab_stack::{Proxy, Traffic};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::{Instant, sleep};

use super::{links, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, RefusingStream, Setup, soak};

#[derive(Debug, Clone, Copy)]
enum ChaosFault {
    KillGateway,
    DrainGateway,
    FreezeGateway,
    CutOffGateway,
    KillWorker,
    KillWorkers,
    RestartNats,
    EraseStore,
    RefuseEvents,
    RestartPostgres,
    PausePostgres,
    CutLinks,
    CutAmidFrame,
    Swallow(Traffic),
    Slow,
}

const ALL_FAULTS: [ChaosFault; 17] = [
    ChaosFault::KillGateway,
    ChaosFault::DrainGateway,
    ChaosFault::FreezeGateway,
    ChaosFault::CutOffGateway,
    ChaosFault::KillWorker,
    ChaosFault::KillWorkers,
    ChaosFault::RestartNats,
    ChaosFault::EraseStore,
    ChaosFault::RefuseEvents,
    ChaosFault::RestartPostgres,
    ChaosFault::PausePostgres,
    ChaosFault::CutLinks,
    ChaosFault::CutAmidFrame,
    ChaosFault::Swallow(Traffic::Swallow),
    ChaosFault::Swallow(Traffic::SwallowDown),
    ChaosFault::Swallow(Traffic::SwallowUp),
    ChaosFault::Slow,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_at_random_lose_nothing() {
    let asked = std::env::var_os("CONFAB_TEST_SEED");
    let seed = asked.map_or_else(rand::random, |asked| {
        asked.to_str().unwrap().parse().unwrap()
    });
    println!("CONFAB_TEST_SEED={seed} draws these faults again");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut env = setup().gateway_env;
    env.push(("CONFAB_DRAIN", Some("2".to_owned())));
    let setup = Setup {
        own_postgres: true,
        links: true,
        gateway_env: env,
        ..setup()
    };
    let mut cluster = Cluster::start(setup).await;
    let (mut links, urls) = links(&cluster).await;
    let shape = LoadShape {
        urls: Some(urls),
        seed,
        ..LoadShape::default()
    };
    let load = HistoryLoad::start(&cluster, shape).await;
    let until = Instant::now() + Duration::from_secs(soak(180, 15) as u64);
    while Instant::now() < until {
        load.goes_on(60).await;
        let fault = *ALL_FAULTS.choose(&mut rng).unwrap();
        println!("{fault:?}");
        strike(&mut cluster, &mut links, fault, &mut rng).await;
        load.arrives(&cluster).await;
    }
    load.ends(&cluster).await;
    cluster.end().await;
}

/// A fault, to its end.
async fn strike(cluster: &mut Cluster, links: &mut [Proxy], fault: ChaosFault, rng: &mut StdRng) {
    let one = rng.random_range(0..2);
    let a_while = Duration::from_millis(rng.random_range(200..3_000));
    match fault {
        ChaosFault::KillGateway => {
            cluster.gateways[one].process_mut().kill().unwrap();
            sleep(a_while).await;
            cluster.restart_gateway(one).await;
        }
        ChaosFault::DrainGateway => {
            let gateway = cluster.gateways[one].process_mut();
            gateway.stop(Duration::from_secs(20)).await.unwrap();
            cluster.restart_gateway(one).await;
        }
        ChaosFault::FreezeGateway => {
            cluster.gateways[one].process_mut().pause().unwrap();
            sleep(2 * a_while).await;
            cluster.gateways[one].process_mut().resume().unwrap();
        }
        ChaosFault::CutOffGateway => {
            cluster.links[one].set(Traffic::Stall).await;
            sleep(2 * a_while).await;
            cluster.links[one].set(Traffic::Pass).await;
        }
        ChaosFault::KillWorker => {
            cluster.workers[one].process_mut().kill().unwrap();
            sleep(a_while).await;
            cluster.restart_worker(one).await;
        }
        ChaosFault::KillWorkers => {
            for worker in &mut cluster.workers {
                worker.process_mut().kill().unwrap();
            }
            sleep(a_while).await;
            for number in 0..cluster.workers.len() {
                cluster.restart_worker(number).await;
            }
        }
        ChaosFault::RestartNats | ChaosFault::EraseStore => {
            cluster.nats.kill().unwrap();
            if matches!(fault, ChaosFault::EraseStore) {
                cluster.nats.erase_store().unwrap();
            }
            sleep(a_while).await;
            cluster.nats.up().await.unwrap();
        }
        ChaosFault::RefuseEvents => {
            let stream = RefusingStream::of(cluster).await;
            sleep(2 * a_while).await;
            stream.accept().await;
        }
        ChaosFault::RestartPostgres => {
            cluster.database.server().kill().unwrap();
            sleep(a_while).await;
            cluster.database.server().up().await.unwrap();
        }
        ChaosFault::PausePostgres => {
            cluster.database.server().pause().unwrap();
            sleep(2 * a_while).await;
            cluster.database.server().resume().unwrap();
        }
        ChaosFault::CutLinks => links[one].cut(),
        ChaosFault::CutAmidFrame => links[one].cut_after(rng.random_range(1..3_000)),
        ChaosFault::Swallow(_) | ChaosFault::Slow => {
            links[one]
                .set(match fault {
                    ChaosFault::Swallow(how) => how,
                    _ => Traffic::Throttle(2_000),
                })
                .await;
            sleep(a_while).await;
            links[one].set(Traffic::Pass).await;
        }
    }
    cluster.ready().await;
}

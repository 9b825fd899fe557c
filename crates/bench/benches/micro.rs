//! How long what is hot takes, and what it allocates: `make bench-micro`.

use std::cell::RefCell;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};

#[path = "hot/cases.rs"]
mod cases;

use cases::HOT_CASES;

/// Runs before the first that counts: queues and windows are as full as they become.
const WARM_UP_RUNS: usize = 100;

#[global_allocator]
static PROFILING_ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = names(false), max_time = 2)]
fn hot(bencher: Bencher<'_, '_>, name: &str) {
    measure(bencher, name);
}

/// What must be prepared before each run is timed run by run.
#[divan::bench(args = names(true), max_time = 4, sample_size = 1, sample_count = 2000)]
fn in_steps(bencher: Bencher<'_, '_>, name: &str) {
    measure(bencher, name);
}

fn names(staged: bool) -> impl Iterator<Item = &'static str> {
    let of_kind = HOT_CASES.iter().filter(move |case| case.staged == staged);
    of_kind.map(|case| case.name)
}

#[expect(
    clippy::expect_used,
    reason = "a benchmark without its case measures nothing"
)]
fn measure(bencher: Bencher<'_, '_>, name: &str) {
    let case = HOT_CASES.iter().find(|case| case.name == name);
    let case = case.expect("it is one of them");
    let mut hot = (case.prepare)(case.units).expect("it can be set up");
    for _ in 0..WARM_UP_RUNS {
        hot.stage();
        hot.run();
    }
    let hot = RefCell::new(hot);
    bencher
        .counter(ItemsCount::new(case.units))
        .with_inputs(|| hot.borrow_mut().stage())
        .bench_local_values(|()| hot.borrow_mut().run());
}

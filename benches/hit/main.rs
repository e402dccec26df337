//! How long a hit takes at each height, with one Workspace and with 100,000, and the policy's decision in it, with one
//! grant and with 1,000: it must not depend on how many there are.
//!
//!     cargo bench --bench hit
//!
//! Times are of the machine at hand; the instructions of a hit are bounded by `bench/hits.sh`.

mod policy;
mod world;

use criterion::{BenchmarkId, Criterion};
use std::error::Error;
use std::time::Duration;
use tokio::runtime::Builder;
use world::{Height, World};

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    policy::measure(&mut criterion)?;
    for workspaces in [1, 100_000] {
        measure(&mut criterion, workspaces)?;
    }
    criterion.final_summary();
    Ok(())
}

fn measure(criterion: &mut Criterion, workspaces: usize) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut world = runtime.block_on(World::warm(workspaces))?;
    for height in Height::ALL {
        let mut failed = None;
        criterion.bench_with_input(BenchmarkId::new(height.as_str(), workspaces), &height, |bencher, height| {
            bencher.iter(|| {
                if let Err(error) = runtime.block_on(world.hit(*height)) {
                    failed = Some(error);
                }
            });
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

//! Hits of the cache, so many and nothing else, for a tool that counts instructions: `bench/hits.sh`.
//!
//!     hits engine|broker|grpc HITS
//!
//! Startup costs the same for any number of hits, so that the difference of two runs is theirs alone.

#[path = "../benches/hit/world.rs"]
mod world;

use std::alloc::System;
use std::env;
use std::error::Error;
use tokio::runtime::Builder;
use world::{Height, World};
use zeroizing_alloc::ZeroAlloc;

/// Zeroes what is freed as the program does; the system's allocator, because its calls are what is counted.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [height, hits] = arguments.as_slice() else {
        return Err("usage: hits engine|broker|grpc HITS".into());
    };
    let height = Height::ALL.into_iter().find(|known| known.as_str() == height).ok_or("no such height")?;
    let hits: usize = hits.parse()?;
    // One thread: what is counted must be the same in every run.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut world = World::warm(1).await?;
        for _ in 0..hits {
            world.hit(height).await?;
        }
        Ok(())
    })
}

//! The engine's promises (`src/engine.rs`) and the bugs that others shipped, each a test of that name.
//!
//! All time is simulated and no socket is opened: `pass` lets time go by step by step, `leap` jumps.

mod asking;
mod budgets;
mod bugs;
mod failures;
mod fake;
mod flights;
mod forcing;
mod forgetting;
mod health;
mod isolation;
mod reload;
mod renewal;
mod serving;
mod watching;
mod world;

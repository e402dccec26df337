//! The integration tests: one binary, a module per subject.

#[cfg(test)]
mod architecture;
mod config;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod holds;
#[cfg(test)]
mod http;
#[cfg(test)]
mod model;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod shell;

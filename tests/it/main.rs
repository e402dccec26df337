//! The integration tests: one binary, a module per subject.

#[cfg(test)]
mod architecture;
mod config;
#[cfg(test)]
mod holds;
#[cfg(test)]
mod http;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod shell;

//! The integration tests: one binary, a module per subject.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cli;
mod config;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod http;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod shell;

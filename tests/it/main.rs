//! The integration tests: one binary, a module per subject.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod bearer;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod config;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod holds;
#[cfg(test)]
mod http;
#[cfg(test)]
mod listener;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod model;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod upstreams;

//! The signals that end the process, and the one that asks it to look at its configuration.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. The first asks for a drain; a second one, from somebody who will not wait, for the end.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over: from here on they no longer kill the process.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and gives its name. To be called again for the second one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: reload.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Takes the signal over: from here on it no longer kills the process.
    pub fn install() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one. Several that come while nobody waits are one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is about to end, and with it whoever waits here.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};

    #[tokio::test]
    async fn each_signal_is_told_apart_and_can_come_again() {
        let mut signals = Signals::install().unwrap();
        for (flag, name) in [("-TERM", "SIGTERM"), ("-INT", "SIGINT"), ("-TERM", "SIGTERM")] {
            let sent = Command::new("kill").args([flag, &id().to_string()]).status();
            assert!(sent.unwrap().success());
            assert_eq!(signals.next().await, name);
        }
    }
}

//! The signals that end the process.

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

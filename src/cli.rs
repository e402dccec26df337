//! What a person types. Thin: each command is a few lines over the library.
//!
//! Output goes to stdout, everything else to stderr, where each line begins with `token-broker: `; only the log and
//! clap's words on wrong usage have a form of their own. Exit codes: 0 done, 64 wrong usage or configuration, 1 failed.

mod ask;
mod check_config;
#[cfg(feature = "sandbox")]
mod dev;
mod harden;
mod inspect;
mod policy;
mod serve;
mod try_upstream;
mod watch;

use crate::client::{self, Access, Clear, Client, Identity};
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// After the drain: what still blocks a thread, such as a name look-up, is not waited for.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// Hands out short-lived tokens of third-party APIs, one per Workspace, over gRPC. The long-lived secrets stay here.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Run it:
  token-broker check-config token-broker.toml
  token-broker serve --config token-broker.toml

Use a token:
  curl -H \"Authorization: Bearer $(token-broker get fleet/europe)\" \\
       https://cdn.emnify.net/api/v1/endpoint";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve {
        /// The configuration file; docs/configuration.md describes every key.
        #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_CONFIG")]
        config: PathBuf,
    },
    /// Try it: run the broker with simulated upstreams and sample Workspaces, and print commands to copy.
    #[cfg(feature = "sandbox")]
    Dev(dev::Options),
    /// Print the current token of a Workspace, bare, for use in scripts.
    Get {
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        get: ask::Get,
    },
    /// Follow the tokens of Workspaces: print a line whenever one is renewed or withdrawn, keep a file up to date.
    ///
    /// Ends with code 0 on SIGINT or SIGTERM, with --once with code 1. While the broker is away it tries again, every
    /// 10 seconds at most; only a request that the broker will never grant ends it, with code 1. Files of --ca, --cert,
    /// --key and --token-file are read anew each time: when the broker ends a stream with the certificate or token that
    /// opened it, the next ones open another.
    Watch {
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        watch: watch::Options,
    },
    /// Report a token that the upstream rejected, and print its replacement, bare.
    Report {
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        report: ask::Report,
    },
    /// Decode a JWT's header and claims, verifying nothing. Nothing leaves this machine but the call to the broker.
    Inspect {
        #[command(flatten)]
        broker: Broker,
        /// The Workspace whose token to decode, or - to read a JWT from standard input.
        #[arg(value_name = "WORKSPACE|-")]
        workspace: String,
    },
    /// Check a configuration file, report all that is wrong with it, and print what its upstream budgets carry.
    CheckConfig {
        /// The configuration file.
        file: PathBuf,
    },
    /// Try the policy of a configuration out.
    Policy {
        #[command(subcommand)]
        command: policy::Command,
    },
    /// Make one exchange as the broker would, without a broker, and explain every step. The secrets of the
    /// credential, tokens and extra parameters are masked; parameters and the texts of a description are shown. The
    /// token is thrown away. The upstream counts it as a login, and a refused one towards a lockout.
    TryUpstream(try_upstream::Options),
    /// Ask the broker whether it is ready, or whether one of its services or Workspaces serves; the exit code is 0 if
    /// so. For a container's health check.
    Healthcheck {
        #[command(flatten)]
        broker: Broker,
        /// What to ask for: a service such as tokenbroker.v1.TokenService, or workspace/ and the name of one. Left out:
        /// the broker itself.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        service: String,
    },
}

/// Where the broker is, and what it is shown.
#[derive(Debug, Args)]
#[group(skip)]
struct Broker {
    /// The broker's gRPC address, which begins with http://, https:// or unix:/ as the listener does.
    #[arg(long, value_name = "URL", env = "TOKEN_BROKER_ENDPOINT", default_value = "http://127.0.0.1:7700")]
    endpoint: String,
    /// How long to wait for an answer, such as 500ms or 5s.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Trust the broker's certificate if one of these authorities (PEM) has signed it; without it, a public one.
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_CA", help_heading = ACCESS)]
    ca: Option<PathBuf>,
    /// Show this client certificate (PEM), with what links it to its authority.
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_CERT", requires = "key", help_heading = ACCESS)]
    cert: Option<PathBuf>,
    /// The private key (PEM) of the certificate.
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_KEY", requires = "cert", help_heading = ACCESS)]
    key: Option<PathBuf>,
    /// The name that the broker's certificate must hold, where it is not the host of the endpoint.
    #[arg(long, value_name = "NAME", env = "TOKEN_BROKER_SERVER_NAME", help_heading = ACCESS)]
    server_name: Option<String>,
    /// Send the bearer token in this file. It is read for each call, so it may be replaced.
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_TOKEN_FILE", help_heading = ACCESS)]
    token_file: Option<PathBuf>,
    /// Send it even where everybody on the way can read it: over http:// beyond this machine.
    #[arg(long, requires = "token_file", help_heading = ACCESS)]
    plaintext_lets_the_network_read_tokens: bool,
}

const ACCESS: &str = "TLS and tokens";

/// Why a command ends with another code than 0.
#[derive(Debug)]
enum Failure {
    /// The user must change something: exit code 64.
    Usage(String),
    /// The answer, which was printed, is no: exit code 1.
    No,
    /// It did not work: exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
}

impl Broker {
    async fn connect(&self) -> Result<Client, client::Error> {
        Client::connect_with(&self.endpoint, self.access(), self.timeout).await
    }

    fn access(&self) -> Access {
        let identity = self.cert.clone().zip(self.key.clone());
        Access {
            ca: self.ca.clone(),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            server_name: self.server_name.clone(),
            token: self.token_file.clone(),
            clear: if self.plaintext_lets_the_network_read_tokens { Clear::Accepted } else { Clear::Refused },
        }
    }
}

/// Runs what the arguments say.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(help_or_error) => return explain(&help_or_error),
    };
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::No) => ExitCode::FAILURE,
        Err(Failure::Usage(text)) => say(&text, EXIT_USAGE),
        Err(Failure::Failed(error)) => say(&error.to_string(), code_of(&*error)),
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { config } => serve::serve(&config),
        #[cfg(feature = "sandbox")]
        Command::Dev(options) => dev::dev(options),
        Command::Get { broker, get } => block_on(ask::get(broker, get)),
        Command::Watch { broker, watch } => block_on(watch::watch(broker, watch)),
        Command::Report { broker, report } => block_on(ask::report(broker, report)),
        Command::Inspect { broker, workspace } => block_on(inspect::inspect(broker, workspace)),
        Command::CheckConfig { file } => check_config::check_config(&file),
        Command::Policy { command } => policy::policy(&command),
        Command::TryUpstream(options) => {
            let hardened = harden::harden();
            block_on(try_upstream::try_upstream(options, hardened))
        }
        Command::Healthcheck { broker, service } => block_on(ask::healthcheck(broker, &service)),
    }
}

/// Options that contradict each other are wrong usage, though only the client finds out.
fn code_of(error: &(dyn Error + Send + Sync + 'static)) -> u8 {
    let is_usage = error.downcast_ref().is_some_and(client::Error::is_wrong_usage);
    if is_usage { EXIT_USAGE } else { 1 }
}

/// Runs a command that waits for the network.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(RUNTIME_END);
    result
}

/// Help and version go to stdout with code 0, wrong usage to stderr with code 64.
fn explain(error: &clap::Error) -> ExitCode {
    match (error.print(), error.use_stderr()) {
        (Ok(()), false) => ExitCode::SUCCESS,
        (Ok(()), true) => ExitCode::from(EXIT_USAGE),
        (Err(_closed), _) => ExitCode::FAILURE,
    }
}

/// Prints one line, or several, to stdout. A closed pipe is no failure of ours.
fn print(text: impl fmt::Display) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Says it on stderr, with whose words these are before each line.
fn say(text: &str, code: u8) -> ExitCode {
    let lines: String = text.lines().flat_map(|line| ["token-broker: ", line, "\n"]).collect();
    match io::stderr().lock().write_all(lines.as_bytes()) {
        // With stderr gone the exit code still tells.
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

//! `dev`: simulated upstreams and the broker in one process, with sample Workspaces and commands to copy.

mod samples;

use super::harden::{Hardened, harden};
use super::serve::start_logging;
use super::{Failure, block_on, print};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::grpc::Reflection;
use crate::sandbox::Sandbox;
use clap::Args;
use samples::SAMPLES;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// Where `dev` listens, and how loud it is.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// gRPC; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    grpc_listen: SocketAddr,
    /// /livez, /readyz, /metrics and /config.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7701")]
    probe_listen: SocketAddr,
    /// The simulated upstreams, and their control API under /_control.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7702")]
    sandbox_listen: SocketAddr,
    /// What is logged: a level, or a list such as `info,token_broker::engine=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Less than anybody should set, so that a token can be reported right after it was got.
const MIN_GAP: &str = "10ms";
/// Whoever runs `dev` may have all of it.
const GRANTS: &str = "[[grants]]\ncaller = \"loopback\"\nworkspaces = [\"demo/*\"]\n\
                      actions = [\"get\", \"watch\", \"report\", \"health\"]\n";
/// The name of the file that says who got which token: stdout is for the commands to copy.
const AUDIT: &str = "audit.jsonl";
/// The name of the configuration file.
const CONFIG: &str = "dev.toml";

pub(super) fn dev(options: Options) -> Result<(), Failure> {
    let hardened = harden();
    block_on(run(options, hardened))
}

async fn run(options: Options, hardened: Hardened) -> Result<(), Failure> {
    let sandbox = Sandbox::bind(options.sandbox_listen, samples::settings(), Clock::system()).await;
    let sandbox = sandbox.map_err(|error| cant_listen(options.sandbox_listen, &error))?;
    let upstream = sandbox.addr();
    // Secrets come from files here as everywhere; the files are gone with the process.
    let files = write_files(&options, upstream)?;
    let config = Config::load(&files.path().join(CONFIG), &Environment::default());
    let config = config.map_err(|problems| Failure::Usage(problems.to_string()))?;
    start_logging(&config.log)?;
    hardened.warn();
    let app = App::bind(config, Reflection::On).await?;
    let stop = app.supervisor().clone();
    app.supervisor().spawn_critical("sandbox", async move {
        sandbox.run(async move { stop.draining().await }).await;
    });
    print(welcome(&app, upstream, &files.path().join(CONFIG)))?;
    Ok(app.run().await?)
}

fn write_files(options: &Options, upstream: SocketAddr) -> Result<TempDir, Failure> {
    let directory = tempfile::Builder::new().prefix("token-broker-dev-").tempdir()?;
    write_private(&directory.path().join("secrets.toml"), &samples::secrets())?;
    write_private(&directory.path().join(CONFIG), &config_text(options, upstream))?;
    Ok(directory)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn config_text(options: &Options, upstream: SocketAddr) -> String {
    let Options { grpc_listen, probe_listen, log, .. } = options;
    format!(
        "[server]\ngrpc_listen = \"{grpc_listen}\"\nprobe_listen = \"{probe_listen}\"\n\
         [log]\nformat = \"human\"\nlevel = {log:?}\n\
         [engine]\nmin_gap = \"{MIN_GAP}\"\n\
         [audit]\nsinks = [\"file\"]\nfile = \"{AUDIT}\"\n{}\n{GRANTS}",
        samples::tables(upstream)
    )
}

fn welcome(app: &App, upstream: SocketAddr, config: &Path) -> String {
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let (grpc, probe) = (shown(app.grpc_address()), shown(app.probe_address()));
    let workspaces = SAMPLES.map(|sample| format!("  {:<22} {}\n", sample.workspace, sample.shows)).concat();
    let program = program();
    let (broker, api) = (format!("--endpoint http://{grpc}"), format!("http://{upstream}"));
    let get = format!("{program} get {broker} demo/emnify");
    let audit = quoted(&config.with_file_name(AUDIT).display().to_string());
    let config = quoted(&config.display().to_string());
    format!(
        "token-broker dev

  gRPC      http://{grpc}
  probes    http://{probe}/livez /readyz /metrics /config
  upstream  {api} (simulated emnify, Wyvern, Sensos, OAuth 2.0, others under /odd)
  config    {config}
  audit     {audit} (who got which token)

Workspaces:
{workspaces}
Try, in another terminal:

  # a token, and everything about it
  {get}
  {get} --json

  # what it says
  {program} inspect {broker} demo/emnify

  # call the API with it
  curl -i -H \"Authorization: Bearer $({get})\" {api}/api/v1/endpoint

  # follow tokens: a line per renewal, without --once for as long as you like; --write-file keeps one in a file
  {program} watch {broker} --once demo/emnify demo/emnify-short

  # the upstream rejects it? report it and get another
  {program} report {broker} demo/emnify --status 401 \
      --fingerprint \"$({get} --json | sed -n 's/.*\"fingerprint\": \"\\(.*\\)\".*/\\1/p')\"

  # by any gRPC client, such as grpcurl, which must be installed
  grpcurl -plaintext -d '{{\"workspace\":\"demo/emnify\"}}' {grpc} tokenbroker.v1.TokenService/GetToken

  # what is sent to an upstream, and what is made of its answer
  {program} try-upstream {config} demo/emnify-switched
  {program} try-upstream {config} demo/described

  # who may do what, and by which grant
  {program} policy test --config {config} --caller loopback --workspace demo/emnify --action get

  # break the upstream, see the token being served all the same, mend it
  curl -fsS -H 'content-type: application/json' -d '{{\"status\":503}}' {api}/_control/faults
  {get} --json
  curl -fsS -X POST {api}/_control/reset

  # is it ready, and what has it done?
  {program} healthcheck {broker}
  curl -fsS http://{probe}/metrics

Ctrl-C ends it."
    )
}

/// The program as short as it can be said so that the printed commands work as printed, here or anywhere.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "token-broker".to_owned() };
    let on_path = std::env::var_os("PATH").is_some_and(|directories| {
        let first = std::env::split_paths(&directories).map(|at| at.join("token-broker")).find(|found| found.is_file());
        first.and_then(|found| found.canonicalize().ok()).as_deref() == Some(path.as_path())
    });
    if on_path {
        return "token-broker".to_owned();
    }
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(|rest| Path::new(".").join(rest)));
    quoted(&relative.unwrap_or(path).display().to_string())
}

/// One word to a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn cant_listen(address: SocketAddr, error: &io::Error) -> Failure {
    Failure::Failed(format!("can't listen on {address}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        assert_eq!(quoted("./target/release/token-broker"), "./target/release/token-broker");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
        assert_eq!(quoted("/a;$(b)"), "'/a;$(b)'");
    }
}

//! `dev`: simulated upstreams and the broker in one process, with sample Workspaces and commands to copy.

use super::serve::start_logging;
use super::{Failure, block_on, print};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::grpc::Reflection;
use crate::sandbox::{Organisation, Sandbox, Settings};
use clap::Args;
use std::fs;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Where `dev` listens, and how loud it is.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// gRPC; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    grpc_listen: SocketAddr,
    /// /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7701")]
    probe_listen: SocketAddr,
    /// The simulated upstream, and its control API under /_control.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7702")]
    sandbox_listen: SocketAddr,
    /// What is logged: a level, or a list such as `info,token_broker::engine=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// A Workspace of the sandbox: its name, what it shows, and the life of its tokens in seconds.
struct Sample {
    workspace: &'static str,
    shows: &'static str,
    organisation: u64,
    lifetime: u64,
    known_upstream: bool,
}

const SAMPLES: [Sample; 4] = [
    Sample {
        workspace: "demo/emnify",
        shows: "tokens live four hours",
        organisation: 1,
        lifetime: 14_400,
        known_upstream: true,
    },
    Sample {
        workspace: "demo/emnify-weekly",
        shows: "tokens live a week",
        organisation: 2,
        lifetime: 604_800,
        known_upstream: true,
    },
    Sample {
        workspace: "demo/emnify-short",
        shows: "tokens live a minute: watch them being renewed",
        organisation: 3,
        lifetime: 60,
        known_upstream: true,
    },
    Sample {
        workspace: "demo/emnify-revoked",
        shows: "the credential is refused: see what that looks like",
        organisation: 4,
        lifetime: 14_400,
        known_upstream: false,
    },
];

pub(super) fn dev(options: Options) -> Result<(), Failure> {
    block_on(run(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    let sandbox = Sandbox::bind(options.sandbox_listen, settings(), Clock::system()).await;
    let sandbox = sandbox.map_err(|error| cant_listen(options.sandbox_listen, &error))?;
    let upstream = sandbox.addr();
    // Secrets come from files here as everywhere; the files are gone with the process.
    let files = write_files(&options, upstream)?;
    let config = Config::load(&files.path().join("dev.toml"), &Environment::default());
    let config = config.map_err(|problems| Failure::Usage(problems.to_string()))?;
    start_logging(&config.log)?;
    let app = App::bind(config, Reflection::On).await?;
    let stop = app.supervisor().clone();
    app.supervisor().spawn_critical("sandbox", async move {
        sandbox.run(async move { stop.draining().await }).await;
    });
    print(welcome(&app, upstream))?;
    Ok(app.run().await?)
}

fn settings() -> Settings {
    let known = SAMPLES.iter().filter(|sample| sample.known_upstream);
    let organisations = known.map(|sample| {
        let name = format!("Sandbox {}", sample.organisation);
        Organisation::new(sample.organisation, name, secret_of(sample), Duration::from_secs(sample.lifetime))
    });
    Settings { organisations: organisations.collect(), ..Settings::default() }
}

fn secret_of(sample: &Sample) -> String {
    format!("sandbox-application-token-{}", sample.organisation)
}

fn write_files(options: &Options, upstream: SocketAddr) -> Result<TempDir, Failure> {
    let directory = tempfile::Builder::new().prefix("token-broker-dev-").tempdir()?;
    let secrets = SAMPLES.iter().map(|sample| format!("{:?} = {:?}\n", sample.workspace, secret_of(sample)));
    write_private(&directory.path().join("secrets.toml"), &secrets.collect::<String>())?;
    write_private(&directory.path().join("dev.toml"), &config_text(options, upstream))?;
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
    let settings = format!(
        "[server]\ngrpc_listen = \"{grpc_listen}\"\nprobe_listen = \"{probe_listen}\"\n\
         [log]\nformat = \"human\"\nlevel = {log:?}\n\
         [[upstreams]]\nname = \"emnify\"\nkind = \"emnify\"\nurl = \"http://{upstream}\"\n"
    );
    let workspaces = SAMPLES.iter().map(|Sample { workspace, organisation, .. }| {
        format!(
            "[[workspaces]]\nname = {workspace:?}\nupstream = \"emnify\"\norganisation = {organisation}\n\
             credential = {{ application_token = {{ file = \"secrets.toml\", key = {workspace:?} }} }}\n"
        )
    });
    iter::once(settings).chain(workspaces).collect()
}

fn welcome(app: &App, upstream: SocketAddr) -> String {
    let (grpc, probe) = (app.grpc_address(), app.probe_address());
    let program = program();
    let get = format!("{program} get --endpoint http://{grpc}");
    let places = format!(
        "token-broker dev\n\n  gRPC      http://{grpc}\n  probes    http://{probe}/livez /readyz /metrics\n  \
         upstream  http://{upstream} (simulated emnify)\n\nWorkspaces:\n"
    );
    let samples = SAMPLES.iter().map(|Sample { workspace, shows, .. }| format!("  {workspace:<22} {shows}\n"));
    let commands = format!(
        "\nTry, in another terminal:\n\
         \n  # a token, and everything about it\n  {get} demo/emnify\n  {get} demo/emnify --json\n\
         \n  # what it says\n  {program} inspect --endpoint http://{grpc} demo/emnify\n\
         \n  # call the API with it\n  curl -i -H \"Authorization: Bearer $({get} demo/emnify)\" http://{upstream}/api/v1/endpoint\n\
         \n  # by any gRPC client\n  grpcurl -plaintext -d '{{\"workspace\":\"demo/emnify\"}}' {grpc} tokenbroker.v1.TokenService/GetToken\n\
         \n  # break the upstream, see the token being served all the same, mend it\n\
         \x20 curl -X POST http://{upstream}/_control/faults -H 'content-type: application/json' -d '{{\"status\":503}}'\n\
         \x20 {get} demo/emnify --json\n\
         \x20 curl -X DELETE http://{upstream}/_control/faults\n\
         \n  # is it ready, and what has it done?\n  {program} healthcheck --endpoint http://{grpc}\n  curl http://{probe}/metrics\n\
         \nCtrl-C ends it.\n"
    );
    iter::once(places).chain(samples).chain([commands]).collect()
}

/// The program as it was started, so that the printed commands work as printed.
fn program() -> String {
    let path = std::env::current_exe().ok();
    path.map_or_else(|| "token-broker".to_owned(), |path| path.display().to_string())
}

fn cant_listen(address: SocketAddr, error: &io::Error) -> Failure {
    Failure::Failed(format!("can't listen on {address}: {error}").into())
}

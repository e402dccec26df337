//! The certificate of a real process, and the authority of its callers, replaced again and again while callers come and
//! call. The bounded form runs with every `cargo test`; `soak/rotation.sh` is the full one.

use super::doors::{Doors, Revocations, URI, channel, dial, get, replace};
use super::{PATIENCE, WORKSPACE};
use crate::holds::{Form, report};
use crate::listener::raw::{PREFACE, SETTINGS, frame, next_frame};
use crate::tls::pki::{Authority, Identity, Spec};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_broker::grpc::pb::GetTokenResponse;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::Status;

/// Within which a new certificate is to be shown, and a bad file told.
const SEEN: Duration = Duration::from_secs(2);
const CALLERS: usize = 4;

/// One round's files.
struct Round {
    authority: Authority,
    caller: Identity,
    shown: Identity,
}

/// What callers are to use now.
#[derive(Clone)]
struct Now {
    round: usize,
    config: Arc<ClientConfig>,
}

#[derive(Default)]
struct Tally {
    handshakes: u64,
    calls: u64,
    failed: Vec<String>,
}

impl Tally {
    fn called(&mut self, round: usize, outcome: Result<GetTokenResponse, Status>) {
        self.calls += 1;
        self.failed.extend(outcome.err().map(|status| format!("call with round {round}: {status:?}")));
    }
}

struct Load {
    now: watch::Sender<Now>,
    tally: Arc<Mutex<Tally>>,
    running: JoinSet<()>,
}

fn round(doors: &Doors, at: usize) -> Round {
    let authority = doors.pki.root(&format!("callers-{at}"));
    let (caller, shown) = (authority.caller("caller", URI), doors.servers.server(&format!("broker-{at}")));
    Round { authority, caller, shown }
}

/// A handshake, and the first frame of the broker: it has let the caller in.
async fn comes_in(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Vec<CertificateDer<'static>>, String> {
    let whole = async {
        let mut stream = dial(address, config, None).await.map_err(|error| error.to_string())?;
        let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&greeting).await.map_err(|error| error.to_string())?;
        let first = next_frame(&mut stream).await.ok_or("it was cut")?;
        assert_eq!(first.kind, SETTINGS);
        Ok(stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    };
    timeout(PATIENCE, whole).await.unwrap_or_else(|_| Err("it hung".to_owned()))
}

impl Load {
    /// So many connections a second, and so many who call every few milliseconds.
    fn start(address: SocketAddr, first: Now, per_second: u32) -> Self {
        let (now, told) = watch::channel(first);
        let tally = Arc::<Mutex<Tally>>::default();
        let mut running = JoinSet::new();
        running.spawn(come(address, told.clone(), Arc::clone(&tally), per_second));
        for _ in 0..CALLERS {
            running.spawn(call(address, told.clone(), Arc::clone(&tally)));
        }
        Self { now, tally, running }
    }
}

async fn come(address: SocketAddr, told: watch::Receiver<Now>, tally: Arc<Mutex<Tally>>, per_second: u32) {
    let (mut ticks, mut coming) = (interval(Duration::from_secs(1) / per_second), JoinSet::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let (Now { round, config }, tally) = (told.borrow().clone(), Arc::clone(&tally));
        coming.spawn(async move {
            let came = comes_in(address, config).await;
            let mut tally = tally.lock().unwrap();
            tally.handshakes += 1;
            tally.failed.extend(came.err().map(|why| format!("handshake with round {round}: {why}")));
        });
        while coming.try_join_next().is_some() {}
    }
}

async fn call(address: SocketAddr, told: watch::Receiver<Now>, tally: Arc<Mutex<Tally>>) {
    loop {
        let Now { round, config } = told.borrow().clone();
        let channel = match channel(address, (*config).clone(), None).await {
            Ok(channel) => channel,
            Err(why) => {
                tally.lock().unwrap().failed.push(format!("connection with round {round}: {why}"));
                continue;
            }
        };
        while told.borrow().round == round {
            let outcome = get(channel.clone(), WORKSPACE, &[]).await;
            tally.lock().unwrap().called(round, outcome);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Rotation {
    doors: Doors,
    load: Load,
    slowest: Duration,
    refused: usize,
    form: Form,
}

impl Rotation {
    fn path(&self, name: &str) -> PathBuf {
        self.doors.files.0.path().join(name)
    }

    /// Times count where the build is the one that is shipped.
    fn check_time(&self, what: &str, took: Duration) {
        if !cfg!(debug_assertions) {
            self.form.check_time(what, took, SEEN);
        }
    }

    fn show(&self, identity: &Identity) {
        replace(&self.path("tls.crt"), &identity.pem());
        replace(&self.path("tls.key"), &identity.key_pem());
    }

    /// Puts the files of a round in place beside the authority of the one before it, and waits until they are seen.
    async fn goes_on(&mut self, before: &Round, round: &Round) {
        let begun = Instant::now();
        self.show(&round.shown);
        replace(&self.path("ca.crt"), &(before.authority.pem() + &round.authority.pem()));
        let own = crate::tls::chain(&round.shown.certificate);
        let old = Arc::new(self.doors.client(Some(&before.caller)));
        let shown = async {
            while comes_in(self.doors.mesh, Arc::clone(&old)).await.expect("while it changes") != own {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, shown).await.expect("it is never shown");
        // The certificate and the authorities are taken up as one.
        let took = begun.elapsed();
        self.slowest = self.slowest.max(took);
        self.check_time("a new certificate is shown", took);
        comes_in(self.doors.mesh, Arc::new(self.doors.client(Some(&round.caller)))).await.unwrap();
    }

    /// What can't be used is told, and what was there goes on.
    async fn refuses(&mut self, what: &str, current: &Round, put: impl Fn(&Self)) {
        let begun = Instant::now();
        put(self);
        self.refused += 1;
        let told = "tls_files_refused{listener=\"mesh\"}";
        self.doors.metric_reaches(told, 1.0).await;
        let took = begun.elapsed();
        self.check_time(what, took);
        let config = Arc::new(self.doors.client(Some(&current.caller)));
        let shown = comes_in(self.doors.mesh, config).await.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(shown, crate::tls::chain(&current.shown.certificate), "{what}");
        self.show(&current.shown);
        let mended = async {
            while self.doors.metric(told).await > 0.0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, mended).await.unwrap_or_else(|_| panic!("{what}: the good files are not taken up"));
        report("rotation", format!("{what}: refused, told after {took:?}"));
    }

    async fn refuses_each(&mut self, current: &Round) {
        let extensions = "subjectAltName=DNS:broker";
        let (start, end) = ("20200101000000Z", "20200102000000Z");
        let servers = &self.doors.servers;
        let expired = servers.issue("expired", &Spec { extensions, start, end, ..Spec::default() });
        let another = servers.server("another");
        let half = current.shown.pem();
        let half: String = half.chars().take(half.len() / 2).collect();
        self.refuses("an expired certificate", current, |this| this.show(&expired)).await;
        self.refuses("half a certificate", current, |this| replace(&this.path("tls.crt"), &half)).await;
        self.refuses("another's key", current, |this| replace(&this.path("tls.key"), &another.key_pem())).await;
    }
}

/// What the full form was asked for.
fn asked<T: std::str::FromStr>(form: Form, variable: &str, bounded: T, full: T) -> T {
    let asked = std::env::var(variable).ok();
    let asked = asked.map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")));
    form.pick(bounded, asked.unwrap_or(full))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_fails_nobody() {
    let form = Form::of_process();
    let rounds = asked(form, "TOKEN_BROKER_ROTATIONS", 3_usize, 60);
    let per_second = asked(form, "TOKEN_BROKER_HANDSHAKES", 50_u32, 200);
    let doors = Doors::with(Revocations::None, "").await;
    let first = Round { authority: doors.callers.clone(), caller: doors.good(), shown: doors.servers.server("first") };
    let mut all = vec![first];
    all.extend((1..=rounds).map(|at| round(&doors, at)));
    let now = |doors: &Doors, round| Now { round, config: Arc::new(doors.client(Some(&all[round].caller))) };
    let load = Load::start(doors.mesh, now(&doors, 0), per_second);
    let begun = Instant::now();
    let mut rotation = Rotation { doors, load, slowest: Duration::ZERO, refused: 0, form };
    for at in 1..=rounds {
        let next = sleep(form.pick(Duration::from_millis(200), Duration::from_secs(5)));
        rotation.goes_on(&all[at - 1], &all[at]).await;
        rotation.load.now.send_replace(now(&rotation.doors, at));
        if let Some(gone) = at.checked_sub(2) {
            let config = Arc::new(rotation.doors.client(Some(&all[gone].caller)));
            assert!(comes_in(rotation.doors.mesh, config).await.is_err(), "round {at}: its authority is gone");
        }
        if at == rounds.div_ceil(2) {
            rotation.refuses_each(&all[at]).await;
        }
        next.await;
    }
    let took = begun.elapsed();
    rotation.load.running.shutdown().await;
    let tally = rotation.load.tally.lock().unwrap();
    report(
        "rotation",
        format!(
            "{rounds} in {took:?}, {} handshakes ({:.0} a second), {} calls, {} failed; shown after {:?} at most; \
             {} bad files refused",
            tally.handshakes,
            f64::from(u32::try_from(tally.handshakes).unwrap()) / took.as_secs_f64(),
            tally.calls,
            tally.failed.len(),
            rotation.slowest,
            rotation.refused
        ),
    );
    assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
    assert!(tally.handshakes > 20 && tally.calls > 20, "{} and {}", tally.handshakes, tally.calls);
}

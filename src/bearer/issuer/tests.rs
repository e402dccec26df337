use super::super::fetch::Failure;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use std::collections::VecDeque;

/// Gives the next of these each time, and the last one for ever; `None` is a failure, and `hangs` never comes.
#[derive(Debug, Clone)]
struct Script(Arc<Mutex<Steps>>);

#[derive(Debug)]
struct Steps {
    next: VecDeque<Option<&'static str>>,
    looks: Vec<Instant>,
}

impl Script {
    fn new(steps: &[Option<&'static str>]) -> Self {
        Self(Arc::new(Mutex::new(Steps { next: steps.iter().copied().collect(), looks: Vec::new() })))
    }

    fn looks(&self) -> Vec<Instant> {
        self.0.lock().unwrap().looks.clone()
    }
}

impl Source for Script {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, Failure>> {
        let mut script = self.0.lock().unwrap();
        script.looks.push(Instant::now());
        let last = script.next.len() == 1;
        let step = if last { script.next.front().copied() } else { script.next.pop_front() };
        if step == Some(Some("hangs")) {
            return Box::pin(std::future::pending());
        }
        let keys = step.flatten().map(keys).ok_or(Failure::Status(503));
        Box::pin(async { keys })
    }
}

fn keys(kid: &str) -> KeySet {
    let x = URL_SAFE_NO_PAD.encode([u8::try_from(kid.len()).unwrap(); 32]);
    let set = serde_json::json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }] });
    KeySet::parse(set.to_string().as_bytes()).unwrap()
}

fn token(kid: &str) -> Token<'static> {
    let kid = Some(kid.to_owned());
    Token { algorithm: Algorithm::EdDsa, kid, claims: serde_json::Map::new(), signed: "", signature: "" }
}

struct Stand {
    issuer: Arc<Issuer>,
    script: Script,
    revisions: watch::Receiver<u64>,
    supervisor: Supervisor,
}

impl Stand {
    fn new(steps: &[Option<&'static str>]) -> Self {
        Self::with(None, steps)
    }

    fn with(keys: Option<(KeySet, Instant)>, steps: &[Option<&'static str>]) -> Self {
        let rule = Rule { name: Arc::from("idp"), issuer: "https://idp".to_owned(), audiences: Vec::new() };
        let issuer = Arc::new(Issuer::new(rule, vec![Algorithm::EdDsa], keys));
        let (script, revisions) = (Script::new(steps), Revisions::default());
        let heard = revisions.subscribe();
        let supervisor = Supervisor::new();
        let keeper = Keeper {
            issuer: Arc::clone(&issuer),
            source: Box::new(script.clone()),
            interval: Duration::from_secs(300),
            keys_outlive: Duration::from_secs(3_600),
            clock: Clock::simulated(),
            revisions,
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
            memory: Arc::new(Memory::new(16)),
        };
        supervisor.spawn("keeper", keeper.run(supervisor.clone()));
        Self { issuer, script, revisions: heard, supervisor }
    }

    async fn key(&self, kid: &str) -> Result<Arc<Key>, Refusal> {
        self.issuer.key_of(&token(kid), Instant::now()).await
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_looked_at_every_interval() {
    let stand = Stand::new(&[Some("a")]);
    pass(3_000).await;
    let looks = stand.script.looks().len();
    assert!((9..=12).contains(&looks), "{looks}");
    assert_eq!(*stand.revisions.borrow(), 1, "the first ones; after that nothing changed");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_again_ever_more_rarely_and_ends_the_keys_in_the_end() {
    let stand = Stand::new(&[Some("a"), None]);
    pass(1).await;
    let key = stand.key("a").await.unwrap();
    pass(3_000).await;
    assert!(key.is_trusted() && stand.key("a").await.is_ok(), "good keys stay");
    let looks = stand.script.looks();
    assert!((45..=65).contains(&looks.len()), "about once a minute: {}", looks.len());
    pass(700).await;
    assert!(!key.is_trusted(), "for an hour, and no longer");
    assert_eq!(stand.key("a").await.err(), Some(Refusal::Unavailable { retry_after: SOON }));
    assert_eq!(*stand.revisions.borrow(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_come_back_after_an_outage() {
    let stand = Stand::new(&[None, None, Some("a")]);
    assert!(matches!(stand.key("a").await, Err(Refusal::Unavailable { .. })));
    pass(5).await;
    assert!(stand.key("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_cause_one_look_in_ten_seconds() {
    let stand = Stand::new(&[Some("a")]);
    pass(1).await;
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(100) {
        let answer = stand.key(&format!("unknown-{asked}")).await;
        assert!(answer.is_err());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let looks = stand.script.looks().len();
    assert!(asked > 500 && (10..=11).contains(&looks), "{asked} tokens, {looks} looks");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_looked_for_in_vain_is_refused_until_the_next_look() {
    let stand = Stand::new(&[Some("a"), Some("a"), Some("bb")]);
    pass(1).await;
    assert!(matches!(stand.key("bb").await, Err(Refusal::Invalid(_))));
    assert!(matches!(stand.key("bb").await, Err(Refusal::Invalid(_))), "it was looked for just now");
    assert!(matches!(stand.key("ccc").await, Err(Refusal::Unavailable { .. })), "it was not");
    pass(10).await;
    assert!(stand.key("bb").await.is_ok());
    assert_eq!(stand.script.looks().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_closed_issuer_publishes_nothing_more() {
    let stand = Stand::new(&[Some("a"), Some("bb")]);
    pass(1).await;
    let key = stand.key("a").await.unwrap();
    stand.issuer.close();
    assert!(!key.is_trusted());
    pass(1_000).await;
    assert!(stand.key("bb").await.is_err());
    assert_eq!(stand.script.looks().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_does_not_keep_keys_in_force() {
    let stand = Stand::new(&[Some("a"), Some("hangs")]);
    pass(1).await;
    let key = stand.key("a").await.unwrap();
    pass(3_500).await;
    assert!(key.is_trusted(), "good keys stay");
    pass(200).await;
    assert!(!key.is_trusted(), "for an hour and one look, and no longer");
}

#[tokio::test(start_paused = true)]
async fn another_configuration_makes_old_keys_no_fresher() {
    let first = Stand::new(&[Some("a"), None]);
    pass(3_000).await;
    let second = Stand::with(first.issuer.copied_keys(), &[None]);
    let key = second.key("a").await.unwrap();
    pass(500).await;
    assert!(key.is_trusted());
    pass(200).await;
    assert!(!key.is_trusted(), "they were looked at more than an hour ago");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_look_that_will_not_be() {
    for drained in [true, false] {
        let stand = Stand::new(&[Some("a"), Some("hangs")]);
        pass(1).await;
        let begun = Instant::now();
        let end = async {
            pass(1).await;
            if drained {
                stand.supervisor.shutdown(Duration::from_secs(5)).await;
            } else {
                stand.issuer.close();
            }
        };
        let (answer, ()) = tokio::join!(stand.key("bb"), end);
        assert!(matches!(answer, Err(Refusal::Unavailable { .. })));
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}

//! Sensos: one exchange, whose answer says twice how long the token lives.

use super::{Broker, Upstream, claims, reason};
use std::time::Duration;
use token_broker::error::Reason;
use token_broker::sandbox::{Application, Route, Settings};

const SECRETS: [(&str, &str); 1] = [("secret", "sandbox-application-secret")];

fn config(tenant: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"sensos\"\nkind = \"sensos\"\nurl = \"SANDBOX/sensos\"\n\
         [[workspaces]]\nname = \"one\"\nupstream = \"sensos\"\n\
         parameters = {{ tenant_id = \"{tenant}\", application_id = \"sandbox-application\" }}\n\
         credential = {{ application_secret = @secret }}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn the_earlier_end_of_the_two_that_are_told_counts() {
    let mut settings = Settings::default();
    let (long, short) = (Duration::from_secs(36_000), Duration::from_secs(600));
    settings.applications.push(Application { expires_in: short, ..Application::new("says-less", long) });
    let upstream = Upstream::start(settings).await;
    for (tenant, life) in [
        ("sandbox-tenant", 86_399),
        ("sandbox-tenant-ten-hours", 35_999),
        ("sandbox-tenant-mismatch", 35_999),
        ("says-less", 600),
    ] {
        let broker = Broker::start(&upstream, &config(tenant), &SECRETS);
        let served = broker.get("one").await.unwrap();
        assert_eq!(claims(&served)["tenantId"], tenant);
        let expected = upstream.clock.now().wall + Duration::from_secs(life);
        assert_eq!(served.held.validity.expires_at(), expected, "{tenant}");
        assert_eq!(broker.renewed("one").await.outcome, "token", "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_not_known_is_told_and_not_asked_for_again() {
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Broker::start(&upstream, &config("nobody"), &SECRETS);
    for _ in 0..3 {
        assert_eq!(reason(&broker.get("one").await), Some(Reason::CredentialRejected));
    }
    assert_eq!(upstream.control.counters().of(Route::SensosToken).total, 1);
}

use super::*;
use proptest::prelude::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

fn settings(per_second: u32, burst: u32) -> Settings {
    let pace = Pace { per_second, burst };
    Settings { rates: PerAction { get: pace, watch: pace, report: pace, health: pace }, ..Settings::default() }
}

fn limits(settings: &Settings) -> Limits {
    Limits::new(settings, Metrics::default())
}

fn caller(number: u32) -> Caller {
    Caller::unix(number)
}

fn retry_after(limits: &Limits, of: u32) -> Duration {
    let error = limits.admit(&caller(of), Action::Get).unwrap_err();
    assert_eq!(error.reason, Reason::CallerThrottled);
    error.retry_after.unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_caller_and_each_action_has_its_own_rate() {
    let limits = limits(&settings(10, 2));
    let actions = [Action::Get, Action::Watch, Action::Report, Action::Health];
    for number in 0..3 {
        for action in actions {
            for _ in 0..2 {
                drop(limits.admit(&caller(number), action).unwrap());
            }
            assert!(limits.admit(&caller(number), action).is_err(), "{number} {action:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_as_long_as_it_was_told_is_let_in() {
    for per_second in [1, 3, 7, 999, 1_000, 1_001, 30_000] {
        let limits = limits(&settings(per_second, 5));
        for _ in 0..5 {
            drop(limits.admit(&caller(1), Action::Get).unwrap());
        }
        for _ in 0..20 {
            let wait = retry_after(&limits, 1);
            assert!(wait >= Duration::from_millis(1) && wait <= SECOND, "{wait:?}");
            advance(wait).await;
            drop(limits.admit(&caller(1), Action::Get).unwrap());
            while limits.admit(&caller(1), Action::Get).is_ok() {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_nothing() {
    let limits = limits(&settings(1, 1));
    drop(limits.admit(&caller(1), Action::Get).unwrap());
    for _ in 0..10_000 {
        assert_eq!(retry_after(&limits, 1), SECOND);
    }
    assert_eq!(limits.in_flight(), 0);
    advance(SECOND).await;
    assert!(limits.admit(&caller(1), Action::Get).is_ok());
}

#[tokio::test(start_paused = true)]
async fn places_have_caps_and_come_back() {
    let caps = Settings { max_in_flight: 3, max_in_flight_per_caller: 2, ..Settings::default() };
    let limits = limits(&caps);
    let admit = |number| limits.admit(&caller(number), Action::Watch);
    let (first, second) = (admit(1).unwrap(), admit(1).unwrap());
    assert_eq!(admit(1).unwrap_err().retry_after, Some(RETRY_WHEN_FULL));
    let third = admit(2).unwrap();
    assert!(admit(3).is_err(), "all together");
    drop(first);
    let fourth = admit(3).unwrap();
    assert!(admit(1).is_err());
    drop((second, third, fourth));
    assert_eq!(limits.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_refusals_that_are_the_callers_own_fault_pause_its_line() {
    let (one, other) = (caller(1), caller(2));
    let refuse_all = |limits: &Limits| {
        let line = Line::default();
        for _ in 0..1_000 {
            assert!(limits.admit_from(&line, &one, Action::Get).is_err());
        }
        line.paused()
    };
    let full = limits(&Settings { max_in_flight: 1, ..Settings::default() });
    let _place = full.admit(&other, Action::Get).unwrap();
    assert_eq!(refuse_all(&full), None);
    let busy = limits(&Settings { max_in_flight_per_caller: 1, ..Settings::default() });
    let _place = busy.admit(&one, Action::Get).unwrap();
    assert_eq!(refuse_all(&busy), Some(Instant::now() + SECOND));
    let fast = limits(&settings(1, 1));
    drop(fast.admit(&one, Action::Get).unwrap());
    assert_eq!(refuse_all(&fast), Some(Instant::now() + SECOND));
    assert_eq!(fast.0.metrics.pauses(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_or_is_called_off_gives_its_place_back() {
    let limits = limits(&Settings::default());
    let mut calls = tokio::task::JoinSet::new();
    for panics in [true, false] {
        let permit = limits.admit(&caller(1), Action::Get).unwrap();
        calls.spawn(async move {
            let _permit = permit;
            assert!(!panics, "on purpose");
            std::future::pending::<()>().await;
        });
    }
    assert_eq!(limits.in_flight(), 2);
    assert!(calls.join_next().await.unwrap().unwrap_err().is_panic());
    assert_eq!(limits.in_flight(), 1);
    calls.shutdown().await;
    assert_eq!(limits.in_flight(), 0);
}

#[test]
fn no_cap_is_passed_by_many_threads() {
    const THREADS: u32 = 8;
    let caps =
        Settings { max_in_flight: 5, max_in_flight_per_caller: 3, max_callers: 2, ..settings(1_000_000, 100_000) };
    let limits = limits(&caps);
    let barrier = Barrier::new(THREADS as usize);
    // Of all, and of each of two callers.
    let held: [AtomicUsize; 3] = Default::default();
    let most: [AtomicUsize; 3] = Default::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limits, barrier, held, most) = (&limits, &barrier, &held, &most);
            scope.spawn(move || {
                let (of, mine) = (thread % 2, [0, 1 + (thread % 2) as usize]);
                barrier.wait();
                for _ in 0..20_000 {
                    if let Ok(permit) = limits.admit(&caller(of), Action::Get) {
                        for index in mine {
                            most[index].fetch_max(held[index].fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        }
                        std::thread::yield_now();
                        for index in mine {
                            held[index].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(permit);
                    }
                }
            });
        }
    });
    let most = most.map(AtomicUsize::into_inner);
    assert!(most[0] <= 5 && most[1] <= 3 && most[2] <= 3, "{most:?}");
    assert_eq!(limits.in_flight(), 0);
}

#[test]
fn a_burst_is_given_out_once_among_threads() {
    let limits = limits(&settings(1, 1_000));
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    granted.fetch_add(limits.admit(&caller(1), Action::Get).is_ok().into(), Ordering::SeqCst);
                }
            });
        }
    });
    let granted = granted.into_inner();
    // One more for each second that the threads took.
    assert!((1_000..1_100).contains(&granted), "{granted}");
}

#[tokio::test(start_paused = true)]
async fn a_million_callers_are_not_remembered() {
    let limits = limits(&Settings { max_callers: 1_000, ..settings(10, 10) });
    let stays = limits.admit(&caller(u32::MAX), Action::Watch).unwrap();
    let (mut refused, mut most) = (0, 0);
    for number in 0..1_000_000 {
        if number % 100 == 0 {
            advance(Duration::from_millis(1)).await;
        }
        refused += u32::from(limits.admit(&caller(number), Action::Get).is_err());
        if number % 500 == 0 {
            most = most.max(limits.0.callers.remembered().0);
        }
    }
    let (accounts, ring) = limits.0.callers.remembered();
    assert!(most <= 1_000 && accounts == ring, "{most} {accounts} {ring}");
    assert!(refused > 0, "100,000 new callers a second who are all busy for 100 ms share one account");
    assert!(refused < 1_000_000);
    advance(SECOND).await;
    (0..1_000).for_each(|number| drop(limits.admit(&caller(number), Action::Get)));
    let kept = limits.0.callers.known(&caller(u32::MAX), |account| account.in_flight().taken());
    assert_eq!(kept, Some(1), "who has a stream open is not forgotten");
    drop(stays);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_busy_a_newcomer_shares_and_is_not_shut_out() {
    let limits = limits(&Settings { max_callers: 3, ..settings(10, 4) });
    let busy: Vec<_> = (0..3).map(|number| limits.admit(&caller(number), Action::Watch).unwrap()).collect();
    let granted = (10..20).filter(|number| limits.admit(&caller(*number), Action::Get).is_ok()).count();
    assert_eq!(granted, 4, "one burst for all newcomers");
    assert!(limits.admit(&caller(0), Action::Get).is_ok(), "those who are known have their own");
    drop(busy);
    advance(SECOND).await;
    let granted = (10..20).filter(|number| limits.admit(&caller(*number), Action::Get).is_ok()).count();
    assert!(granted >= 6, "room again: {granted}");
}

#[tokio::test(start_paused = true)]
async fn other_settings_count_at_once() {
    let limits = limits(&settings(1, 1_000));
    let held = limits.admit(&caller(1), Action::Get).unwrap();
    while limits.admit(&caller(1), Action::Get).is_ok() {}
    limits.configure(&Settings { max_in_flight_per_caller: 1, ..settings(1_000, 10) });
    advance(SECOND).await;
    assert_eq!(retry_after(&limits, 1), RETRY_WHEN_FULL, "the cap that counts now");
    drop(held);
    drop(limits.admit(&caller(1), Action::Get).unwrap());
}

proptest! {
    /// A few callers who come and go on a table that is too small for them: each gets no more than its rate allows,
    /// forgotten or not, unless it had to share.
    #[test]
    fn nobody_gets_more_by_being_forgotten(steps in prop::collection::vec((0..6_u32, 0..200_u64), 1..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let limits = limits(&Settings { max_callers: 4, ..settings(10, 3) });
            let mut taken: Vec<Vec<Instant>> = vec![Vec::new(); 6];
            for (number, pause) in steps {
                advance(Duration::from_millis(pause)).await;
                let now = Instant::now();
                if limits.admit(&caller(number), Action::Get).is_ok() {
                    let own = &mut taken[number as usize];
                    own.push(now);
                    let account = limits.0.callers.known(&caller(number), |_| ());
                    for (index, since) in own.iter().enumerate() {
                        let calls = u128::try_from(own.len() - index).unwrap();
                        // A caller without an account of its own may have the burst of the shared one besides.
                        let burst = if account.is_some() { 3 } else { 6 };
                        let allowed = burst + (now - *since).as_nanos() / 100_000_000;
                        assert!(calls <= allowed + 3, "{calls} {allowed}");
                    }
                }
            }
        });
    }
}

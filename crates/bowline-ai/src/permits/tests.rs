//! The skin: futures that are dropped, deadlines that pass, threads that race.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use super::*;

fn permits(all: usize) -> Permits {
    let providers = [("a".into(), 2)].into();
    Permits::new(Limits { all, providers, queued: 10_000, ..Limits::default() }, Clock::start())
}

fn needs(scopes: &[Scope]) -> Needs {
    Needs { request: "r".into(), scopes: scopes.to_vec(), priority: Priority::Normal }
}

fn all() -> Needs {
    needs(&[Scope::All])
}

fn after(permits: &Permits, ms: u64) -> Time {
    permits.0.clock.now() + Duration::from_millis(ms)
}

/// `(held, queued)` of the gateway.
fn standing(permits: &Permits) -> (usize, usize) {
    let gauges = permits.gauges();
    let all = gauges.iter().find(|gauge| gauge.scope == Scope::All).unwrap();
    (all.held, all.queued)
}

/// Nothing is held, nobody waits, and nothing is remembered.
fn assert_empty(permits: &Permits) {
    assert!(permits.gauges().iter().all(|gauge| gauge.held == 0 && gauge.queued == 0));
    assert!(permits.0.lock().wakers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_back_when_it_is_dropped() {
    let permits = permits(1);
    let permit = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    assert_eq!(standing(&permits), (1, 0));
    drop(permit);
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn who_waits_begins_when_another_ends_and_knows_how_long_it_waited() {
    let permits = permits(1);
    let first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let (second, ()) = tokio::join!(permits.acquire(all(), after(&permits, 1_000)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(first);
    });
    assert_eq!(second.unwrap().waited(), Duration::from_millis(300));
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn whose_turn_it_is_is_woken_and_does_not_sleep_to_its_deadline() {
    let permits = permits(1);
    let first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let permits = permits.clone();
        tasks.spawn(async move {
            let deadline = after(&permits, 1_000_000);
            drop(permits.acquire(all(), deadline).await.unwrap());
            permits.0.clock.now()
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(first);
    let ended = tasks.join_all().await;
    assert!(ended.iter().all(|at| *at == permits.0.clock.now()));
    assert!(permits.0.clock.now() < Time::ZERO + Duration::from_millis(310));
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused_at_its_deadline() {
    let permits = permits(1);
    let _first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let refused = permits.acquire(all(), after(&permits, 200)).await.unwrap_err();
    assert_eq!(refused.why, RefusedWhy::Deadline);
    assert!(refused.waited >= Duration::from_millis(200), "{:?}", refused.waited);
    assert_eq!(refused.to_string(), "there was no place in time (all)");
    assert_eq!(standing(&permits), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_leaves_the_queue() {
    let permits = permits(1);
    let first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    {
        let mut waiting = std::pin::pin!(permits.acquire(all(), after(&permits, 1_000)));
        assert!(poll_once(waiting.as_mut()).await.is_none());
        assert_eq!(standing(&permits), (1, 1));
    }
    assert_eq!(standing(&permits), (1, 0));
    drop(first);
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn what_was_granted_to_a_future_that_is_dropped_goes_to_the_next() {
    let permits = permits(1);
    let first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let mut next = Box::pin(permits.acquire(all(), after(&permits, 1_000)));
    let mut gone = Box::pin(permits.acquire(all(), after(&permits, 1_000)));
    assert!(poll_once(gone.as_mut()).await.is_none());
    assert!(poll_once(next.as_mut()).await.is_none());
    drop(first);
    assert_eq!(standing(&permits), (1, 1));
    drop(gone);
    assert_eq!(standing(&permits), (1, 0));
    drop(poll_once(next.as_mut()).await.unwrap().unwrap());
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn a_grant_at_the_very_deadline_is_kept_or_given_back() {
    let permits = permits(1);
    let first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let (second, ()) = tokio::join!(permits.acquire(all(), after(&permits, 300)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(first);
    });
    let held = usize::from(second.is_ok());
    assert_eq!(standing(&permits), (held, 0));
    drop(second);
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_back_what_was_held() {
    let permits = permits(1);
    let mut tasks = JoinSet::new();
    let panicking = permits.clone();
    tasks.spawn(async move {
        let _permit = panicking.acquire(all(), after(&panicking, 1_000)).await.unwrap();
        panic!("on purpose");
    });
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
    assert_empty(&permits);
}

#[tokio::test(start_paused = true)]
async fn a_reload_lets_in_who_waits_and_wakes_who_is_refused() {
    let permits = permits(1);
    let _first = permits.acquire(all(), after(&permits, 1_000)).await.unwrap();
    let (second, ()) = tokio::join!(permits.acquire(all(), after(&permits, 1_000)), async {
        permits.reconfigure(Limits { all: 2, ..Limits::default() });
    });
    let (third, ()) = tokio::join!(permits.acquire(all(), after(&permits, 1_000)), async {
        permits.reconfigure(Limits { all: 0, ..Limits::default() });
    });
    assert_eq!(third.unwrap_err().why, RefusedWhy::Closed);
    assert_eq!(standing(&permits), (2, 0));
    drop(second);
}

#[test]
fn large_requests_let_others_go_first() {
    use Priority::{High, Low, Normal};
    assert_eq!([High, Normal, Low].map(|class| class.for_tokens(1_000)), [High, Normal, Low]);
    assert_eq!([High, Normal, Low].map(|class| class.for_tokens(LARGE_TOKENS)), [Normal, Low, Low]);
}

/// Many tasks on several threads that acquire, hold, are cut off while they wait or hold, and miss deadlines.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_race_never_exceed_and_never_leak() {
    const LIMIT: usize = 3;
    let permits = permits(LIMIT);
    let running = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for seed in 0..400_u64 {
        let (permits, running, done) = (permits.clone(), Arc::clone(&running), Arc::clone(&done));
        tasks.spawn(async move {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for _ in 0..50 {
                random = xorshift(random);
                let scopes = [Scope::All, Scope::Provider("a".into())];
                let scopes = &scopes[..1 + usize::from(random % 3 == 0)];
                let deadline = after(&permits, random % 20);
                let work = async {
                    let Ok(_permit) = permits.acquire(needs(scopes), deadline).await else {
                        return;
                    };
                    let counted = Counted::new(&running);
                    assert!(counted.now <= LIMIT, "{} run", counted.now);
                    for _ in 0..random % 4 {
                        tokio::task::yield_now().await;
                    }
                    done.fetch_add(1, SeqCst);
                };
                let patience = Duration::from_micros(random % 3_000);
                let _ = tokio::time::timeout(patience, work).await;
            }
        });
        if seed % 40 == 7 {
            // Some are cut off wherever they are.
            tasks.abort_all();
        }
    }
    while let Some(ended) = tasks.join_next().await {
        assert!(ended.is_ok() || ended.unwrap_err().is_cancelled());
    }
    assert!(done.load(SeqCst) > 0);
    assert_eq!(running.load(SeqCst), 0);
    assert_empty(&permits);
}

/// Counts itself while it lives.
struct Counted<'a> {
    running: &'a AtomicUsize,
    now: usize,
}

impl<'a> Counted<'a> {
    fn new(running: &'a AtomicUsize) -> Self {
        Self { running, now: running.fetch_add(1, SeqCst) + 1 }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, SeqCst);
    }
}

fn xorshift(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^ (random << 17)
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

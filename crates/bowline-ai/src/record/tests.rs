//! Who is charged with what.

use super::*;
use crate::wire::Timer;

const MS: Duration = Duration::from_millis(1);
const TIMED_OUT: Outcome = Outcome::Fault(FaultKind::Timeout(Timer::FirstContent));

fn target(provider: &str) -> TargetId {
    TargetId::new(provider, format!("{provider}-model"))
}

fn attempt(number: u32, provider: &str, outcome: Outcome, took: Duration) -> AttemptRecord {
    let new = AttemptRecord::new(number, target(provider), Reason::First, Duration::ZERO);
    AttemptRecord { outcome, took, ..new }
}

fn request(id: &str, attempts: Vec<AttemptRecord>) -> RequestRecord {
    let took = attempts.iter().map(|attempt| attempt.took).sum::<Duration>() + MS;
    RequestRecord {
        id: id.into(),
        surface: Surface::ChatCompletions,
        stream: false,
        requested: "chat".into(),
        key: None,
        session: None,
        client_retry: 0,
        parent: None,
        started_unix_ms: 0,
        queued: Duration::ZERO,
        first_content: None,
        took,
        outcome: attempts.last().map_or(Outcome::Cancelled, |attempt| attempt.outcome),
        status: 200,
        attempts,
    }
}

/// The incident: A times out after 1.5 s, B answers in a millisecond.
fn incident(records: &mut Records, id: &str) {
    let attempts =
        vec![attempt(1, "kimi", TIMED_OUT, 1_500 * MS), attempt(2, "glm", Outcome::Ok, MS)];
    attempts.iter().for_each(|attempt| records.on_attempt(attempt));
    records.on_request(request(id, attempts));
}

fn records() -> Records {
    Records::new(100, ["chat".into()])
}

#[test]
fn every_answer_is_charged_to_the_provider_that_gave_it() {
    let mut records = records();
    (0..100).for_each(|number| incident(&mut records, &number.to_string()));
    let charged: Vec<_> = records
        .figures()
        .attempts()
        .map(|one| {
            (one.target.provider().to_string(), one.outcome, one.took.count(), one.took.sum())
        })
        .collect();
    assert_eq!(
        charged,
        [
            ("glm".to_owned(), "ok", 100, 100 * MS),
            ("kimi".to_owned(), "timeout", 100, 150_000 * MS),
        ]
    );
    // The request's time is the client's, and bears both names.
    let requests: Vec<_> = records.figures().requests().collect();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (&*requests[0].requested, requests[0].served.clone()),
        ("chat", Some(target("glm")))
    );
    assert_eq!(requests[0].took.sum(), 100 * 1_502 * MS);
}

#[test]
fn a_request_knows_who_served_and_what_the_gateway_took() {
    let mut record = request(
        "r",
        vec![attempt(1, "kimi", TIMED_OUT, 30 * MS), attempt(2, "glm", Outcome::Ok, MS)],
    );
    assert_eq!((record.served(), record.fell_back()), (Some(&target("glm")), true));
    assert_eq!(record.own_time(), MS);
    record.queued = MS / 2;
    record.attempts[1].queued = MS / 4;
    assert_eq!(record.own_time(), MS / 4);
    // A plain answer that broke off never reached anybody; of a stream the client has the beginning.
    record.attempts[1].outcome = Outcome::Fault(FaultKind::Truncated);
    record.attempts[1].first_content = Some(MS);
    assert_eq!((record.served(), record.fell_back()), (None, false));
    record.stream = true;
    assert_eq!(record.served(), Some(&target("glm")));
    // Those before it were left alone.
    record.attempts.remove(0);
    assert!(!record.fell_back());
    record.attempts[0].reason = Reason::Skipped;
    assert!(record.fell_back());
    record.attempts.clear();
    assert_eq!((record.served(), record.fell_back()), (None, false));
}

#[test]
fn the_header_tells_every_attempt() {
    let attempts =
        [attempt(1, "kimi", TIMED_OUT, 75_000 * MS), attempt(2, "glm", Outcome::Ok, 812 * MS)];
    assert_eq!(attempts_header(&attempts), "kimi;timeout;75000ms, glm;ok;812ms");
    assert_eq!(attempts_header(&[]), "");
    assert_eq!(
        attempts_header(&[attempt(1, "a, b;\r\nc é", Outcome::Cancelled, MS)]),
        "abc;cancelled;1ms"
    );
}

#[test]
fn an_attempt_that_is_dropped_half_way_is_a_cancelled_one() {
    let new = AttemptRecord::new(1, target("kimi"), Reason::Retry, MS);
    assert_eq!((new.outcome, new.reason.name()), (Outcome::Cancelled, "retry"));
}

#[test]
fn the_last_requests_are_kept_and_found() {
    let mut records = Records::new(3, ["chat".into()]);
    let ids =
        |records: &Records| records.recent().map(|one| one.id.to_string()).collect::<Vec<_>>();
    for id in ["a", "b", "c", "d"] {
        records.on_request(request(id, vec![]));
    }
    assert_eq!(ids(&records), ["d", "c", "b"]);
    assert!(records.find("a").is_none());
    assert_eq!(&*records.find("c").unwrap().id, "c");
    records.reconfigure(1, ["chat".into()]);
    assert_eq!(ids(&records), ["d"]);
    records.reconfigure(0, ["chat".into()]);
    records.on_request(request("e", vec![]));
    assert_eq!(ids(&records), [""; 0]);
    assert_eq!(records.figures().requests().map(|one| one.took.count()).sum::<u64>(), 5);
}

#[test]
fn names_that_clients_make_up_are_no_labels() {
    let mut records = records();
    for number in 0..10 {
        let requested = format!("made up {number}").into();
        records.on_request(RequestRecord { requested, ..request("r", vec![]) });
    }
    let series: Vec<_> = records.figures().requests().collect();
    assert_eq!((series.len(), &*series[0].requested, series[0].took.count()), (1, "other", 10));
}

#[test]
fn series_are_bounded_and_nothing_goes_uncounted() {
    let mut records = records();
    let count = crate::limit::SERIES_MAX + 100;
    for number in 0..count {
        records.on_attempt(&attempt(1, &number.to_string(), Outcome::Ok, MS));
    }
    let series: Vec<_> = records.figures().attempts().collect();
    assert_eq!(series.len(), crate::limit::SERIES_MAX + 1);
    assert_eq!(series.iter().map(|one| one.took.count()).sum::<u64>(), count as u64);
    let other = series.iter().find(|one| &**one.target.provider() == "other").unwrap();
    assert_eq!(other.took.count(), 100);
}

#[test]
fn requests_add_up_over_outcomes_and_tokens_over_attempts() {
    let mut records = records();
    for outcome in [Outcome::Ok, Outcome::Cancelled] {
        let usage = Usage { input: 10, output: 3, cached: 2, reasoning: 1, ..Usage::default() };
        let first_content = Some(2 * MS);
        let attempt = AttemptRecord { usage, first_content, ..attempt(1, "kimi", outcome, 5 * MS) };
        records.on_attempt(&attempt);
        records.on_request(RequestRecord { stream: true, ..request("r", vec![attempt]) });
    }
    let figures = records.figures();
    assert_eq!(figures.requests().count(), 2);
    let seconds = figures.request_seconds();
    assert_eq!((seconds.len(), seconds[0].2.count(), seconds[0].2.sum()), (1, 2, 12 * MS));
    let tokens: Vec<_> = figures.tokens().map(|one| (one.kind, one.tokens)).collect();
    assert_eq!(
        tokens,
        [("input", 20), ("output", 6), ("cached", 4), ("written", 0), ("reasoning", 2)]
    );
    let first: Vec<_> = figures.first_content().collect();
    assert_eq!((first.len(), first[0].took.sum()), (1, 4 * MS));
}

#[test]
fn the_api_shows_a_request_with_its_attempts() {
    let mut failed = attempt(1, "kimi", TIMED_OUT, 75_000 * MS);
    (failed.status, failed.connect, failed.words) =
        (Some(200), Some(MS / 4), Some("silence".into()));
    let mut served = attempt(2, "glm", Outcome::Ok, 812 * MS);
    (served.reason, served.started) = (Reason::Fallback, 75_000 * MS);
    served.usage = Usage { input: 12, output: 7, ..Usage::default() };
    served.finish = Some(FinishReason::Stop);
    let mut request = request("req-1", vec![failed, served]);
    (request.key, request.session) = (Some("ann".into()), Some("s1".into()));
    request.started_unix_ms = 1_795_000_000_000;
    insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
}

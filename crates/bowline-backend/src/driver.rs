//! The one loop of an app: takes what is next from the queue, makes requests, hands back what came
//! of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowline_proto::Time;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use tokio::{
    task::{self, JoinSet},
    time::{sleep_until, timeout_at},
};

use crate::{
    Options,
    app::{Answer, App, Asked, Job, Next, Site},
    limit,
    queue::JobId,
    verdict::{Fault, Verdict},
    wire::{ConnectAnswer, EventAnswer},
};

/// Serves an app until it is closed and nothing is left to do.
pub(crate) async fn drive(app: Arc<App>) {
    let mut requests: JoinSet<(Verdict<Answer>, Duration)> = JoinSet::new();
    let mut under_way: HashMap<task::Id, (JobId, Box<Job>)> = HashMap::new();
    let now = app.clock.now();
    let mut alarm = now + limit::SWEEP;
    let sleep = sleep_until(app.clock.instant(alarm));
    tokio::pin!(sleep);
    loop {
        let now = app.clock.now();
        let Some((all, timeout)) = app.choose(now) else { return };
        for next in all {
            match next {
                Next::Send { job, body, id, deadline } => {
                    let request = Asking {
                        app: Arc::clone(&app),
                        message_id: app.message_id(&job),
                        asked: job.asked(),
                        namespace: job.namespace.to_string(),
                        body: body.into(),
                        deadline,
                    };
                    let task = requests.spawn(request.ask());
                    under_way.insert(task.id(), (id, job));
                }
                Next::Fail { job, why } => app.expire(job, why),
            }
        }
        // An alarm that is early does no harm; one that is late does.
        let due = timeout.unwrap_or(now + limit::SWEEP).min(now + limit::SWEEP);
        if due < alarm || alarm <= now {
            alarm = due;
            sleep.as_mut().reset(app.clock.instant(alarm));
        }
        tokio::select! {
            done = requests.join_next_with_id(), if !requests.is_empty() => {
                let mut done = done;
                while let Some(one) = done {
                    let (task, outcome) = match one {
                        Ok((task, outcome)) => (task, Some(outcome)),
                        Err(error) => (error.id(), None),
                    };
                    if let Some((id, job)) = under_way.remove(&task) {
                        match outcome {
                            Some((verdict, took)) => app.settle(id, job, verdict, took),
                            None => app.give_up(id, job),
                        }
                    }
                    done = requests.try_join_next_with_id();
                }
            }
            () = app.wake.notified() => {}
            () = sleep.as_mut() => app.site().pool.sweep(app.clock.now()),
        }
    }
}

/// One request, sent once.
struct Asking {
    app: Arc<App>,
    message_id: String,
    asked: Asked,
    namespace: String,
    body: Bytes,
    deadline: Time,
}

impl Asking {
    async fn ask(self) -> (Verdict<Answer>, Duration) {
        let app = &*self.app;
        let Site { options, pool } = app.site();
        let began = app.clock.now();
        let request = match self.request(&options) {
            Ok(request) => request,
            Err(error) => {
                let why = format!("cannot be asked: {error}");
                let verdict = Verdict::Failed { fault: Fault::Unavailable, why, doubt: false };
                return (verdict, Duration::ZERO);
            }
        };
        let sending = pool.send(began, request);
        let outcome = timeout_at(app.clock.instant(self.deadline), sending).await;
        let now = app.clock.now();
        let verdict = match outcome {
            Err(_) => {
                let waited = humantime_ms(now.since(began));
                let why = format!("did not answer within {waited}");
                Verdict::Failed { fault: Fault::Timeout, why, doubt: true }
            }
            Ok(sent) => {
                let answered = sent.map(|(answer, kept)| {
                    pool.keep(now, kept);
                    answer
                });
                Verdict::of(answered, self.asked, |body| self.parse(body))
            }
        };
        (verdict, now.since(began))
    }

    fn request(&self, options: &Options) -> Result<Request<Full<Bytes>>, http::Error> {
        let timestamp = self.app.clock.unix_seconds();
        request(options, &self.message_id, timestamp, self.body.clone())
    }

    fn parse(&self, body: &[u8]) -> Result<Answer, crate::wire::Mistake> {
        Ok(match self.asked {
            Asked::Connect => Answer::Connect(ConnectAnswer::parse(body)?),
            Asked::Event => Answer::Event(EventAnswer::parse(body, &self.namespace)?),
            Asked::Nothing => Answer::Nothing,
        })
    }
}

/// Makes a request to an app. `timestamp` is in seconds since 1970.
pub(crate) fn request(
    options: &Options,
    message_id: &str,
    timestamp: u64,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut builder = Request::builder()
        .method(Method::POST)
        .uri(options.url.origin().path())
        .header(header::HOST, options.url.origin().authority())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::ACCEPT, HeaderValue::from_static("application/json"))
        .header(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("bowline/", env!("CARGO_PKG_VERSION"))),
        )
        .header("webhook-id", message_id)
        .header("webhook-timestamp", timestamp);
    if let Some(secret) = &options.secret {
        let signature = secret.sign(message_id, timestamp, &body);
        builder = builder.header("webhook-signature", signature);
    }
    builder.body(Full::new(body))
}

/// A time for people.
fn humantime_ms(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

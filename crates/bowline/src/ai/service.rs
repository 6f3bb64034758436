//! `/v1` on the public listeners.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use bowline_ai::{
    call::{self, Answer, Gateway, ModelConfig, Streamed, Whole},
    keys::ClientKey,
    memory::Share,
    permits::Priority,
    wire::{Failure, Surface, error_body},
};
use bowline_names::Header;
use bowline_net::{BodySender, HttpAnswer, HttpBody, HttpCall, HttpResponse, HttpService};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Refusal, Shared,
    door::{self, Target},
    idempotency::{self, Begun, Head, Next, Reader, Refused},
    limit, request_id,
};

/// Answers `/v1`, if there is a model.
pub(crate) struct Service(Arc<Shared>);

/// A request that was let in.
struct Call {
    shared: Arc<Shared>,
    gateway: Gateway,
    id: Arc<str>,
    target: Target,
    /// Whose it is; `None` where no key is asked for.
    key: Option<ClientKey>,
    body_bytes_max: usize,
    /// Its memory.
    share: Share,
    /// What names it, so that it is not carried out twice.
    idempotency_key: Option<String>,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn judge(
        &self,
        id: Arc<str>,
        client: IpAddr,
        head: &Parts,
    ) -> Result<Call, (Refusal, Box<Failure>)> {
        let shared = &self.0;
        let terms = shared.terms();
        let nothing = || {
            let words = "there is no AI gateway here any more".to_owned();
            (Refusal::NotFound, door::refusal(StatusCode::NOT_FOUND, "not_found", words))
        };
        let gateway = shared.gateway().filter(|_| terms.on).ok_or_else(nothing)?;
        let key = identify(&gateway, client, head, terms.listens_to_others)?;
        let target = door::target(&head.method, head.uri.path()).map_err(|failure| {
            let method = failure.status == StatusCode::METHOD_NOT_ALLOWED;
            (if method { Refusal::Method } else { Refusal::NotFound }, failure)
        })?;
        let asks = matches!(target, Target::Ask(_)) && shared.idempotency.is_on();
        let idempotency_key = if asks { door::idempotency_key(&head.headers) } else { Ok(None) };
        let idempotency_key =
            idempotency_key.map_err(|failure| (Refusal::IdempotencyKey, failure))?;
        let most = match target {
            Target::Ask(_) => terms.request_bytes,
            Target::Models | Target::Model(_) => 0,
        };
        let said = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let bytes: usize = said.and_then(|length| length.parse().ok()).unwrap_or(0);
        if bytes > most && most > 0 {
            let words = format!("the request has {bytes} bytes; at most {most} are taken");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err((Refusal::TooLarge, door::refusal(status, "request_too_large", words)));
        }
        // It grows with what arrives: nobody takes the room of others by announcing a body.
        let share = shared.bodies.take(0).ok_or_else(|| (Refusal::Memory, no_room()))?;
        let shared = Arc::clone(shared);
        let body_bytes_max = most;
        Ok(Call { shared, gateway, id, target, key, body_bytes_max, share, idempotency_key })
    }
}

impl HttpService for Service {
    fn serves(&self, path: &str) -> bool {
        door::is_below(path) && self.0.terms().on
    }

    fn admit(&self, client: IpAddr, head: &Parts) -> Result<Box<dyn HttpCall>, Box<HttpResponse>> {
        let id = request_id();
        match self.judge(Arc::clone(&id), client, head) {
            Ok(call) => Ok(Box::new(call)),
            Err((why, failure)) => {
                self.0.on_refused(why);
                tracing::debug!(request = %id, %client, reason = why.name(), "an AI request is refused");
                Err(Box::new(refused(door::surface_of(head.uri.path()), *failure, &id)))
            }
        }
    }
}

impl HttpCall for Call {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Box<HttpResponse>> {
        if self.share.resize(bytes) {
            return Ok(());
        }
        self.shared.on_refused(Refusal::Memory);
        let surface = match self.target {
            Target::Ask(surface) => surface,
            Target::Models | Target::Model(_) => Surface::ChatCompletions,
        };
        Err(Box::new(refused(surface, *no_room(), &self.id)))
    }

    fn run(self: Box<Self>, request: Request<Bytes>) -> HttpAnswer {
        let (id, surface) = match &self.target {
            Target::Ask(surface) => (Arc::clone(&self.id), *surface),
            Target::Models | Target::Model(_) => {
                let answer = self.models(door::surface_of(request.uri().path()));
                return Box::pin(std::future::ready(answer));
            }
        };
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        shared.spawn(self.ask(surface, request, reply));
        // Dropped, it lets the task know that its client has left.
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                let words = "the gateway has given this request up".to_owned();
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                refused(surface, *door::refusal(status, "internal_error", words), &id)
            })
        })
    }
}

impl Call {
    /// Answers a request, on the threads of the gateway, for as long as somebody waits for it.
    async fn ask(
        self: Box<Self>,
        surface: Surface,
        request: Request<Bytes>,
        mut reply: oneshot::Sender<HttpResponse>,
    ) {
        let Self { shared, gateway, id, key, share, idempotency_key, .. } = *self;
        let stall = shared.terms().client_stall;
        let (head, body) = request.into_parts();
        let mut request = call::Request::new(id, surface, body);
        request.read_headers(&head.headers);
        request.session = session(&head.headers, key.as_ref());
        request.priority = priority(&head.headers, key.as_ref());
        request.memory = Some(share);
        let named = idempotency_key.map(|said| idempotency::key_of(key.as_ref(), &said));
        request.key = key.map(|key| key.name);
        if let Some(named) = named {
            return shared.ask_once(named, gateway, request, reply).await;
        }
        let answer = tokio::select! {
            biased;
            answer = Box::pin(gateway.run(request)) => answer,
            () = reply.closed() => return,
        };
        match answer {
            Answer::Whole(Whole { status, headers, body }) => {
                let mut response = Response::new(HttpBody::from(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                // A client that has left meanwhile is told nothing.
                let _ = reply.send(response);
            }
            Answer::Stream(mut stream) => {
                let (sender, body) = HttpBody::stream(limit::PIECES_MAX);
                let mut response = Response::new(body);
                response.headers_mut().clone_from(stream.headers());
                // It is there already, and goes into one write with the head; a large one would not find room while
                // nobody reads.
                let mut first = stream.next().await;
                if let Some(small) = first.take_if(|first| first.len() <= limit::FIRST_BYTES_MAX) {
                    let _ = sender.send(small).await;
                }
                if reply.send(response).is_ok() {
                    // Where the shard shares this core, the first word is out before this thread reads on.
                    thread::yield_now();
                    relay(first, stream, sender, stall).await;
                }
            }
        }
    }

    /// The models that this client may ask for, or one of them.
    fn models(&self, surface: Surface) -> HttpResponse {
        let allowed = self.key.as_ref().and_then(|key| key.limits.models.as_ref());
        let is_allowed = |model: &ModelConfig| {
            allowed.is_none_or(|allowed| allowed.iter().any(|name| **name == *model.name))
        };
        let models = self.gateway.models().into_iter().filter(is_allowed);
        let mut models = models.map(|model| model.name);
        let answer = match &self.target {
            Target::Model(wanted) => models.find(|name| **name == **wanted).map(|name| view(&name)),
            Target::Models | Target::Ask(_) => {
                let all: Vec<Value> = models.map(|name| view(&name)).collect();
                let id = |one: Option<&Value>| one.map(|one| one["id"].clone());
                let (first, last) = (id(all.first()), id(all.last()));
                Some(json!({
                    "object": "list", "data": all,
                    "has_more": false, "first_id": first, "last_id": last,
                }))
            }
        };
        let Some(answer) = answer else {
            let words = "there is no model of this name".to_owned();
            let failure = door::refusal(StatusCode::NOT_FOUND, "model_not_found", words);
            return refused(surface, *failure, &self.id);
        };
        let mut response = Response::new(HttpBody::from(Bytes::from(answer.to_string())));
        label(response.headers_mut(), &self.id);
        response
    }
}

impl Shared {
    /// Answers a request that has a key: by asking a model, or by what was asked for with this key already.
    async fn ask_once(
        &self,
        key: idempotency::Hash,
        gateway: Gateway,
        request: call::Request,
        mut reply: oneshot::Sender<HttpResponse>,
    ) {
        let (id, surface) = (Arc::clone(&request.id), request.surface);
        let (mut reader, known) =
            match self.idempotency.begin(key, idempotency::request_of(&request)) {
                Begun::New(place, reader) => {
                    self.spawn(place.fill(gateway, request));
                    (reader, false)
                }
                Begun::Known(reader) => {
                    // Its body is not needed, nor what memory it has.
                    drop(request);
                    (reader, true)
                }
                Begun::Refused(why) => {
                    let (reason, failure) = refused_key(why);
                    self.on_refused(reason);
                    let mut response = refused(surface, *failure, &id);
                    if reason == Refusal::IdempotencyKey {
                        let never = HeaderValue::from_static("false");
                        response.headers_mut().insert("x-should-retry", never);
                    }
                    let _ = reply.send(response);
                    return;
                }
            };
        let head = tokio::select! {
            biased;
            head = reader.head() => head,
            () = reply.closed() => return,
        };
        // Without a head it was given up; who asks is told so when `reply` is gone.
        let Some(Head { status, mut headers, streams }) = head else { return };
        if known {
            headers.insert(Header::Replayed.name(), HeaderValue::from_static("true"));
        }
        let (body, sender) = if streams {
            let (sender, body) = HttpBody::stream(limit::PIECES_MAX);
            (body, Some(sender))
        } else {
            let Next::Piece(body) = reader.next().await else { return };
            (HttpBody::from(body), None)
        };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        if reply.send(response).is_ok()
            && let Some(sender) = sender
        {
            read(reader, sender, self.terms().client_stall).await;
        }
    }
}

/// Sends what is written of a stream, until it ends or its client leaves.
async fn read(mut reader: Reader, sender: BodySender, stall: Duration) {
    loop {
        let next = tokio::select! {
            biased;
            () = sender.left() => return,
            next = reader.next() => next,
        };
        match next {
            Next::Piece(piece) => {
                if sender.send_within(piece, stall).await.is_err() {
                    return;
                }
            }
            Next::End => {
                // Whoever has left misses nothing.
                let _ = sender.finish().await;
                return;
            }
            Next::Broken => return,
        }
    }
}

/// Why a request with a key is refused, for metrics and for its client.
fn refused_key(why: Refused) -> (Refusal, Box<Failure>) {
    let (reason, status, code, words) = match why {
        Refused::Other => (
            Refusal::IdempotencyKey,
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this `Idempotency-Key` came with another request before; use a new one for each request",
        ),
        Refused::TooLong => (
            Refusal::IdempotencyKey,
            StatusCode::CONFLICT,
            "idempotency_answer_too_large",
            "this request was made already, and its answer is longer than what is kept; \
             use a new `Idempotency-Key` to make it again",
        ),
        Refused::Full => (
            Refusal::Memory,
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests with an `Idempotency-Key` are under way; try again in a moment",
        ),
    };
    let mut failure = door::refusal(status, code, words.to_owned());
    failure.retry_after = (reason == Refusal::Memory).then_some(limit::MEMORY_PAUSE);
    (reason, failure)
}

/// Sends a stream as it comes, until it ends or its client leaves. One that reads nothing for so long has left.
async fn relay(
    mut first: Option<Bytes>,
    mut stream: Streamed,
    sender: BodySender,
    stall: Duration,
) {
    loop {
        let piece = match first.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                biased;
                () = sender.left() => return,
                piece = stream.next() => piece,
            },
        };
        let Some(piece) = piece else {
            // Whoever has left misses nothing.
            let _ = sender.finish().await;
            return;
        };
        tokio::select! {
            biased;
            sent = sender.send_within(piece, stall) => if sent.is_err() {
                return;
            },
            // Whoever reads so slowly has had all its time; the body breaks off.
            () = stream.expired() => return,
        }
    }
}

/// Whose request it is.
fn identify(
    gateway: &Gateway,
    client: IpAddr,
    head: &Parts,
    listens_to_others: bool,
) -> Result<Option<ClientKey>, (Refusal, Box<Failure>)> {
    if !gateway.has_keys() {
        return match door::without_key(client, head, listens_to_others) {
            Ok(()) => Ok(None),
            Err(failure) => Err((Refusal::KeysRequired, failure)),
        };
    }
    let unknown =
        |words: &str| door::refusal(StatusCode::UNAUTHORIZED, "invalid_api_key", words.to_owned());
    let Some(shown) = door::key_in(&head.headers) else {
        let words = "no key is shown: send `Authorization: Bearer KEY` or `x-api-key: KEY`";
        return Err((Refusal::KeyMissing, unknown(words)));
    };
    match gateway.identify(shown) {
        Some(key) => Ok(Some(key)),
        None => Err((Refusal::KeyUnknown, unknown("the key is not known here"))),
    }
}

/// The session that a client says its request belongs to; those of different keys are never the same.
fn session(headers: &HeaderMap, key: Option<&ClientKey>) -> Option<Arc<str>> {
    let said = headers.get(Header::Session.name())?.to_str().ok()?;
    let said = said.trim();
    let fits = !said.is_empty() && said.len() <= limit::NAME_BYTES_MAX;
    let owner = key.map_or("", |key| &key.name);
    fits.then(|| format!("{owner}/{said}").into())
}

/// Who goes first: what the key has, or less if the client says so.
fn priority(headers: &HeaderMap, key: Option<&ClientKey>) -> Priority {
    let said = headers.get(Header::Priority.name()).and_then(|value| value.to_str().ok());
    let said = said.and_then(|said| match said.trim() {
        "high" => Some(Priority::High),
        "normal" => Some(Priority::Normal),
        "low" => Some(Priority::Low),
        _ => None,
    });
    match (said, key) {
        (Some(said), Some(key)) => said.min(key.priority),
        (Some(said), None) => said,
        (None, key) => key.map(|key| key.priority).unwrap_or_default(),
    }
}

/// A model as OpenAI's and Anthropic's SDKs both read it.
fn view(name: &str) -> Value {
    json!({
        "id": name, "object": "model", "created": 0, "owned_by": "bowline",
        "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z",
    })
}

/// There is no memory for a request.
fn no_room() -> Box<Failure> {
    let words = "too many requests are being answered; try again in a moment".to_owned();
    let mut failure = door::refusal(StatusCode::SERVICE_UNAVAILABLE, "overloaded", words);
    failure.retry_after = Some(limit::MEMORY_PAUSE);
    failure
}

/// The answer to a request that nobody was asked for.
fn refused(surface: Surface, mut failure: Failure, id: &Arc<str>) -> HttpResponse {
    failure.request_id = Some(id.to_string());
    let mut response = Response::new(HttpBody::from(error_body(surface, &failure)));
    *response.status_mut() = failure.status_for(surface);
    let headers = response.headers_mut();
    label(headers, id);
    if let Some(after) = failure.retry_after {
        headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}

fn label(headers: &mut HeaderMap, id: &str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", id);
    }
}

#[cfg(test)]
mod tests {
    use bowline_ai::keys::Digest;

    use super::*;

    fn key(priority: Priority) -> ClientKey {
        let (digest, limits) = (Digest([0; 32]), Default::default());
        ClientKey { name: "app".into(), digest, priority, limits }
    }

    fn said(name: &'static str, value: &'static str) -> HeaderMap {
        [(name.parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn nobody_goes_before_what_the_key_has() {
        let of = |text, key: Option<Priority>| {
            priority(&said("bowline-priority", text), key.map(self::key).as_ref())
        };
        assert_eq!(of("high", Some(Priority::Low)), Priority::Low);
        assert_eq!(of("low", Some(Priority::High)), Priority::Low);
        assert_eq!(of("at once", Some(Priority::High)), Priority::High);
        assert_eq!(of("", None), Priority::Normal);
        assert_eq!(of("high", None), Priority::High);
    }

    #[test]
    fn sessions_of_different_keys_are_never_the_same() {
        let headers = said("bowline-session", "one");
        let of = |key: Option<&ClientKey>| session(&headers, key);
        assert_eq!(of(None).as_deref(), Some("/one"));
        assert_eq!(of(Some(&key(Priority::Normal))).as_deref(), Some("app/one"));
        assert_eq!(session(&HeaderMap::new(), None), None);
        let long: &'static str = "x".repeat(200).leak();
        assert_eq!(session(&said("bowline-session", long), None), None);
    }
}

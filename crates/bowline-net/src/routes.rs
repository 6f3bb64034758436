//! From a request's head to its answer: which path, who may, which shard.

use std::{
    borrow::Cow,
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use bowline_proto::{
    engineio::{
        self, PollStyle, Query, RequestConfig, RequestError, RequestHead, Route, SessionRequest,
        TransportName, Version,
    },
    limit::LimitKey,
    wall::{self, Handshake, PollBody, PostBody},
    websocket::handshake::{HandshakeError, Upgrade, check_request},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER,
        SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, SET_COOKIE, UPGRADE, USER_AGENT, X_XSS_PROTECTION,
    },
    uri::Authority,
};
use hyper::body::{Body, Incoming};
use tokio::sync::oneshot;

use crate::{
    admission::{AddressSeat, Door, Standing},
    builder::Engine,
    connection::{Connection, Ticket},
    cors,
    exchange::{Exchange, Reply},
    health::{self, Check},
    limit,
    mailbox::{Entry, Message},
    mount::{HttpBody, HttpResponse, HttpService},
    probe,
    process::Process,
    refusal::Refusal,
};

type Answer = HttpResponse;

/// Marks the answer of a session that goes on.
#[derive(Debug, Clone, Copy)]
struct SessionLives;

/// Answers one request.
pub(crate) async fn respond(connection: &Rc<Connection>, request: Request<Incoming>) -> Answer {
    let process = connection.local.process();
    let mut answer = route(connection, request).await;
    if let Some(why) = answer.extensions().get::<Refusal>() {
        process.refusals.on(*why);
        tracing::debug!(peer = %connection.peer, reason = why.name(), "a request is refused");
    }
    let goes_on = answer.status() == StatusCode::SWITCHING_PROTOCOLS
        || answer.extensions().get::<SessionLives>().is_some();
    // In a drain the client's next request goes to whoever listens then. As long as its session
    // lives it can come here only, and on a connection that is open already.
    let leaves = process.is_draining() && !goes_on;
    // A place for those who are refused is for one answer, even if that is the health.
    if leaves || connection.standing != Standing::Served {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn route(connection: &Rc<Connection>, request: Request<Incoming>) -> Answer {
    let process = connection.local.process();
    let path = request.uri().path();
    // Whoever is refused may ask all the same how the server is.
    if let Some(check) = Check::of(path) {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD, please\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let errors = is_operator(connection, request.headers());
        return health::answer(process, check, errors).await.map(HttpBody::from);
    }
    match connection.standing {
        Standing::Served => {}
        Standing::Full => return refused(StatusCode::SERVICE_UNAVAILABLE, "connections"),
        Standing::AddressFull => return address_is_full(),
    }
    if connection.door == Door::Admin {
        return admin(connection, request).await;
    }
    if process.settings().engine.is_below(path) {
        return engine(connection, request).await;
    }
    if let Some(service) = &process.http_service
        && service.serves(path)
    {
        return mounted(connection, service.as_ref(), request).await;
    }
    match (path, process.settings().page.clone()) {
        ("/", Some(page)) => of_kind("text/html; charset=utf-8", page),
        _ => not_found(),
    }
}

/// Whether texts that are for operators may be in an answer without anybody having shown a token:
/// who asks must be on this machine, and not be a page in a browser that was led here by a name.
fn is_operator(connection: &Connection, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let here = |host: &str| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    connection.door == Door::Admin
        && connection.peer.ip().to_canonical().is_loopback()
        && host.parse::<Authority>().is_ok_and(|host| here(host.host()))
}

/// Hands an operator's request to the application.
async fn admin(connection: &Rc<Connection>, request: Request<Incoming>) -> Answer {
    let Some(service) = &connection.local.process().admin_service else {
        return not_found();
    };
    let (head, body) = request.into_parts();
    let body = match read_whole(connection, body, limit::ADMIN_BODY_BYTES, |_| Ok(())).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    service.call(connection.peer, Request::from_parts(head, body)).await
}

/// Reads a body for an application.
///
/// # Errors
///
/// The answer to one that is broken, too large, or does not arrive.
async fn read_whole(
    connection: &Connection,
    body: Incoming,
    bytes_max: usize,
    make_room: impl FnMut(usize) -> Result<(), Box<Answer>>,
) -> Result<Bytes, Answer> {
    match tokio::time::timeout(limit::BODY_TIMEOUT, read_body(body, bytes_max, make_room)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::NoRoom(mut answer))) => {
            connection.unread_body.set(true);
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Err(*answer)
        }
        Ok(Err(BodyError::Broken)) => Err(plain(StatusCode::BAD_REQUEST, "broken body\n")),
        Ok(Err(BodyError::TooBig)) => {
            connection.unread_body.set(true);
            let words = format!("the body is over {bytes_max} bytes\n");
            let mut answer = of_kind("text/plain; charset=utf-8", words.into());
            *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Err(answer)
        }
        Err(_) => {
            connection.unread_body.set(true);
            Err(plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive\n"))
        }
    }
}

/// Hands a client's request to the application.
async fn mounted(
    connection: &Rc<Connection>,
    service: &dyn HttpService,
    request: Request<Incoming>,
) -> Answer {
    let client = client_of(connection, &request);
    let (head, body) = request.into_parts();
    let mut call = match service.admit(client, &head) {
        Ok(call) => call,
        Err(mut answer) => {
            if !body.is_end_stream() {
                connection.unread_body.set(true);
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return *answer;
        }
    };
    let bytes_max = call.body_bytes_max();
    match read_whole(connection, body, bytes_max, |bytes| call.make_room(bytes)).await {
        Ok(body) => call.run(Request::from_parts(head, body)).await,
        Err(answer) => answer,
    }
}

/// Answers a request to the engine path.
async fn engine(connection: &Rc<Connection>, request: Request<Incoming>) -> Answer {
    let settings = connection.local.process().settings();
    if settings.engine.cors_allowed_origins.is_empty() {
        drop(settings);
        return engine_request(connection, request).await;
    }
    let settings = arc_swap::Guard::into_inner(settings);
    let origins = &*settings.engine.cors_allowed_origins;
    if request.method() == Method::OPTIONS {
        return cors::preflight(origins, request.headers());
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let mut answer = engine_request(connection, request).await;
    cors::label(origins, origin.as_ref(), answer.headers_mut());
    answer
}

async fn engine_request(connection: &Rc<Connection>, request: Request<Incoming>) -> Answer {
    let headers = request.headers();
    let upgrade = asks_for_upgrade(headers);
    let head = RequestHead {
        method: request.method().as_str(),
        query: request.uri().query().unwrap_or_default(),
        origin: headers.get(ORIGIN).map(HeaderValue::as_bytes),
        upgrade,
    };
    let settings = connection.local.process().settings();
    let verified = verify(&head, &settings.engine);
    let former = !request.uri().path().starts_with(&*settings.engine.path);
    drop(settings);
    match verified {
        // There only sessions are found that opened there.
        Ok(Route::Open { .. } | Route::Discard) if former => not_found(),
        Err(error) if upgrade => upgrade_refused(error),
        Err(error) => {
            // Read once more, which costs those who are served nothing.
            let asked_for = Query::parse(head.query).transport;
            stripped_or_refused(error, request.method(), asked_for)
        }
        Ok(Route::Discard) => match check_request(head.method, joined(headers), false) {
            Ok(accepted) => switch(connection, accepted, 0, None),
            Err(error) => handshake_refused(error),
        },
        Ok(Route::Open { transport, version, style }) => {
            open(connection, &request, transport, version, style).await
        }
        Ok(Route::Session(session)) => {
            let owner = session.sid.shard();
            if usize::from(owner) >= connection.local.process().shards.len() {
                let error = RequestError::UnknownSid;
                return if upgrade { upgrade_refused(error) } else { request_refused(error) };
            }
            if upgrade {
                attach(connection, &request, session).await
            } else {
                poll(connection, request, session).await
            }
        }
    }
}

/// Checks a request by its head. A transport that was switched off is still there for the sessions
/// that may be on it.
fn verify(head: &RequestHead<'_>, engine: &Engine) -> Result<Route, RequestError> {
    let config = RequestConfig {
        polling: engine.served_polling,
        websocket: engine.served_websocket,
        allow_eio3: engine.allow_eio3,
        allowed_origins: &engine.cors_allowed_origins,
    };
    let route = engineio::verify(head, &config)?;
    match &route {
        Route::Open { transport: TransportName::Polling, .. } if !engine.polling => {
            Err(RequestError::UnknownTransport)
        }
        Route::Open { transport: TransportName::WebSocket, .. } if !engine.websocket => {
            Err(RequestError::UnknownTransport)
        }
        _ => Ok(route),
    }
}

/// Opens a session.
async fn open(
    connection: &Rc<Connection>,
    request: &Request<Incoming>,
    transport: TransportName,
    version: Version,
    style: PollStyle,
) -> Answer {
    let local = &connection.local;
    let process = local.process();
    if process.is_draining() {
        return retry_later(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n");
    }
    let now = process.clock.now();
    let client = client_of(connection, request);
    if let Err(limit) = process.admission.take_handshake(now, client) {
        process.counters.on_refused(limit, now);
        let words = match limit {
            LimitKey::HandshakesPerSecondPerAddress => "limits.handshakes-per-second-per-address\n",
            _ => "limits.handshakes-per-second\n",
        };
        return retry_later(StatusCode::TOO_MANY_REQUESTS, words);
    }
    let handshake = Arc::new(Handshake {
        version,
        poll_style: style,
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect(),
        address: Some(client),
        own: probe::is_own(request.headers()),
    });
    match transport {
        TransportName::WebSocket => {
            let headers = request.headers();
            let deflate = process.settings().engine.compression;
            match check_request(request.method().as_str(), joined(headers), deflate) {
                Ok(_) if !claim(connection, request) => address_is_full(),
                Ok(accepted) => {
                    switch(connection, accepted, local.shard(), Some(Entry::Open(handshake)))
                }
                Err(error) => handshake_refused(error),
            }
        }
        TransportName::Polling => {
            let seat = match proxied(connection, client) {
                true => AddressSeat::take(process, client),
                false => Ok(None),
            };
            let seat = match seat {
                Ok(seat) => seat,
                Err(limit) => {
                    process.counters.on_refused(limit, now);
                    return address_is_full();
                }
            };
            let (exchange, reply) = Exchange::new(local, local.shard());
            exchange.tell(Message::Open { exchange: exchange.id(), handshake, seat, reply });
            let reply = exchange.await;
            polled(&process.settings().engine, request.headers(), reply)
        }
    }
}

/// The address that a request is for: the peer's, or what a trusted proxy says.
fn client_of(connection: &Connection, request: &Request<Incoming>) -> IpAddr {
    let settings = connection.local.process().settings();
    settings.proxies.client_of(connection.peer.ip(), request.headers())
}

/// Whether a request is for somebody behind a trusted proxy: that connection counts for nobody, and
/// the session does instead.
fn proxied(connection: &Connection, client: IpAddr) -> bool {
    let settings = connection.local.process().settings();
    settings.proxies.trusts(connection.peer.ip()) && !settings.proxies.trusts(client)
}

/// Counts a connection that is about to be a WebSocket under the address it is for. Whether that
/// has room; a proxy itself always has.
fn claim(connection: &Connection, request: &Request<Incoming>) -> bool {
    let client = client_of(connection, request);
    if connection.local.process().settings().proxies.trusts(client) {
        return true;
    }
    connection.permit.borrow_mut().as_mut().is_none_or(|permit| permit.claim(client))
}

/// Lets a WebSocket through to the session it names.
async fn attach(
    connection: &Rc<Connection>,
    request: &Request<Incoming>,
    session: SessionRequest,
) -> Answer {
    let process = connection.local.process();
    let owner = session.sid.shard();
    if let Err(error) = session.verify(find(process, session).await) {
        return upgrade_refused(error);
    }
    let deflate = process.settings().engine.compression;
    // Behind a proxy its session is counted already.
    let counted = proxied(connection, client_of(connection, request));
    match check_request(request.method().as_str(), joined(request.headers()), deflate) {
        Ok(_) if !counted && !claim(connection, request) => address_is_full(),
        Ok(accepted) => {
            // With another transport than `websocket` there is nothing to upgrade to.
            let entry = (session.transport == TransportName::WebSocket)
                .then_some(Entry::Attach(session.sid));
            switch(connection, accepted, owner, entry)
        }
        Err(error) => handshake_refused(error),
    }
}

/// Asks the owner of a session what serves it.
async fn find(process: &Process, session: SessionRequest) -> Option<(TransportName, Version)> {
    let (reply, answer) = oneshot::channel();
    let owner = &process.shards[usize::from(session.sid.shard())];
    owner.mailbox.push(Message::Find { session: session.sid, reply });
    answer.await.ok().flatten()
}

/// One polling request of a session.
async fn poll(
    connection: &Rc<Connection>,
    request: Request<Incoming>,
    session: SessionRequest,
) -> Answer {
    let local = &connection.local;
    let process = local.process();
    let owner = session.sid.shard();
    let (head, body) = request.into_parts();
    let ours = session.transport == TransportName::Polling
        && (head.method == Method::GET || head.method == Method::POST);
    if !ours {
        return match session.verify(find(process, session).await) {
            Err(error) => stripped_or_refused(error, &head.method, Some(session.transport)),
            Ok(()) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        };
    }
    let (exchange, reply) = Exchange::new(local, owner);
    if head.method == Method::GET {
        exchange.tell(Message::Get { exchange: exchange.id(), session, reply });
        let reply = exchange.await;
        return polled(&process.settings().engine, &head.headers, reply);
    }
    let binary = head.headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/octet-stream");
    let (reply, read) =
        post(exchange, reply, process, body, |exchange, body, reply| Message::Post {
            exchange,
            session,
            body: match body {
                Arrived::Begun => PostBody::Begun,
                Arrived::TooBig => PostBody::TooBig,
                Arrived::Whole(body) => PostBody::Whole { body, binary },
            },
            reply,
        })
        .await;
    if !read {
        connection.unread_body.set(true);
    }
    let mut answer = polled(&process.settings().engine, &head.headers, reply);
    if !read {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// How much of a body is there.
enum Arrived {
    Begun,
    TooBig,
    Whole(Bytes),
}

/// Takes a POST to its owner while its body arrives. Also says whether the body was read to its
/// end.
async fn post(
    exchange: Exchange,
    reply: oneshot::Sender<Reply>,
    process: &Process,
    body: Incoming,
    message: impl Fn(bowline_proto::ExchangeId, Arrived, Option<oneshot::Sender<Reply>>) -> Message,
) -> (Reply, bool) {
    let id = exchange.id();
    let mut exchange = pin!(exchange);
    let mut reply = Some(reply);
    let mut body = pin!(tokio::time::timeout(
        limit::BODY_TIMEOUT,
        read_body(body, process.settings().engine.max_body_bytes, |_| Ok::<_, Infallible>(()))
    ));
    // Most bodies have come with their head: then the shard hears of them once.
    let mut arrived = at_once(body.as_mut()).await;
    if arrived.is_none() {
        exchange.tell(message(id, Arrived::Begun, reply.take()));
        let early = poll_fn(|cx| {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            body.as_mut().poll(cx).map(|it| {
                arrived = Some(it);
                None
            })
        })
        .await;
        if let Some(response) = early {
            return (response, false);
        }
    }
    match arrived {
        Some(Ok(Ok(body))) => {
            exchange.tell(message(id, Arrived::Whole(body), reply));
            (exchange.await, true)
        }
        Some(Ok(Err(BodyError::TooBig))) => {
            exchange.tell(message(id, Arrived::TooBig, reply));
            (exchange.await, false)
        }
        // The exchange is dropped unanswered: the shard hears that the request was aborted.
        Some(Ok(Err(BodyError::NoRoom(never)))) => match never {},
        Some(Ok(Err(BodyError::Broken))) => (Reply::Last(wall::Response::Status(400)), false),
        Some(Err(_)) | None => (Reply::Last(wall::Response::Status(408)), false),
    }
}

/// Polls a future once.
async fn at_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx: &mut TaskContext<'_>| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

enum BodyError<R> {
    TooBig,
    Broken,
    NoRoom(R),
}

/// Reads a body. `make_room` is asked before so many bytes of it are kept.
async fn read_body<R>(
    body: Incoming,
    max_bytes: usize,
    mut make_room: impl FnMut(usize) -> Result<(), R>,
) -> Result<Bytes, BodyError<R>> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(BodyError::TooBig);
    }
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let bytes = first.len() + all.len() + data.len();
        if bytes > max_bytes {
            return Err(BodyError::TooBig);
        }
        make_room(bytes).map_err(BodyError::NoRoom)?;
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    // One piece is a part of a buffer of the connection, which it would keep whole: an event that is
    // kept for somebody may stay for minutes.
    Ok(if all.is_empty() { Bytes::copy_from_slice(&first) } else { all.freeze() })
}

/// Turns the connection into a WebSocket once this answer is written.
fn switch(connection: &Connection, accepted: Upgrade, shard: u8, entry: Option<Entry>) -> Answer {
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let deflate = accepted.extensions.is_some();
    for (name, value) in [
        (SEC_WEBSOCKET_ACCEPT, Some(accepted.accept)),
        (SEC_WEBSOCKET_PROTOCOL, accepted.protocol),
        (SEC_WEBSOCKET_EXTENSIONS, accepted.extensions),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    connection.ticket.replace(Some(Ticket { shard, deflate, entry }));
    answer
}

/// Whether `Connection` and `Upgrade` ask for another protocol, whichever: what Node calls an
/// upgrade.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Looks headers up; several of a name are one list.
fn joined<'a>(headers: &'a HeaderMap) -> impl Fn(&'static str) -> Option<Cow<'a, str>> {
    |name| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let first = Cow::Borrowed(values.next()?);
        Some(values.fold(first, |all, value| Cow::Owned(format!("{all}, {value}"))))
    }
}

/// What a shard answered, as HTTP.
fn polled(engine: &Engine, request: &HeaderMap, reply: Reply) -> Answer {
    match reply {
        Reply::Live(response) => {
            let mut answer = said(engine, request, response);
            answer.extensions_mut().insert(SessionLives);
            answer
        }
        Reply::Last(response) => said(engine, request, response),
        Reply::Full => retry_later(StatusCode::SERVICE_UNAVAILABLE, "limits.connections\n"),
    }
}

fn said(engine: &Engine, request: &HeaderMap, response: wall::Response) -> Answer {
    match response {
        wall::Response::Open { sid, body } => {
            let mut answer = polling_body(request, body);
            if let Some(name) = &engine.cookie {
                let cookie = format!("{name}={sid}; Path=/; HttpOnly; SameSite=Lax");
                if let Ok(cookie) = HeaderValue::try_from(cookie) {
                    answer.headers_mut().insert(SET_COOKIE, cookie);
                }
            }
            answer
        }
        wall::Response::Payload(body) => polling_body(request, body),
        wall::Response::Taken => {
            let mut answer = of_kind("text/html", Bytes::from_static(b"ok"));
            label_polling(request, answer.headers_mut());
            answer
        }
        wall::Response::Refused(error) => request_refused(error),
        wall::Response::Status(503) => {
            retry_later(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n")
        }
        wall::Response::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = empty(status);
            match status {
                StatusCode::REQUEST_TIMEOUT => {
                    answer.extensions_mut().insert(Refusal::SlowBody);
                }
                StatusCode::BAD_REQUEST => {
                    answer.extensions_mut().insert(Refusal::SessionEnded);
                }
                _ => {}
            }
            answer
        }
    }
}

fn polling_body(request: &HeaderMap, body: PollBody) -> Answer {
    let (kind, body) = match body {
        PollBody::Text(body) => ("text/plain; charset=UTF-8", body),
        PollBody::Binary(body) => ("application/octet-stream", body),
        PollBody::Script(body) => ("text/javascript; charset=UTF-8", body),
    };
    let mut answer = of_kind(kind, body);
    label_polling(request, answer.headers_mut());
    answer
}

/// What the reference puts on every answer to a poll.
fn label_polling(request: &HeaderMap, headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let agent = request.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let names = |part: &[u8]| agent.windows(part.len()).any(|window| window == part);
    if names(b";MSIE") || names(b"Trident/") {
        headers.insert(X_XSS_PROTECTION, HeaderValue::from_static("0"));
    }
}

/// The answer to a request without an upgrade, of which something on the way may have robbed it.
fn stripped_or_refused(
    error: RequestError,
    method: &Method,
    asked_for: Option<TransportName>,
) -> Answer {
    let mut answer = request_refused(error);
    if error == RequestError::BadRequest
        && method == Method::GET
        && asked_for == Some(TransportName::WebSocket)
    {
        answer.extensions_mut().insert(Refusal::UpgradeStripped);
    }
    answer
}

fn request_refused(error: RequestError) -> Answer {
    let mut answer = of_kind("application/json", Bytes::from(error.json()));
    answer.extensions_mut().insert(Refusal::from(error));
    *answer.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    answer
}

/// The one answer to an upgrade that fails, whatever the reason.
fn upgrade_refused(error: RequestError) -> Answer {
    let mut answer = of_kind("text/html", Bytes::from_static(error.message().as_bytes()));
    answer.extensions_mut().insert(Refusal::from(error));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The answer to a WebSocket handshake that is not one.
fn handshake_refused(error: HandshakeError) -> Answer {
    let mut answer = of_kind("text/html", Bytes::from(error.to_string()));
    answer.extensions_mut().insert(Refusal::Handshake);
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    match status {
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
    answer
}

fn address_is_full() -> Answer {
    refused(StatusCode::TOO_MANY_REQUESTS, "connections-per-address")
}

/// The answer on a connection that is good for nothing else.
fn refused(status: StatusCode, limit: &'static str) -> Answer {
    let mut answer = retry_later(status, "");
    *answer.body_mut() = HttpBody::from(Bytes::from(format!("limits.{limit}\n")));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn retry_later(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = plain(status, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn not_found() -> Answer {
    plain(StatusCode::NOT_FOUND, "not found\n")
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = of_kind("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    answer
}

fn of_kind(kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(HttpBody::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(HttpBody::from(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

//! HTTP on a connection of a bot: who it is, what it asks for, and who answers that.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_dial::{
    Leg, LegAnswer, LegFailure, LegFailureKind, LegRequest,
    stream::{self, StreamOptions},
};
use bowline_names::ErrorCode;
use bowline_proto::websocket::handshake::{HandshakeError, Upgrade, check_request};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::{Body as _, Incoming},
    client, server,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Counted, Guest, Identity, Local, Served, Terms,
    authority::LOCALHOST,
    body::Body,
    limit,
    listener::{Proof, unless_shown},
    refusal::{Refusal, Unsaid},
    rules::Asked,
};
use crate::{clock, far::Boxed};

/// Both directions of something that carries bytes.
pub(super) trait Carries: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carries for T {}

/// The same in a box: TCP, TLS, either of them inside a CONNECT.
pub(super) type AnyStream = Box<dyn Carries>;

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Nothing: it was just accepted.
    Door,
    /// It is inside a CONNECT to a host whose TLS is ended here.
    Inside(Target),
}

/// A server that a bot speaks to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// For whom.
    pub(super) guest: Arc<Guest>,
    /// In lower case, an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// What becomes of a connection that speaks HTTP no longer.
pub(super) enum Next {
    /// Its TLS is ended here, for this host.
    Inside(Target),
    /// Its bytes are passed on.
    Tunnel(Arc<Guest>, AnyStream),
    /// It is a WebSocket of the link.
    Socket(Arc<Guest>),
}

/// Answers requests until the connection ends, or becomes something else.
pub(super) fn serve(
    local: Local,
    stream: AnyStream,
    place: Place,
    proof: Arc<Proof>,
    until: Instant,
    unanswered: Arc<Mutex<Option<Counted>>>,
) -> Boxed<'static, Option<(Next, AnyStream)>> {
    Box::pin(serve_requests(local, stream, place, proof, until, unanswered))
}

async fn serve_requests(
    local: Local,
    stream: AnyStream,
    place: Place,
    proof: Arc<Proof>,
    until: Instant,
    unanswered: Arc<Mutex<Option<Counted>>>,
) -> Option<(Next, AnyStream)> {
    let mut ending = local.inside.ending.subscribe();
    let forgotten = match &place {
        Place::Door => None,
        Place::Inside(target) => Some(target.guest.served.forgotten.subscribe()),
    };
    let (proof_too, next) = (Arc::clone(&proof), Mutex::default());
    let visit = Arc::new(Visit { local, place, proof: proof_too, next, unanswered });

    let service = {
        let visit = Arc::clone(&visit);
        service_fn(move |request| {
            let visit = Arc::clone(&visit);
            let answering: Boxed<'static, Result<Response<Body>, Unsaid>> = Box::pin(async move {
                let answer = visit.answer(request).await.or_else(Refusal::answer);
                visit.answered();
                answer
            });
            answering
        })
    };
    let connection = server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit::IDLE_MAX)
        .max_buf_size(limit::HEAD_BYTES_MAX)
        .max_headers(limit::HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();

    let mut connection = pin!(connection);
    let mut unproved = pin!(unless_shown(proof, until));
    let mut over = pin!(async move {
        let ended = ending.wait_for(|ending| *ending);
        match forgotten {
            None => drop(ended.await),
            Some(mut forgotten) => tokio::select! {
                _ = ended => {}
                _ = forgotten.wait_for(|forgotten| *forgotten) => {}
            },
        }
    });
    let mut is_over = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of a bot ended");
                }
                break;
            }
            () = &mut unproved => return None,
            () = &mut over, if !is_over => {
                is_over = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    let (next, upgrade) = visit.next.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let upgraded = upgrade.await.ok()?;
    Some((next, Box::new(TokioIo::new(upgraded))))
}

/// What the requests of one connection have in common.
struct Visit {
    local: Local,
    place: Place,
    proof: Arc<Proof>,
    next: Mutex<Option<(Next, OnUpgrade)>>,
    /// Until the bot has got what it came for, which is not the tunnel to it.
    unanswered: Arc<Mutex<Option<Counted>>>,
}

impl Visit {
    fn answered(&self) {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*next, Some((Next::Inside(_), _))) {
            self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        match &self.place {
            Place::Inside(_) if request.method() == Method::CONNECT => {
                let words = "there is a tunnel already";
                Err(Refusal::request(StatusCode::METHOD_NOT_ALLOWED, words))
            }
            Place::Inside(target) => {
                check_host(request.uri(), request.headers(), target)?;
                self.through(request, target.clone()).await
            }
            Place::Door if request.method() == Method::CONNECT => self.connect(request).await,
            Place::Door if request.uri().scheme().is_some() => self.plain(request).await,
            Place::Door => self.at_home(request).await,
        }
    }

    /// A CONNECT (RFC 9110 section 9.3.6).
    async fn connect(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let served = match self.identify(request.headers()).await {
            // It came early and shall come again, as bots do whose tunnel ends: not all do without an answer.
            Err(refusal) if refusal.is_unsaid() && self.local.is_closing() => {
                return Ok(Response::new(Body::empty()));
            }
            identified => identified?,
        };
        let Some((host, port)) = authority(request.uri(), None) else {
            let words = "a CONNECT names a host and a port";
            return Err(Refusal::request(StatusCode::BAD_REQUEST, words));
        };
        let own = self.local.inside.port.load(std::sync::atomic::Ordering::Relaxed);
        if port == own && is_this_machine(&host) {
            let words = "the proxy does not connect to itself";
            return Err(Refusal::request(StatusCode::FORBIDDEN, words));
        }
        let guest = enter(&served)?;
        let terms = served.terms();
        let next = if terms.ends_tls_of(&host) {
            Next::Inside(Target { guest, host, port, tls: true })
        } else {
            let far = reach(&terms, &host, port, false).await?;
            Next::Tunnel(guest, far)
        };
        self.becomes(next, &mut request);
        Ok(Response::new(Body::empty()))
    }

    /// A request for a server without TLS.
    async fn plain(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let served = self.identify(request.headers()).await?;
        if request.uri().scheme_str() != Some("http") {
            let words = "servers with TLS are asked for by CONNECT";
            return Err(Refusal::request(StatusCode::BAD_REQUEST, words));
        }
        let Some((host, port)) = authority(request.uri(), Some(80)) else {
            let words = "the URL names no host";
            return Err(Refusal::request(StatusCode::BAD_REQUEST, words));
        };
        let guest = enter(&served)?;
        self.through(request, Target { guest, host, port, tls: false }).await
    }

    /// A request to this machine itself: there is nothing but WebSockets of links.
    async fn at_home(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        // A name of somebody else's that leads here is a web page's (DNS rebinding).
        let host = host_of(request.headers()).map(|(host, _)| host);
        if !host.is_some_and(|host| is_this_machine(&host)) {
            let words = "nothing is served here for this host";
            return Err(Refusal::request(StatusCode::MISDIRECTED_REQUEST, words));
        }
        let path = request.uri().path();
        let Some((name, rest)) = path.strip_prefix("/links/").and_then(|path| path.split_once('/'))
        else {
            let words = "this is the proxy of the links of Bowline, for bots that are told so";
            return Err(Refusal::request(StatusCode::NOT_FOUND, words));
        };
        let secret = rest.split_once('/').map_or(rest, |(secret, _)| secret);
        let served = self.served(name, secret).await?;
        let guest = enter(&served)?;
        self.socket(&mut request, guest)
    }

    /// A request to a server whose TLS was ended here, or that has none.
    async fn through(
        &self,
        mut request: Request<Incoming>,
        target: Target,
    ) -> Result<Response<Body>, Refusal> {
        let served = Arc::clone(&target.guest.served);
        let terms = served.terms();
        let is_known = terms.ends_tls_of(&target.host);
        if asks_for_websocket(request.headers()) {
            let path = path_of(request.uri());
            return if is_known && terms.rules.is_socket(&target.host, path) {
                self.socket(&mut request, target.guest)
            } else {
                self.pass_upgrade(request, &terms, target).await
            };
        }

        let (mut parts, body) = request.into_parts();
        let (body, memory) = self.whole(body).await?;
        if is_known {
            let asked = asked(&parts, &target.host, &body);
            if let Some(answer) = terms.rules.answer(&asked, &self.local.socket_url(&served)) {
                return Ok(json(answer.status, answer.body));
            }
            // The rules read answers.
            let identity = HeaderValue::from_static("identity");
            parts.headers.insert(header::ACCEPT_ENCODING, identity);
        }
        parts.headers.remove(header::PROXY_AUTHORIZATION);
        let ask = LegRequest {
            method: parts.method.clone(),
            url: url_of(&target, path_of(&parts.uri)),
            headers: parts.headers.clone(),
            body: body.clone(),
        };
        let answer = send(terms.far.leg.clone(), ask).await.map_err(|failure| {
            let status = if failure.is_timeout() {
                StatusCode::GATEWAY_TIMEOUT
            } else {
                StatusCode::BAD_GATEWAY
            };
            let link = &served.name;
            tracing::warn!(link, error = %failure, "the service did not answer a bot");
            let unsaid = match failure.kind {
                LegFailureKind::NotReached | LegFailureKind::Broken => is_known,
                LegFailureKind::TimedOut => is_known && !failure.is_sent(),
                LegFailureKind::InvalidUrl | LegFailureKind::TooBig => false,
            };
            Refusal::new(status, ErrorCode::LinkUnreachable, failure.words).unsaid_if(unsaid)
        })?;

        let status = answer.status;
        let watched = Watched { parts, body, memory, target, terms, status, seen: Vec::new() };
        let mut response = Response::new(Body::passed_on(answer.body, watched));
        *response.status_mut() = status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    /// A WebSocket that this process serves.
    fn socket(
        &self,
        request: &mut Request<Incoming>,
        guest: Arc<Guest>,
    ) -> Result<Response<Body>, Refusal> {
        let upgrade = handshake(request).map_err(|error| {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            let refusal = Refusal::request(status, error.to_string());
            match error {
                HandshakeError::Version => refusal.with(header::SEC_WEBSOCKET_VERSION, "13"),
                HandshakeError::Method => refusal.with(header::ALLOW, "GET"),
                _ => refusal,
            }
        })?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let told = [
            (header::SEC_WEBSOCKET_ACCEPT, Some(upgrade.accept)),
            (header::SEC_WEBSOCKET_PROTOCOL, upgrade.protocol),
        ];
        for (name, value) in told {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        self.becomes(Next::Socket(guest), request);
        Ok(response)
    }

    /// A WebSocket that is none of the link's: its handshake is passed on as it is, and what follows.
    async fn pass_upgrade(
        &self,
        mut request: Request<Incoming>,
        terms: &Terms,
        target: Target,
    ) -> Result<Response<Body>, Refusal> {
        let is_known = terms.ends_tls_of(&target.host);
        let far = reach(terms, &target.host, target.port, target.tls)
            .await
            .map_err(|refusal| refusal.unsaid_if(is_known))?;
        let mut handshake = Request::new(Full::new(Bytes::new()));
        *handshake.method_mut() = request.method().clone();
        *handshake.uri_mut() = path_of(request.uri()).parse().unwrap_or_default();
        *handshake.headers_mut() = request.headers().clone();
        for name in ["proxy-authorization", "proxy-connection"] {
            handshake.headers_mut().remove(name);
        }

        let (answer, upgraded) = timeout(limit::HANDSHAKE_WITHIN, shake_hands(far, handshake))
            .await
            .map_err(|_| {
                let words = format!("{} does not answer a WebSocket handshake", target.host);
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::LinkUnreachable, words)
            })?
            .map_err(|error| {
                let words = format!("{}: {error}", target.host);
                Refusal::new(StatusCode::BAD_GATEWAY, ErrorCode::LinkUnreachable, words)
            })?;

        let (mut head, body) = answer.into_parts();
        if let Some(upgraded) = upgraded {
            self.becomes(Next::Tunnel(target.guest, upgraded), &mut request);
            return Ok(Response::from_parts(head, Body::empty()));
        }
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            head.headers.remove(name);
        }
        Ok(Response::from_parts(head, Body::whole(body)))
    }

    /// Who asks, by the credentials for a proxy (RFC 7617).
    async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Served>, Refusal> {
        let shown = (|| {
            let shown = headers.get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
            let (scheme, credentials) = shown.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()
        })();
        match shown.as_deref().and_then(|shown| shown.split_once(':')) {
            Some((name, secret)) => self.served(name, secret).await,
            None => Err(wrong_secret()),
        }
    }

    /// The link that somebody shows the secret of, as soon as it is served. A bot that comes early, since this process
    /// is new, waits; in the end its connection is closed without an answer: clients try again after that, and not
    /// after a status.
    async fn served(&self, name: &str, secret: &str) -> Result<Arc<Served>, Refusal> {
        let mut registered = self.local.inside.registered.subscribe();
        let mut closing = self.local.inside.closing.subscribe();
        let until = clock::instant() + limit::SERVED_WITHIN;
        loop {
            let early = match self.local.identify(name, secret) {
                Identity::Served(served) => {
                    self.proof.show();
                    return Ok(served);
                }
                Identity::Nobody => {
                    // Which link it would have been is the stranger's word.
                    tracing::warn!(
                        "somebody came to the links' listener without the secret of a link"
                    );
                    return Err(wrong_secret());
                }
                Identity::Gone => false,
                Identity::Early => true,
            };
            self.proof.show();
            let came = early
                && tokio::select! {
                    changed = registered.changed() => changed.is_ok(),
                    () = sleep_until(until) => false,
                    _ = closing.wait_for(Option::is_some) => false,
                };
            if !came {
                let words = format!("{name} is not served by this process");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let refusal = Refusal::new(status, ErrorCode::LinkUnserved, words);
                return Err(refusal.unsaid_if(early));
            }
        }
    }

    /// Reads the body of a request, as long as there is memory for it.
    async fn whole(
        &self,
        mut body: Incoming,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let too_big = || {
            let words = format!("a body may have {} MiB", limit::BODY_BYTES_MAX >> 20);
            Refusal::request(StatusCode::PAYLOAD_TOO_LARGE, words)
        };
        if body.size_hint().lower() > limit::BODY_BYTES_MAX as u64 {
            return Err(too_big());
        }
        let mut whole = BytesMut::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        loop {
            let piece = timeout(limit::BODY_PIECE_WITHIN, body.frame()).await.map_err(|_| {
                Refusal::request(StatusCode::REQUEST_TIMEOUT, "the body does not come")
            })?;
            let Some(piece) = piece else { return Ok((whole.freeze(), memory)) };
            let piece = piece.map_err(|_| {
                Refusal::request(StatusCode::BAD_REQUEST, "the body ended before its end")
            })?;
            let Ok(piece) = piece.into_data() else { continue };
            if whole.len() + piece.len() > limit::BODY_BYTES_MAX {
                return Err(too_big());
            }
            // Rounded up for each piece: small ones cost more than they are.
            let kib = u32::try_from(piece.len().div_ceil(1024)).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.local.inside.bodies).try_acquire_many_owned(kib);
            let more = more.map_err(|_| {
                let words = "the bots of this machine send more at a time than there is memory for";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::LinkBusy, words)
            })?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            whole.extend_from_slice(&piece);
        }
    }

    fn becomes(&self, next: Next, request: &mut Request<Incoming>) {
        let upgrade = hyper::upgrade::on(request);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((next, upgrade));
    }
}

/// An exchange that was passed on, for [`Rules::observe`](super::rules::Rules::observe).
pub(super) struct Watched {
    parts: Parts,
    body: Bytes,
    /// What the body takes.
    memory: Option<OwnedSemaphorePermit>,
    target: Target,
    terms: Arc<Terms>,
    status: StatusCode,
    seen: Vec<u8>,
}

impl Watched {
    pub(super) fn see(&mut self, piece: &[u8]) {
        let room = limit::OBSERVED_BYTES_MAX - self.seen.len();
        self.seen.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    pub(super) fn tell(self) {
        let Self { parts, body, memory, target, terms, status, seen } = self;
        if terms.ends_tls_of(&target.host) {
            let asked = asked(&parts, &target.host, &body);
            let noted = terms.rules.observe(&asked, status, &Bytes::from(seen));
            target.guest.served.bots.note(noted, &terms.mouth);
        }
        drop(memory);
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("target", &self.target).finish_non_exhaustive()
    }
}

/// In a box, or the compiler cannot tell that it may go from thread to thread.
fn send(leg: Leg, ask: LegRequest) -> Boxed<'static, Result<LegAnswer, LegFailure>> {
    Box::pin(async move { leg.send(ask).await })
}

fn asked<'a>(parts: &'a Parts, host: &'a str, body: &'a Bytes) -> Asked<'a> {
    Asked {
        method: &parts.method,
        host,
        target: path_of(&parts.uri),
        headers: &parts.headers,
        body,
    }
}

fn wrong_secret() -> Refusal {
    let words = "the name or the secret of the link is missing or wrong";
    Refusal::new(StatusCode::PROXY_AUTHENTICATION_REQUIRED, ErrorCode::LinkSecretWrong, words)
        .with(header::PROXY_AUTHENTICATE, "Basic realm=\"bowline links\"")
}

fn enter(served: &Arc<Served>) -> Result<Arc<Guest>, Refusal> {
    served.enter().map(Arc::new).ok_or_else(|| {
        let words = format!("the bots of {} have too many connections", served.name);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::LinkBusy, words)
    })
}

/// Opens a connection to a server, as the link does.
async fn reach(terms: &Terms, host: &str, port: u16, tls: bool) -> Result<AnyStream, Refusal> {
    let options = StreamOptions {
        host: host.to_owned(),
        port,
        tls,
        proxy: terms.far.proxy.clone(),
        trust: terms.far.trust.clone(),
        connect_timeout: limit::CONNECT_WITHIN,
    };
    let opening: Boxed<'static, _> = Box::pin(stream::open(options));
    match opening.await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(words) => Err(Refusal::new(StatusCode::BAD_GATEWAY, ErrorCode::LinkUnreachable, words)),
    }
}

/// Passes the handshake of a WebSocket on; with the answer comes what follows it, if the server agrees.
async fn shake_hands(
    far: AnyStream,
    handshake: Request<Full<Bytes>>,
) -> Result<(Response<Bytes>, Option<AnyStream>), hyper::Error> {
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(far)).await?;
    let mut connection = Moved {
        connection: Box::pin(async move { drop(connection.with_upgrades().await) }),
        is_over: false,
    };
    let mut answer = connection.beside(Box::pin(sender.send_request(handshake))).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = hyper::upgrade::on(&mut answer);
        let upgraded = connection.beside(Box::pin(upgrade)).await?;
        let upgraded: AnyStream = Box::new(TokioIo::new(upgraded));
        return Ok((answer.map(|_| Bytes::new()), Some(upgraded)));
    }
    let (head, body) = answer.into_parts();
    let collecting = Limited::new(body, limit::OBSERVED_BYTES_MAX).collect();
    let body = connection.beside(Box::pin(collecting)).await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok((Response::from_parts(head, body), None))
}

/// A connection to a server, which somebody must move.
struct Moved {
    connection: Boxed<'static, ()>,
    is_over: bool,
}

impl Moved {
    /// Does something that needs it, as long as it lasts.
    async fn beside<T>(&mut self, mut what: Boxed<'static, T>) -> T {
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = &mut self.connection, if !self.is_over => self.is_over = true,
            }
        }
    }
}

/// Whether a request is one for the host that its connection was made to.
fn check_host(uri: &Uri, headers: &HeaderMap, target: &Target) -> Result<(), Refusal> {
    let of_uri = uri.host().map(|_| authority(uri, Some(target.port)));
    // A request of HTTP/1.0 may have none.
    let of_header = headers.get(header::HOST).map(|_| host_of(headers));
    let fits = |named: Option<(String, Option<u16>)>| {
        named.is_some_and(|(host, port)| {
            host == target.host && port.is_none_or(|port| port == target.port)
        })
    };
    let uri_fits = of_uri.is_none_or(|named| fits(named.map(|(host, port)| (host, Some(port)))));
    if uri_fits && of_header.is_none_or(fits) {
        return Ok(());
    }
    let words = format!("this connection was made to {}", target.host);
    Err(Refusal::request(StatusCode::MISDIRECTED_REQUEST, words))
}

/// Host and port of a URL or of a CONNECT.
fn authority(uri: &Uri, default_port: Option<u16>) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let port = authority.port_u16().or(default_port).filter(|port| *port != 0)?;
    Some((host(authority.host())?, port))
}

/// What `Host` says.
fn host_of(headers: &HeaderMap) -> Option<(String, Option<u16>)> {
    let mut all = headers.get_all(header::HOST).iter();
    let (one, more) = (all.next()?, all.next());
    let authority = one.to_str().ok()?.parse::<http::uri::Authority>().ok()?;
    if more.is_some() || authority.as_str().contains('@') {
        return None;
    }
    Some((host(authority.host())?, authority.port_u16()))
}

/// A host in the one form that is compared: in lower case, without brackets and without the last dot.
fn host(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let is_host = (1..=253).contains(&text.len()) && text.bytes().all(fits);
    is_host.then(|| text.to_ascii_lowercase())
}

/// Whether a host is this machine by any of its loopback names.
fn is_this_machine(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == LOCALHOST,
    }
}

fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

fn url_of(target: &Target, path: &str) -> String {
    let scheme = if target.tls { "https" } else { "http" };
    let usual = if target.tls { 443 } else { 80 };
    let host = &target.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = if target.port == usual { String::new() } else { format!(":{}", target.port) };
    format!("{scheme}://{host}{port}{path}")
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrade = joined(headers, "upgrade").unwrap_or_default();
    upgrade.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket"))
}

/// Checks the handshake of a WebSocket. Compression is not agreed on: nothing is slow between a bot and this process.
fn handshake(request: &Request<Incoming>) -> Result<Upgrade, HandshakeError> {
    let headers = request.headers();
    let header = |name: &'static str| joined(headers, name).map(Into::into);
    check_request(request.method().as_str(), header, false)
}

/// The values of all lines of one header.
fn joined(headers: &HeaderMap, name: &'static str) -> Option<String> {
    let mut lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = lines.next()?.to_owned();
    Some(lines.fold(first, |all, line| all + "," + line))
}

fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        let cases = [
            ("Example.COM", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("[::1]", Some("::1")),
            ("a_b.example", Some("a_b.example")),
            ("", None),
            ("a b", None),
            ("a/b", None),
            ("ä.example", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(host(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        for name in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_this_machine(name), "{name}");
        }
        for name in ["localhost.example", "10.0.0.1", "rebind.example", "0.0.0.0"] {
            assert!(!is_this_machine(name), "{name}");
        }
    }
}

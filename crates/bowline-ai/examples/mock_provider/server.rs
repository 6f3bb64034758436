//! The mock provider itself: HTTP/1.1 by hand, since half of its answers are none.

#[path = "clock.rs"]
mod clock;
#[path = "http2.rs"]
mod http2;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use clock::Watch;

/// What is done with a request. Where a mode has no meaning for a plain request (`no-done`), it is answered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `ok`, `ok-64x20`: so many tokens, so many milliseconds apart.
    Ok { tokens: u64, gap_ms: u64 },
    /// `wait-300`: a good answer that begins after so many milliseconds. In a stream, after the headers and the role:
    /// `slow-first-300`.
    Wait(u64),
    /// `400` to `599`: an error with that status. `429-after-2`: with `retry-after`, in seconds.
    Status { status: u16, after: Option<u64> },
    /// `500-once`: the first request of this name fails, the others are answered.
    Once(u16),
    /// `fail-slow-1500`: 500 after so many milliseconds.
    FailSlow(u64),
    /// `flap`: every other request fails, the first one too.
    Flap,
    /// `reset`: the connection is reset before anything is answered.
    Reset,
    /// `close`: it is closed instead.
    Close,
    /// `silent`: nothing is ever answered.
    Silent,
    /// `headers-only`: the head of an answer, and nothing more.
    HeadersOnly,
    /// `cut`: the connection is closed in the middle of the answer.
    Cut,
    /// `stall`: nothing comes any more from the middle of the answer on.
    Stall,
    /// `malformed`: in the middle there is something that is no JSON.
    Malformed,
    /// `no-done`: a complete stream without its last word.
    NoDone,
    /// `no-finish`: a stream that ends in order, but in the middle.
    NoFinish,
    /// `error-frame`: an error in the middle of a stream; `early-error`: instead of one.
    ErrorFrame { early: bool },
    /// `keepalive-only`: a role, then comments for ever.
    KeepaliveOnly,
    /// `drip`, `drip-400`: a token every so many milliseconds, two hundred of them.
    Drip(u64),
    /// `too-long`: the prompt is longer than the context.
    TooLong,
    /// `filter`: the content policy refuses the prompt; `filter-late`: and here it stops the answer.
    Filter { late: bool },
    /// `reasoning`: an answer with reasoning before its text.
    Reasoning,
    /// `tools`: an answer that calls two tools, whose deltas have no index.
    Tools,
    /// `glm-1302`: GLM's error of that number.
    Glm(u32),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Ok { tokens: 8, gap_ms: 0 }
    }
}

impl Mode {
    /// Reads a mode. `None` if there is none of that name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.split('#').next().unwrap_or_default();
        let number = |prefix: &str| text.strip_prefix(prefix)?.parse::<u64>().ok();
        if let Some(shape) = text.strip_prefix("ok-") {
            let (tokens, gap) = shape.split_once('x').unwrap_or((shape, "0"));
            return Some(Self::Ok { tokens: tokens.parse().ok()?, gap_ms: gap.parse().ok()? });
        }
        if let Some(ms) = number("wait-").or_else(|| number("slow-first-")) {
            return Some(Self::Wait(ms));
        }
        if let Some(ms) = number("fail-slow-") {
            return Some(Self::FailSlow(ms));
        }
        if let Some(ms) = number("drip-") {
            return Some(Self::Drip(ms));
        }
        if let Some(code) = number("glm-") {
            return Some(Self::Glm(u32::try_from(code).ok()?));
        }
        if let Some((status, rest)) = text.split_at_checked(3)
            && let Ok(status @ 400..=599) = status.parse::<u16>()
        {
            return match rest {
                "" => Some(Self::Status { status, after: None }),
                "-once" => Some(Self::Once(status)),
                _ => {
                    let after = rest.strip_prefix("-after-")?.parse().ok()?;
                    Some(Self::Status { status, after: Some(after) })
                }
            };
        }
        Some(match text {
            "ok" => Self::default(),
            "flap" => Self::Flap,
            "reset" => Self::Reset,
            "close" => Self::Close,
            "silent" => Self::Silent,
            "headers-only" => Self::HeadersOnly,
            "cut" => Self::Cut,
            "stall" => Self::Stall,
            "malformed" => Self::Malformed,
            "no-done" => Self::NoDone,
            "no-finish" => Self::NoFinish,
            "error-frame" => Self::ErrorFrame { early: false },
            "early-error" => Self::ErrorFrame { early: true },
            "keepalive-only" => Self::KeepaliveOnly,
            "drip" => Self::Drip(400),
            "too-long" => Self::TooLong,
            "filter" => Self::Filter { late: false },
            "filter-late" => Self::Filter { late: true },
            "reasoning" => Self::Reasoning,
            "tools" => Self::Tools,
            _ => return None,
        })
    }
}

/// A running mock. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub(crate) struct Mock {
    url: String,
    state: Arc<State>,
    serving: JoinSet<()>,
    /// Of one that speaks HTTP/2.
    certificate: Option<CertificateDer<'static>>,
    goodbye: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    requests: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
    open_streams: AtomicU64,
    answering: AtomicU64,
    cancelled: AtomicU64,
    /// Requests, by the name of their mode.
    modes: Mutex<BTreeMap<String, u64>>,
    /// How long they took, by the name of their mode.
    times: Mutex<BTreeMap<String, Times>>,
    last: Mutex<Option<Seen>>,
}

/// Requests from their last byte to that of the answer, or until somebody gave them up.
#[derive(Debug, Default)]
struct Times {
    count: u64,
    sum: Duration,
}

/// What the mock was asked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// With its query.
    pub(crate) path: String,
    /// The head, as it was sent.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Mock {
    /// Listens.
    pub(crate) async fn start(listen: &str, mode: Mode) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (state, mut serving) = (Arc::new(State::new(mode)), JoinSet::new());
        serving.spawn(accept(listener, Arc::clone(&state)));
        let goodbye = watch::Sender::new(());
        Ok(Self { url, state, serving, certificate: None, goodbye })
    }

    /// Listens with TLS, and speaks HTTP/2 alone.
    pub(crate) async fn start_http2(listen: &str, mode: Mode) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let http2::Tls { acceptor, certificate } = http2::Tls::new()?;
        let (state, mut serving) = (Arc::new(State::new(mode)), JoinSet::new());
        let goodbye = watch::Sender::new(());
        let told = goodbye.subscribe();
        serving.spawn(http2::accept(listener, acceptor, Arc::clone(&state), told));
        Ok(Self { url, state, serving, certificate: Some(certificate), goodbye })
    }

    /// What one that speaks HTTP/2 is known by.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// Says on all HTTP/2 connections that they take no more requests (GOAWAY); those under way go on.
    pub(crate) fn say_goodbye(&self) {
        self.goodbye.send_replace(());
    }

    /// Where it listens, without a path.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Serves until the program ends.
    pub(crate) async fn serve_for_ever(mut self) {
        while self.serving.join_next().await.is_some() {}
    }

    /// What `GET /stats` answers.
    pub(crate) fn stats(&self) -> Value {
        self.state.stats()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Option<Seen> {
        lock(&self.state.last).clone()
    }
}

impl State {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open_connections: AtomicU64::new(0),
            open_streams: AtomicU64::new(0),
            answering: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            modes: Mutex::default(),
            times: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// A request is over, however.
    fn on_answered(&self, name: String, watch: Watch) {
        let took = watch.read();
        let mut times = lock(&self.times);
        let times = times.entry(name).or_default();
        times.count += 1;
        times.sum += took;
    }

    fn stats(&self) -> Value {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let seconds = |(name, times): (&String, &Times)| {
            (name.clone(), json!({ "count": times.count, "seconds": times.sum.as_secs_f64() }))
        };
        let times: serde_json::Map<_, _> = lock(&self.times).iter().map(seconds).collect();
        json!({
            "requests": of(&self.requests),
            "connections": of(&self.connections),
            "open_connections": of(&self.open_connections),
            "open_streams": of(&self.open_streams),
            "answering": of(&self.answering),
            "cancelled": of(&self.cancelled),
            "modes": *lock(&self.modes),
            "times": times,
        })
    }

    fn reset(&self) {
        for count in [&self.requests, &self.connections, &self.cancelled] {
            count.store(0, Ordering::SeqCst);
        }
        lock(&self.modes).clear();
        lock(&self.times).clear();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // However it ends.
            let _ = serve(stream, &state).await;
        });
    }
}

/// One connection, request by request.
async fn serve(mut stream: TcpStream, state: &Arc<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    // What asks for statistics alone is not counted.
    let mut open = None;
    while let Some(request) = read_request(&mut stream, &mut input).await? {
        let (mut reader, mut writer) = stream.split();
        if let Some(answer) = meta(&request, state) {
            write_whole(&mut writer, 200, "", answer.to_string().as_bytes()).await?;
            continue;
        }
        if open.is_none() {
            state.connections.fetch_add(1, Ordering::SeqCst);
            open = Some(Count::new(&state.open_connections));
        }
        let _answering = Count::new(&state.answering);
        let watch = Watch::start();
        let (name, script, stream_asked) = plan(&request, state);
        let _timed = Timed { state, name, watch };
        *lock(&state.last) = Some(request);
        let _open_stream = stream_asked.then(|| Count::new(&state.open_streams));
        let after = tokio::select! {
            biased;
            after = act(&mut writer, script) => after?,
            () = left(&mut reader, &mut input) => {
                state.cancelled.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        };
        match after {
            After::Next => {}
            After::Close => return Ok(()),
            After::Reset => return stream.set_zero_linger(),
        }
    }
    Ok(())
}

/// What is done, step by step.
enum Step {
    /// A whole answer.
    Whole {
        status: u16,
        headers: String,
        body: String,
    },
    /// The head of an answer whose length is known, or of one that comes in chunks.
    Head {
        length: Option<usize>,
    },
    /// Bytes as they are.
    Raw(String),
    /// A chunk.
    Chunk(String),
    Sleep(u64),
    /// A chunk every so many milliseconds, for ever.
    Repeat(&'static str, u64),
    /// The last chunk.
    End,
    Forever,
    Close,
    Reset,
}

enum After {
    Next,
    Close,
    Reset,
}

async fn act(writer: &mut WriteHalf<'_>, script: Vec<Step>) -> io::Result<After> {
    for step in script {
        match step {
            Step::Whole { status, headers, body } => {
                write_whole(writer, status, &headers, body.as_bytes()).await?;
            }
            Step::Head { length: Some(length) } => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                );
                writer.write_all(head.as_bytes()).await?;
            }
            Step::Head { length: None } => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                            transfer-encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes()).await?;
            }
            Step::Raw(bytes) => writer.write_all(bytes.as_bytes()).await?,
            Step::Chunk(data) => write_chunk(writer, &data).await?,
            Step::Sleep(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Repeat(data, ms) => loop {
                write_chunk(writer, data).await?;
                sleep(Duration::from_millis(ms)).await;
            },
            Step::End => writer.write_all(b"0\r\n\r\n").await?,
            Step::Forever => std::future::pending().await,
            Step::Close => return Ok(After::Close),
            Step::Reset => return Ok(After::Reset),
        }
    }
    Ok(After::Next)
}

async fn write_chunk(writer: &mut WriteHalf<'_>, data: &str) -> io::Result<()> {
    let mut chunk = String::with_capacity(data.len() + 12);
    let _ = write!(chunk, "{:x}\r\n{data}\r\n", data.len());
    writer.write_all(chunk.as_bytes()).await
}

async fn write_whole(
    writer: &mut WriteHalf<'_>,
    status: u16,
    headers: &str,
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    let mut answer = head.into_bytes();
    answer.extend_from_slice(body);
    writer.write_all(&answer).await
}

/// Waits until the client has left. What else it sends is kept.
async fn left(reader: &mut ReadHalf<'_>, input: &mut Vec<u8>) {
    while let Ok(1..) = reader.read_buf(input).await {}
}

async fn read_request(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let head_len = loop {
        if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&input[..head_len]).into_owned();
    let body_len = header(&head, "content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    while input.len() < head_len + body_len {
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
    let body = input[head_len..head_len + body_len].to_vec();
    input.drain(..head_len + body_len);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some(Seen { path, head, body }))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// Answers what is no request to a model.
fn meta(request: &Seen, state: &State) -> Option<Value> {
    match request.path.as_str() {
        "/stats" => Some(state.stats()),
        "/reset" => {
            state.reset();
            Some(json!({ "reset": true }))
        }
        path if path.ends_with("/models") => Some(
            json!({ "object": "list", "data": [{ "id": "mock", "object": "model", "created": 1, "owned_by": "mock" }] }),
        ),
        _ => None,
    }
}

/// A request to a model, as far as the answer depends on it.
struct Question {
    model: String,
    anthropic: bool,
    embeddings: bool,
    stream: bool,
    usage: bool,
}

/// Decides what is done, under which name it is counted, and whether a stream was asked for.
fn plan(request: &Seen, state: &State) -> (String, Vec<Step>, bool) {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let path = request.path.split('?').next().unwrap_or_default();
    let question = Question {
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        anthropic: path.ends_with("/messages"),
        embeddings: path.ends_with("/embeddings"),
        stream: body["stream"] == true,
        usage: body["stream_options"]["include_usage"] == true,
    };
    let asked = header(&request.head, "x-mock")
        .or_else(|| path.split('/').find_map(|part| part.strip_prefix("mock:")))
        .or_else(|| question.model.strip_prefix("mock:"));
    state.requests.fetch_add(1, Ordering::SeqCst);
    let name = asked.unwrap_or("default").to_owned();
    let before = {
        let mut modes = lock(&state.modes);
        let count = modes.entry(name.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let script = match asked.map_or(Some(state.mode), Mode::parse) {
        Some(mode) => question.script(mode, before),
        None => question.error(400, "", "invalid_request_error", "unknown_mode", "no such mode"),
    };
    (name, script, question.stream)
}

impl Question {
    /// What is done in a mode that so many requests went before in.
    fn script(&self, mode: Mode, before: u64) -> Vec<Step> {
        let fine = || self.good(&self.answer_of(8), 0);
        match mode {
            Mode::Ok { tokens, gap_ms } => self.good(&self.answer_of(tokens), gap_ms),
            Mode::Wait(ms) if self.stream => {
                let mut script = fine();
                // Behind the head and the role.
                script.insert(2, Step::Sleep(ms));
                script
            }
            Mode::Wait(ms) => {
                let mut script = fine();
                script.insert(0, Step::Sleep(ms));
                script
            }
            Mode::Status { status, after } => {
                let after = after.map(|after| format!("retry-after: {after}\r\n"));
                self.status(status, &after.unwrap_or_default())
            }
            Mode::Once(status) if before == 0 => self.status(status, ""),
            Mode::Flap if before.is_multiple_of(2) => self.status(500, ""),
            Mode::Once(_) | Mode::Flap => fine(),
            Mode::FailSlow(ms) => {
                let mut script = self.status(500, "");
                script.insert(0, Step::Sleep(ms));
                script
            }
            Mode::Reset => vec![Step::Reset],
            Mode::Close => vec![Step::Close],
            Mode::Silent => vec![Step::Forever],
            Mode::HeadersOnly => {
                vec![Step::Head { length: (!self.stream).then_some(100) }, Step::Forever]
            }
            Mode::Cut => self.half(Step::Close),
            Mode::Stall => self.half(Step::Forever),
            Mode::Malformed if self.stream => self.broken_off("data: {\"id\": nope\n\n"),
            Mode::Malformed => vec![Step::Whole {
                status: 200,
                headers: String::new(),
                body: "{\"id\": nope".to_owned(),
            }],
            Mode::NoDone if self.stream => {
                let mut script = fine();
                let last = script.len() - 2;
                script.remove(last);
                script
            }
            Mode::NoFinish if self.stream => self.half(Step::End),
            Mode::NoDone | Mode::NoFinish => fine(),
            Mode::ErrorFrame { early } if self.stream => {
                let error = if self.anthropic {
                    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"mock\"}}\n\n"
                } else {
                    "data: {\"error\":{\"message\":\"mock\",\"type\":\"server_error\",\"code\":\"mock\"}}\n\n"
                };
                if early {
                    vec![Step::Head { length: None }, Step::Chunk(error.to_owned()), Step::End]
                } else {
                    self.broken_off(error)
                }
            }
            Mode::ErrorFrame { .. } => {
                let mut script = self.status(500, "");
                if let Some(Step::Whole { status, .. }) = script.first_mut() {
                    *status = 200;
                }
                script
            }
            Mode::KeepaliveOnly if self.stream => {
                let mut script = fine();
                script.truncate(2);
                script.push(Step::Repeat(": keep-alive\n\n", 20));
                script
            }
            Mode::KeepaliveOnly => vec![
                Step::Head { length: Some(1_000_000) },
                {
                    // What DeepSeek does while a plain request waits.
                    Step::Raw("\n".to_owned())
                },
                Step::Forever,
            ],
            Mode::Drip(ms) => self.good(&self.answer_of(200), ms),
            Mode::TooLong => self.error(
                400,
                "",
                "invalid_request_error",
                "context_length_exceeded",
                "prompt is too long: 250000 tokens > 200000 maximum",
            ),
            Mode::Filter { late: false } => {
                let words = "the content policy does not allow this";
                self.error(400, "", "invalid_request_error", "content_filter", words)
            }
            Mode::Filter { late: true } => {
                self.good(&AnswerShape { finish: Finish::Filtered, ..self.answer_of(3) }, 0)
            }
            Mode::Reasoning => self.good(&AnswerShape { reasoning: 4, ..self.answer_of(4) }, 0),
            Mode::Tools => {
                self.good(&AnswerShape { finish: Finish::Tools, ..self.answer_of(0) }, 0)
            }
            Mode::Glm(code) => {
                let status = match code {
                    1000..=1004 => 401,
                    1211 | 1261 | 1301 => 400,
                    _ => 429,
                };
                let message = match code {
                    1308 | 1310 => "used up, resets at 2099-01-01 00:00:00",
                    _ => "mock",
                };
                let body = json!({ "error": { "code": code.to_string(), "message": message } });
                vec![Step::Whole { status, headers: String::new(), body: body.to_string() }]
            }
        }
    }

    fn status(&self, status: u16, headers: &str) -> Vec<Step> {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        let code = match status {
            401 => "invalid_api_key",
            404 => "model_not_found",
            429 => "rate_limit_exceeded",
            _ => "mock",
        };
        self.error(status, headers, kind, code, "mock")
    }

    fn error(&self, status: u16, headers: &str, kind: &str, code: &str, words: &str) -> Vec<Step> {
        let body = if self.anthropic {
            json!({ "type": "error", "error": { "type": kind, "message": words } })
        } else {
            json!({ "error": { "message": words, "type": kind, "param": null, "code": code } })
        };
        vec![Step::Whole { status, headers: headers.to_owned(), body: body.to_string() }]
    }

    fn answer_of(&self, tokens: u64) -> AnswerShape {
        AnswerShape { tokens, reasoning: 0, finish: Finish::Done }
    }

    /// A good answer, so many milliseconds between its tokens.
    fn good(&self, shape: &AnswerShape, gap_ms: u64) -> Vec<Step> {
        if !self.stream {
            let wait = gap_ms * shape.tokens;
            let body = self.whole(shape).to_string();
            let whole = Step::Whole { status: 200, headers: String::new(), body };
            return if wait == 0 { vec![whole] } else { vec![Step::Sleep(wait), whole] };
        }
        let mut script = vec![Step::Head { length: None }];
        for (index, event) in self.events(shape).into_iter().enumerate() {
            if index > 0 && gap_ms > 0 {
                script.push(Step::Sleep(gap_ms));
            }
            script.push(Step::Chunk(event));
        }
        script.push(Step::End);
        script
    }

    /// The first half of a good answer, then something else.
    fn half(&self, then: Step) -> Vec<Step> {
        let shape = self.answer_of(8);
        if !self.stream {
            let body = self.whole(&shape).to_string();
            let half = body[..body.len() / 2].to_owned();
            return vec![Step::Head { length: Some(body.len()) }, Step::Raw(half), then];
        }
        let mut script = self.good(&shape, 0);
        script.truncate(6);
        script.push(then);
        script
    }

    /// The first half of a stream, then an event that does not belong there.
    fn broken_off(&self, event: &str) -> Vec<Step> {
        let mut script = self.half(Step::Chunk(event.to_owned()));
        script.push(Step::End);
        script
    }

    fn whole(&self, shape: &AnswerShape) -> Value {
        if self.embeddings {
            return json!({
                "object": "list", "model": self.model,
                "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, -0.5] }],
                "usage": { "prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS },
            });
        }
        let (text, tokens) = (shape.text(), shape.tokens + shape.reasoning);
        if self.anthropic {
            let mut content = Vec::new();
            if shape.reasoning > 0 {
                content.push(json!({ "type": "thinking", "thinking": shape.thoughts(), "signature": "mock" }));
            }
            if shape.tokens > 0 {
                content.push(json!({ "type": "text", "text": text }));
            }
            if shape.finish == Finish::Tools {
                for (index, name) in TOOLS.into_iter().enumerate() {
                    content.push(json!({ "type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": { "n": index } }));
                }
            }
            return json!({
                "id": "msg_mock", "type": "message", "role": "assistant", "model": self.model,
                "content": content, "stop_reason": shape.finish.anthropic(), "stop_sequence": null,
                "usage": { "input_tokens": PROMPT_TOKENS, "output_tokens": tokens },
            });
        }
        let mut message = json!({ "role": "assistant", "content": text });
        if shape.reasoning > 0 {
            message["reasoning_content"] = shape.thoughts().into();
        }
        if shape.finish == Finish::Tools {
            let call = |(index, name): (usize, &str)| json!({ "id": format!("call_{index}"), "type": "function", "function": { "name": name, "arguments": format!("{{\"n\":{index}}}") } });
            message["content"] = Value::Null;
            message["tool_calls"] = TOOLS.into_iter().enumerate().map(call).collect();
        }
        json!({
            "id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": self.model,
            "choices": [{ "index": 0, "message": message, "finish_reason": shape.finish.openai() }],
            "usage": self.usage_of(tokens),
        })
    }

    fn usage_of(&self, tokens: u64) -> Value {
        json!({ "prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens })
    }

    /// The events of a stream: the role first, its last word last.
    fn events(&self, shape: &AnswerShape) -> Vec<String> {
        if self.anthropic { self.anthropic_events(shape) } else { self.openai_events(shape) }
    }

    fn openai_events(&self, shape: &AnswerShape) -> Vec<String> {
        let chunk = |delta: Value, finish: Option<&str>| {
            let chunk = json!({
                "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": self.model,
                "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
            });
            format!("data: {chunk}\n\n")
        };
        let mut events = vec![chunk(json!({ "role": "assistant", "content": "" }), None)];
        for index in 0..shape.reasoning {
            events.push(chunk(json!({ "reasoning_content": format!("why{index} ") }), None));
        }
        for index in 0..shape.tokens {
            events.push(chunk(json!({ "content": format!("token{index} ") }), None));
        }
        if shape.finish == Finish::Tools {
            for (index, name) in TOOLS.into_iter().enumerate() {
                let call = json!([{ "id": format!("call_{index}"), "type": "function", "function": { "name": name, "arguments": "" } }]);
                events.push(chunk(json!({ "tool_calls": call }), None));
                let call = json!([{ "function": { "arguments": format!("{{\"n\":{index}}}") } }]);
                events.push(chunk(json!({ "tool_calls": call }), None));
            }
        }
        events.push(chunk(json!({}), Some(shape.finish.openai())));
        if self.usage {
            let usage = json!({
                "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": self.model,
                "choices": [], "usage": self.usage_of(shape.tokens + shape.reasoning),
            });
            events.push(format!("data: {usage}\n\n"));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn anthropic_events(&self, shape: &AnswerShape) -> Vec<String> {
        let event = |data: Value| {
            format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
        };
        let mut events = vec![event(json!({ "type": "message_start", "message": {
            "id": "msg_mock", "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": PROMPT_TOKENS, "output_tokens": 1 },
        }}))];
        let mut index = 0;
        let mut block = |start: Value, deltas: Vec<Value>| {
            events.push(event(
                json!({ "type": "content_block_start", "index": index, "content_block": start }),
            ));
            for delta in deltas {
                events.push(event(
                    json!({ "type": "content_block_delta", "index": index, "delta": delta }),
                ));
            }
            events.push(event(json!({ "type": "content_block_stop", "index": index })));
            index += 1;
        };
        if shape.reasoning > 0 {
            let thought =
                |index| json!({ "type": "thinking_delta", "thinking": format!("why{index} ") });
            let thoughts = (0..shape.reasoning).map(thought).collect();
            block(json!({ "type": "thinking", "thinking": "", "signature": "" }), thoughts);
        }
        if shape.tokens > 0 {
            let token = |index| json!({ "type": "text_delta", "text": format!("token{index} ") });
            block(json!({ "type": "text", "text": "" }), (0..shape.tokens).map(token).collect());
        }
        if shape.finish == Finish::Tools {
            for (index, name) in TOOLS.into_iter().enumerate() {
                let start = json!({ "type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": {} });
                block(
                    start,
                    vec![
                        json!({ "type": "input_json_delta", "partial_json": format!("{{\"n\":{index}}}") }),
                    ],
                );
            }
        }
        let delta = json!({ "stop_reason": shape.finish.anthropic(), "stop_sequence": null });
        let usage = json!({ "output_tokens": shape.tokens + shape.reasoning });
        events.push(event(json!({ "type": "message_delta", "delta": delta, "usage": usage })));
        events.push(event(json!({ "type": "message_stop" })));
        events
    }
}

/// What an answer consists of.
struct AnswerShape {
    tokens: u64,
    reasoning: u64,
    finish: Finish,
}

impl AnswerShape {
    fn text(&self) -> String {
        (0..self.tokens).map(|index| format!("token{index} ")).collect()
    }

    fn thoughts(&self) -> String {
        (0..self.reasoning).map(|index| format!("why{index} ")).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Done,
    Tools,
    Filtered,
}

impl Finish {
    fn openai(self) -> &'static str {
        match self {
            Self::Done => "stop",
            Self::Tools => "tool_calls",
            Self::Filtered => "content_filter",
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::Done => "end_turn",
            Self::Tools => "tool_use",
            Self::Filtered => "refusal",
        }
    }
}

/// Counts something while it lasts.
struct Count<'a>(&'a AtomicU64);

impl<'a> Count<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Tells how long a request took when it is over, however.
struct Timed<'a> {
    state: &'a State,
    name: String,
    watch: Watch,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.state.on_answered(std::mem::take(&mut self.name), self.watch);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

const PROMPT_TOKENS: u64 = 7;
const CREATED: u64 = 1_700_000_000;
const TOOLS: [&str; 2] = ["look", "leap"];

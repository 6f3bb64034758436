//! From a record to spans: one of the request, and one of each attempt below it.
//!
//! Names are those of OpenTelemetry's GenAI conventions (open-telemetry/semantic-conventions-genai as of 2026-11, all of them
//! still in development), and `bowline.*` for what has none there. Two things differ from them on purpose. They would have one
//! span for an operation with all its retries, under the name of one provider, which charges that one with what others did: here
//! the request's span names no provider and has no tokens, and each attempt has its own. And neither prompts, nor answers, nor
//! what a provider says in its errors, which may quote them, are ever in a span.

use std::{collections::BTreeMap, time::Duration};

use bowline_ai::{
    record::{AttemptRecord, RequestRecord},
    route::TargetId,
    trace::Trace,
    wire::{FaultKind, Outcome, Usage},
};

use super::otlp::{KeyValue, Span, SpanKind, Status, StatusCode, Value};
use crate::config::{Ai, Provider, ProviderKind};

/// What is said of each provider, by its name.
#[derive(Debug, Default)]
pub(super) struct Providers(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    /// `gen_ai.provider.name`
    flavour: &'static str,
    host: String,
    port: u16,
}

impl Providers {
    pub(super) fn of(ai: &Ai) -> Self {
        let known = |(name, provider): &(String, Provider)| {
            let uri: http::Uri = provider.base_url.parse().ok()?;
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
            let secure = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            Some((name.clone(), Known { flavour: flavour(&host, provider.kind), host, port }))
        };
        Self(ai.providers.0.iter().filter_map(known).collect())
    }
}

/// The spans of a request.
pub(super) fn of_record(record: &RequestRecord, providers: &Providers) -> Vec<Span> {
    let trace = Trace::of(&record.id, record.parent.as_deref());
    let mut spans = vec![of_request(record, &trace)];
    let attempts = record.attempts.iter();
    spans.extend(attempts.map(|attempt| of_attempt(record, attempt, &trace, providers)));
    spans
}

/// What a client asked, and what it got.
fn of_request(record: &RequestRecord, trace: &Trace) -> Span {
    let mut attributes = Attributes::default();
    attributes.put("gen_ai.operation.name", record.surface.operation());
    if !record.requested.is_empty() {
        attributes.put("gen_ai.request.model", &*record.requested);
    }
    attributes.put("gen_ai.request.stream", record.stream);
    attributes.maybe("session.id", record.session.as_deref());
    attributes.put("http.response.status_code", u64::from(record.status));
    attributes.put("bowline.request.id", &*record.id);
    attributes.put("bowline.outcome", record.outcome.name());
    attributes.maybe("bowline.served_by", record.served().map(TargetId::to_string));
    attributes.put("bowline.fell_back", record.fell_back());
    attributes.put("bowline.attempts", record.attempts.len() as u64);
    attributes.maybe("bowline.key", record.key.as_deref());
    attributes.maybe("bowline.first_content", record.first_content.map(seconds));
    attributes.put("bowline.queued", seconds(record.queued));
    attributes.put("bowline.own_time", seconds(record.own_time()));
    attributes.put("bowline.client_time", seconds(record.client_time()));
    if record.client_retry > 0 {
        // Which retry of the client's own this is.
        attributes.put("http.request.resend_count", u64::from(record.client_retry));
    }
    // A server's span is an error if the server is to blame; a stream that died is one, whatever its status was.
    let is_error = matches!(record.outcome, Outcome::Fault(_))
        && (record.status >= 500 || record.status == 200);
    if record.outcome != Outcome::Ok {
        attributes.put("error.type", record.outcome.name());
    }
    let parent = record.parent.as_deref();
    let start = Duration::from_millis(record.started_unix_ms);
    let remote = if parent.is_some() { IS_REMOTE } else { 0 };
    Span {
        span_id: trace.span_id.to_be_bytes().to_vec(),
        parent_span_id: parent
            .map(|parent| parent.span_id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(start + record.took),
        attributes: attributes.0,
        status: is_error.then(|| status(record.outcome)),
        flags: SAMPLED | KNOWS_REMOTE | remote,
        ..named(record, &record.requested, trace)
    }
}

/// One provider, asked once. It ends with what the provider took: the time in which a slow client kept it waiting is not its.
fn of_attempt(
    record: &RequestRecord,
    attempt: &AttemptRecord,
    trace: &Trace,
    providers: &Providers,
) -> Span {
    let model = attempt.target.model();
    let mut attributes = Attributes::default();
    attributes.put("gen_ai.operation.name", record.surface.operation());
    match providers.0.get(&**attempt.target.provider()) {
        Some(known) => {
            attributes.put("gen_ai.provider.name", known.flavour);
            attributes.put("server.address", known.host.as_str());
            attributes.put("server.port", u64::from(known.port));
        }
        // It has been taken out of the configuration since.
        None => attributes.put("gen_ai.provider.name", &**attempt.target.provider()),
    }
    attributes.put("gen_ai.request.model", &**model);
    attributes.put("gen_ai.request.stream", record.stream);
    attributes.maybe("gen_ai.response.model", attempt.identity.model.as_deref());
    attributes.maybe("gen_ai.response.id", attempt.identity.id.as_deref());
    let finish = attempt.finish.map(|finish| vec![finish.name()]);
    attributes.maybe("gen_ai.response.finish_reasons", finish);
    let first = attempt.first_content.map(seconds);
    attributes.maybe("gen_ai.response.time_to_first_chunk", first);
    attributes.usage(&attempt.usage);
    attributes.maybe("http.response.status_code", attempt.status.map(u64::from));
    attributes.put("bowline.provider", &**attempt.target.provider());
    attributes.put("bowline.attempt.number", u64::from(attempt.number));
    attributes.put("bowline.attempt.reason", attempt.reason.name());
    attributes.put("bowline.outcome", attempt.outcome.name());
    attributes.maybe("bowline.provider_code", attempt.code.as_deref());
    attributes.put("bowline.queued", seconds(attempt.queued));
    attributes.maybe("bowline.connect_time", attempt.connect.map(seconds));
    attributes.maybe("bowline.headers_time", attempt.headers.map(seconds));
    attributes.put("bowline.client_time", seconds(attempt.stalled));
    if let Outcome::Fault(FaultKind::Timeout(timer)) = attempt.outcome {
        attributes.put("bowline.timer", timer.name());
    }
    let is_error = matches!(attempt.outcome, Outcome::Fault(_));
    if is_error {
        attributes.put("error.type", attempt.outcome.name());
    }
    let start = Duration::from_millis(record.started_unix_ms) + attempt.started;
    Span {
        span_id: trace.attempt(attempt.number).to_be_bytes().to_vec(),
        parent_span_id: trace.span_id.to_be_bytes().to_vec(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(start + attempt.took),
        attributes: attributes.0,
        status: is_error.then(|| status(attempt.outcome)),
        flags: SAMPLED | KNOWS_REMOTE,
        ..named(record, model, trace)
    }
}

/// What both kinds of spans have.
fn named(record: &RequestRecord, model: &str, trace: &Trace) -> Span {
    let operation = record.surface.operation();
    let name = match model {
        "" => operation.to_owned(),
        model => format!("{operation} {model}"),
    };
    let state = record.parent.as_ref().and_then(|parent| parent.state.as_deref());
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        trace_state: state.unwrap_or_default().to_owned(),
        name,
        ..Span::default()
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn maybe(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn usage(&mut self, usage: &Usage) {
        let Usage { input, output, cached, written, reasoning, estimated } = *usage;
        if input == 0 && output == 0 {
            return;
        }
        self.put("gen_ai.usage.input_tokens", input);
        self.put("gen_ai.usage.output_tokens", output);
        for (name, tokens) in [
            ("gen_ai.usage.cache_read.input_tokens", cached),
            ("gen_ai.usage.cache_write.input_tokens", written),
            ("gen_ai.usage.reasoning.output_tokens", reasoning),
        ] {
            if tokens > 0 {
                self.put(name, tokens);
            }
        }
        if estimated {
            self.put("bowline.usage_estimated", true);
        }
    }
}

fn status(outcome: Outcome) -> Status {
    Status { message: outcome.name().to_owned(), code: StatusCode::Error.into() }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// The name that the conventions have for whoever is at an address, else the one whose API is spoken there.
fn flavour(host: &str, kind: ProviderKind) -> &'static str {
    let known = FLAVOURS.iter().find(|(domain, _)| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    known.map_or_else(|| kind_name(kind), |(_, name)| name)
}

fn kind_name(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::OpenAi => "openai",
        ProviderKind::Anthropic => "anthropic",
    }
}

/// Well-known values of `gen_ai.provider.name`, by domain. Zhipu has none there and is called as Moonshot is.
const FLAVOURS: &[(&str, &str)] = &[
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("openai.com", "openai"),
    ("anthropic.com", "anthropic"),
    ("moonshot.cn", "moonshot_ai"),
    ("moonshot.ai", "moonshot_ai"),
    ("bigmodel.cn", "zhipu_ai"),
    ("z.ai", "zhipu_ai"),
    ("deepseek.com", "deepseek"),
    ("groq.com", "groq"),
    ("mistral.ai", "mistral_ai"),
    ("perplexity.ai", "perplexity"),
    ("x.ai", "x_ai"),
    ("cohere.com", "cohere"),
    ("cohere.ai", "cohere"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("amazonaws.com", "aws.bedrock"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
];

/// `flags` of a span: those of W3C, and what is known of where its parent is.
const SAMPLED: u32 = 1;
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bowline_ai::{
        route::Reason,
        trace::Parent,
        wire::{FinishReason, Identity, Surface, Timer},
    };

    use super::*;
    use crate::config;

    const ID: &str = "req_0123456789abcdeffedcba9876543210";
    const MS: Duration = Duration::from_millis(1);

    fn providers() -> Providers {
        let text = "[ai.providers.kimi]\nkind = \"openai\"\nbase-url = \"https://api.moonshot.cn/v1\"\n\
                    [ai.providers.own]\nkind = \"anthropic\"\nbase-url = \"http://[::1]:9000\"\n";
        let file = Some(("/bowline.toml".into(), text.to_owned()));
        Providers::of(&config::of_text(file, Default::default()).unwrap().ai)
    }

    fn record() -> RequestRecord {
        let attempt = |number, provider: &str, started, took, outcome| {
            let target = TargetId::new(provider, "k2");
            let reason = if number == 1 { Reason::First } else { Reason::Fallback };
            let new = AttemptRecord::new(number, target, reason, started);
            AttemptRecord { took, outcome, ..new }
        };
        let timeout = Outcome::Fault(FaultKind::Timeout(Timer::FirstContent));
        let mut failed = attempt(1, "kimi", MS, 1_500 * MS, timeout);
        failed.words = Some("you said: SECRET".to_owned());
        let mut good = attempt(2, "own", 1_502 * MS, 8 * MS, Outcome::Ok);
        good.identity = Identity { id: Some("c-1".into()), model: Some("k2-0905".into()) };
        good.finish = Some(FinishReason::Stop);
        good.first_content = Some(3 * MS);
        good.stalled = 2 * MS;
        good.usage = Usage { input: 7, output: 5, cached: 2, ..Usage::default() };
        RequestRecord {
            id: ID.into(),
            surface: Surface::ChatCompletions,
            stream: true,
            requested: "chat".into(),
            key: Some("app".into()),
            session: None,
            client_retry: 0,
            parent: None,
            started_unix_ms: 1_000,
            queued: Duration::ZERO,
            first_content: Some(1_506 * MS),
            took: 1_513 * MS,
            outcome: Outcome::Ok,
            status: 200,
            attempts: vec![failed, good],
        }
    }

    fn get<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        let found = span.attributes.iter().find(|pair| pair.key == key)?;
        found.value.as_ref()?.value.as_ref()
    }

    fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
        match get(span, key)? {
            Value::Text(text) => Some(text),
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn an_attempt_has_its_own_time_and_its_own_provider() {
        let spans = of_record(&record(), &providers());
        let [request, failed, good] = &spans[..] else { panic!("{spans:?}") };
        let took = |span: &Span| (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000;
        assert_eq!((took(request), took(failed), took(good)), (1_513, 1_500, 8));
        assert_eq!(
            (request.start_time_unix_nano, good.start_time_unix_nano),
            (1_000_000_000, 2_502_000_000)
        );
        assert_eq!((&*request.name, &*good.name), ("chat chat", "chat k2"));
        let provider = |span| text(span, "gen_ai.provider.name");
        assert_eq!(
            (provider(request), provider(failed), provider(good)),
            (None, Some("moonshot_ai"), Some("anthropic"))
        );
        assert_eq!(get(request, "gen_ai.usage.input_tokens"), None);
        assert_eq!(get(good, "gen_ai.usage.input_tokens"), Some(&Value::Int(7)));
        assert_eq!(get(good, "gen_ai.usage.cache_read.input_tokens"), Some(&Value::Int(2)));
        assert_eq!(text(good, "gen_ai.response.model"), Some("k2-0905"));
        assert_eq!(text(good, "server.address"), Some("::1"));
        assert_eq!(get(good, "server.port"), Some(&Value::Int(9_000)));
        assert_eq!(text(failed, "error.type"), Some("timeout"));
        assert_eq!(text(failed, "bowline.timer"), Some("first-content"));
        assert!(failed.status.is_some() && good.status.is_none() && request.status.is_none());
        assert_eq!(text(request, "bowline.served_by"), Some("own/k2"));
        assert_eq!(text(request, "bowline.request.id"), Some(ID));
    }

    #[test]
    fn spans_belong_to_each_other_and_to_their_client() {
        let ids = |record: &RequestRecord| -> Vec<_> {
            let spans = of_record(record, &providers()).into_iter();
            spans
                .map(|span| (span.trace_id, span.span_id, span.parent_span_id, span.flags))
                .collect()
        };
        let mut record = record();
        let [request, first, second] = &ids(&record)[..] else { panic!("three spans") };
        assert_eq!(request.0, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes());
        assert!(request.2.is_empty() && request.0 == first.0 && request.0 == second.0);
        assert_eq!((&first.2, &second.2), (&request.1, &request.1));
        assert!(first.1 != second.1 && first.1 != request.1);
        assert_eq!((request.3, first.3), (0x101, 0x101));

        let parent = Parent { trace_id: 5, span_id: 6, sampled: true, state: Some("a=1".into()) };
        record.parent = Some(Arc::new(parent));
        let [request, first, _] = &ids(&record)[..] else { panic!("three spans") };
        assert_eq!(
            (&request.0[..], &request.2[..]),
            (&5_u128.to_be_bytes()[..], &6_u64.to_be_bytes()[..])
        );
        assert_eq!((&first.0, request.3), (&request.0, 0x301));
        assert_eq!(of_record(&record, &providers())[2].trace_state, "a=1");
    }

    #[test]
    fn whose_error_it_is_is_told() {
        let status = |outcome, status| {
            let spans = of_record(&RequestRecord { outcome, status, ..record() }, &providers());
            (spans[0].status.is_some(), text(&spans[0], "error.type").map(str::to_owned))
        };
        let error = |name: &str| Some(name.to_owned());
        assert_eq!(status(Outcome::Ok, 200), (false, None));
        assert_eq!(status(Outcome::Cancelled, 499), (false, error("cancelled")));
        assert_eq!(
            status(Outcome::Fault(FaultKind::BadRequest), 400),
            (false, error("bad-request"))
        );
        assert_eq!(status(Outcome::Fault(FaultKind::Broken), 502), (true, error("broken")));
        // Of a stream whose client has had its status.
        assert_eq!(status(Outcome::Fault(FaultKind::Truncated), 200), (true, error("truncated")));
    }

    #[test]
    fn what_a_provider_says_of_a_prompt_is_in_no_span() {
        let spans = of_record(&record(), &Providers::default());
        assert!(!format!("{spans:?}").contains("SECRET"));
        assert_eq!(text(&spans[1], "gen_ai.provider.name"), Some("kimi"));
    }

    #[test]
    fn providers_are_called_as_the_conventions_do() {
        let openai = |host| flavour(host, ProviderKind::OpenAi);
        assert_eq!(openai("api.moonshot.cn"), "moonshot_ai");
        assert_eq!(openai("mine.openai.azure.com"), "azure.ai.openai");
        assert_eq!(openai("api.x.ai"), "x_ai");
        assert_eq!(openai("x.ai.evil.example"), "openai");
        assert_eq!(openai("notx.ai"), "openai");
        assert_eq!(flavour("127.0.0.1", ProviderKind::Anthropic), "anthropic");
    }
}

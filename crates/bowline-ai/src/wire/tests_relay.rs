//! Streams through a [`Relay`], both dialects both ways.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const OPENAI: &str = concat!(
    ": hello\n\n",
    r#"data: {"id":"c1","object":"chat.completion.chunk","created":7,"model":"kimi-k2","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Hello \"you\""},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
    "\n\n",
);
const USAGE: &str = concat!(
    r#"data: {"id":"c1","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#,
    "\n\n"
);
const DONE: &str = "data: [DONE]\n\n";

const ANTHROPIC: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"claude","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_read_input_tokens":4,"cache_creation_input_tokens":2,"output_tokens":1}}}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    "\n\nevent: ping\n",
    r#"data: {"type": "ping"}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"xyz"}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":1}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":2}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t2","name":"g","input":{}}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":3}"#,
    "\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":9}}"#,
    "\n\n",
);
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[test]
fn the_bytes_of_a_stream_pass_unchanged() {
    let whole = [OPENAI, USAGE, DONE].concat();
    let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[&whole]);
    assert_eq!(out, whole);
    let usage = Usage { input: 20, output: 9, cached: 4, reasoning: 2, ..Usage::default() };
    assert_eq!(end, Ok(usage));
    let whole = [ANTHROPIC, STOP].concat();
    let (out, end) = relayed(&messages(), Dialect::Anthropic, &[&whole]);
    assert_eq!(out, whole);
    assert_eq!(end, Ok(Usage { input: 16, output: 9, cached: 4, written: 2, ..Usage::default() }));
}

#[test]
fn usage_that_was_not_asked_for_is_taken_out() {
    let (out, end) = relayed(&chat(false), Dialect::OpenAi, &[OPENAI, USAGE, DONE]);
    assert_eq!(out, [OPENAI, DONE].concat());
    assert_eq!(end.unwrap().output, 9);
    let crlf = [OPENAI, USAGE, DONE].concat().replace('\n', "\r\n");
    let (out, _) = relayed(&chat(false), Dialect::OpenAi, &[&crlf]);
    assert_eq!(out, [OPENAI, DONE].concat().replace('\n', "\r\n"));
}

#[test]
fn usage_is_found_wherever_the_provider_puts_it() {
    let kimi = concat!(
        r#"data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":1,"cached_tokens":2}}]}"#,
        "\n\n"
    );
    let (out, end) = relayed(&chat(false), Dialect::OpenAi, &[kimi, DONE]);
    assert_eq!(out, [kimi, DONE].concat());
    assert_eq!(end, Ok(Usage { input: 3, output: 1, cached: 2, ..Usage::default() }));
}

#[test]
fn usage_is_estimated_until_it_is_told() {
    let mut relay = Relay::new(&chat(false), Dialect::OpenAi, 0);
    relay.push(OPENAI.as_bytes(), &mut Vec::new()).unwrap();
    let usage = relay.usage();
    assert!(usage.estimated);
    assert_eq!((usage.input, usage.output), (1, relay.seen().tokens));
    assert_eq!(usage.output, 1 + 2 + 1 + 2 + 1);
}

#[test]
fn roles_pings_and_empty_deltas_are_no_content() {
    let empty = [
        ": ping\n\n",
        "\n\n",
        "data: \n\n",
        "event: ping\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":null}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":null,\"tool_calls\":[]},\"finish_reason\":\"\"}]}\n\n",
        "data: {\"choices\":[{\"index\":0}]}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
    ];
    let mut relay = Relay::new(&chat(false), Dialect::OpenAi, 0);
    let mut out = Vec::new();
    for event in empty {
        assert_eq!(relay.push(event.as_bytes(), &mut out).unwrap(), Seen::default(), "{event}");
    }
    assert_eq!(out, empty.concat().as_bytes());
    for delta in [
        r#""content":"a""#,
        r#""content":[{"type":"text","text":"a"}]"#,
        r#""reasoning_content":"a""#,
        r#""reasoning":"a""#,
        r#""refusal":"a""#,
        r#""tool_calls":[{"index":0,"function":{"name":"f"}}]"#,
        r#""function_call":{"name":"f"}"#,
    ] {
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{{delta}}}}}]}}\n\n");
        assert!(relay.push(event.as_bytes(), &mut out).unwrap().content, "{event}");
    }
    let mut relay = Relay::new(&messages(), Dialect::Anthropic, 0);
    let until_content = &ANTHROPIC[..ANTHROPIC.find("event: content_block_delta").unwrap()];
    assert_eq!(relay.push(until_content.as_bytes(), &mut out).unwrap(), Seen::default());
    let rest = relay.push(&ANTHROPIC.as_bytes()[until_content.len()..], &mut out).unwrap();
    assert!(rest.content && rest.finished);
}

#[test]
fn what_is_finished_is_complete_without_its_mark() {
    let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[OPENAI]);
    assert_eq!(out, [OPENAI, DONE].concat());
    assert!(end.is_ok());
    let (out, end) = relayed(&messages(), Dialect::Anthropic, &[ANTHROPIC]);
    assert_eq!(out, [ANTHROPIC, STOP].concat());
    assert!(end.is_ok());
    // Neither is a blank line missed, nor the rest of an event that was cut off behind the end.
    let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[OPENAI, "data: [DONE]"]);
    assert_eq!(out, [OPENAI, DONE].concat());
    assert!(end.is_ok());
    let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[OPENAI, "data: {\"choi"]);
    assert_eq!(out, [OPENAI, DONE].concat());
    assert!(end.is_ok());
}

#[test]
fn what_is_cut_off_is_not_complete() {
    let cut = &OPENAI
        [..OPENAI.find("data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{}").unwrap()];
    let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[cut, "data: {\"choi"]);
    assert_eq!((out.as_str(), end), (cut, Err(StreamFault::Truncated)));
    for whole in ["", ": ping\n\n", DONE] {
        assert_eq!(
            relayed(&chat(true), Dialect::OpenAi, &[whole]).1,
            Err(StreamFault::Truncated),
            "{whole}"
        );
    }
    let cut = &ANTHROPIC[..ANTHROPIC.find("event: message_delta").unwrap()];
    assert_eq!(relayed(&messages(), Dialect::Anthropic, &[cut]).1, Err(StreamFault::Truncated));
    assert_eq!(relayed(&chat(true), Dialect::Anthropic, &[cut]).1, Err(StreamFault::Truncated));
    // Of two answers, one is not done.
    let half = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"a\"}}]}\n\n\
                data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(relayed(&chat(true), Dialect::OpenAi, &[half]).1, Err(StreamFault::Truncated));
}

#[test]
fn answers_may_come_one_behind_the_other() {
    let body = br#"{"model":"chat","messages":[{}],"stream":true,"n":2}"#;
    let two = Ask::parse(Surface::ChatCompletions, Bytes::from_static(body)).unwrap();
    let choice = |index, finish: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let (first, half, second) = (choice(0, "\"stop\""), choice(1, "null"), choice(1, "\"stop\""));
    for cut in [vec![&*first], vec![&*first, &*half], vec![&*first, &*half, DONE]] {
        let (out, end) = relayed(&two, Dialect::OpenAi, &cut);
        assert_eq!(end, Err(StreamFault::Truncated), "{cut:?}");
        assert!(!out.contains("[DONE]"), "{out}");
    }
    let (out, end) = relayed(&two, Dialect::OpenAi, &[&first, &half, &second]);
    assert!(end.is_ok() && out.ends_with(DONE), "{out}");
    // Some providers give one, whatever is asked for.
    assert!(relayed(&two, Dialect::OpenAi, &[&first, DONE]).1.is_ok());
}

#[test]
fn a_mark_of_the_end_does_not_make_it_whole() {
    let cut = &OPENAI
        [..OPENAI.find("data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{}").unwrap()];
    for ask in [chat(true), messages()] {
        let (out, end) = relayed(&ask, Dialect::OpenAi, &[cut, DONE]);
        assert_eq!(end, Err(StreamFault::Truncated));
        assert!(!out.contains("[DONE]") && !out.contains("message_stop"), "{out}");
    }
    let cut = &ANTHROPIC[..ANTHROPIC.find("event: message_delta").unwrap()];
    for ask in [chat(true), messages()] {
        let (out, end) = relayed(&ask, Dialect::Anthropic, &[cut, STOP]);
        assert_eq!(end, Err(StreamFault::Truncated));
        assert!(!out.contains("[DONE]") && !out.contains("message_stop"), "{out}");
    }
}

#[test]
fn the_lf_of_the_last_line_is_passed_on_though_it_comes_late() {
    let whole = [OPENAI, DONE].concat().replace('\n', "\r\n");
    let (most, lf) = whole.split_at(whole.len() - 1);
    assert_eq!(relayed(&chat(true), Dialect::OpenAi, &[most, lf, "\n"]).0, whole);
}

#[test]
fn nothing_is_passed_on_behind_the_end() {
    let (out, end) =
        relayed(&chat(true), Dialect::OpenAi, &[OPENAI, DONE, "data: {\"nonsense\n\n"]);
    assert_eq!(out, [OPENAI, DONE].concat());
    assert!(end.is_ok());
}

#[test]
fn errors_in_a_stream_are_faults_and_not_passed_on() {
    let start = &OPENAI
        [..OPENAI.find("data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{}").unwrap()];
    let rows = [
        (r#"{"error":{"code":"1302","message":"too many"}}"#, FaultKind::RateLimited),
        (
            r#"{"error":{"message":"The server had an error","type":"server_error","code":null}}"#,
            FaultKind::ServerError,
        ),
        (
            r#"{"object":"error","message":"out of memory","type":"InternalServerError","code":500}"#,
            FaultKind::ServerError,
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            FaultKind::Overloaded,
        ),
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"network_error"}]}"#,
            FaultKind::ServerError,
        ),
        (r#"{"choices":[{"index":0,"delta":{"content":"a"}"#, FaultKind::Malformed),
        (r#"{"choices":7}"#, FaultKind::Malformed),
        ("not JSON", FaultKind::Malformed),
    ];
    for (data, kind) in rows {
        let mut relay = Relay::new(&chat(true), Dialect::OpenAi, 0);
        let mut out = Vec::new();
        let fault =
            relay.push(format!("{start}data: {data}\n\n{DONE}").as_bytes(), &mut out).unwrap_err();
        assert_eq!(Fault::from(fault.clone()).kind, kind, "{data}");
        assert_eq!(String::from_utf8_lossy(&out), start, "{data}");
        assert!(relay.seen().content);
        assert_eq!(relay.push(DONE.as_bytes(), &mut out), Err(fault.clone()));
        assert_eq!(relay.end(&mut out), Err(fault));
    }
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    for ask in [messages(), chat(true)] {
        let fault = relayed(&ask, Dialect::Anthropic, &[error]).1.unwrap_err();
        assert_eq!(Fault::from(fault).kind, FaultKind::Overloaded);
    }
    let plain = r#"{"error":{"code":"1113","message":"in arrears"}}"#;
    let fault = relayed(&chat(true), Dialect::OpenAi, &[plain]).1.unwrap_err();
    assert_eq!(Fault::from(fault).kind, FaultKind::Billing);
}

#[test]
fn tool_calls_that_are_numbered_wrong_are_put_right() {
    let one_based = OPENAI
        .replace(r#"[{"index":1,"id":"t2""#, r#"[{"index":2,"id":"t2""#)
        .replace(r#"[{"index":0,"id":"t1""#, r#"[{"index":1,"id":"t1""#);
    let one_based = one_based.replace(r#"[{"index":0,"function""#, r#"[{"index":1,"function""#);
    let none = OPENAI
        .replace(r#"[{"index":0,"id""#, r#"[{"id""#)
        .replace(r#"[{"index":1,"id""#, r#"[{"id""#);
    let none = none.replace(r#"[{"index":0,"function""#, r#"[{"function""#);
    for wrong in [one_based, none] {
        assert_ne!(wrong, OPENAI);
        let (out, end) = relayed(&chat(true), Dialect::OpenAi, &[&wrong, DONE]);
        assert!(end.is_ok());
        assert_eq!(values(&out), values(&[OPENAI, DONE].concat()));
    }
}

#[test]
fn an_event_may_not_grow_without_end() {
    let mut relay = Relay::new(&chat(true), Dialect::OpenAi, 0);
    let mut out = Vec::new();
    let piece = vec![b'a'; 1024 * 1024];
    relay.push(b"data: ", &mut out).unwrap();
    let fault = (0..20).find_map(|_| relay.push(&piece, &mut out).err());
    assert_eq!(fault, Some(StreamFault::TooLarge));
}

#[test]
fn a_short_event_may_not_become_a_long_list() {
    let choices =
        |count: usize| format!("data: {{\"choices\":[{}{{}}]}}\n\n", "{},".repeat(count - 1));
    let mut relay = Relay::new(&chat(true), Dialect::OpenAi, 0);
    let mut out = Vec::new();
    assert!(relay.push(choices(128).as_bytes(), &mut out).is_ok());
    assert!(matches!(
        relay.push(choices(129).as_bytes(), &mut out),
        Err(StreamFault::Malformed(_))
    ));
}

#[test]
fn anthropics_stream_reads_as_openais() {
    let (out, end) = relayed(&chat(true), Dialect::Anthropic, &[ANTHROPIC, STOP]);
    assert_eq!(end, Ok(Usage { input: 16, output: 9, cached: 4, written: 2, ..Usage::default() }));
    insta::assert_snapshot!(out);
    let (without, _) = relayed(&chat(false), Dialect::Anthropic, &[ANTHROPIC, STOP]);
    assert!(!without.contains("usage") && without.ends_with(DONE));
}

#[test]
fn openais_stream_reads_as_anthropics() {
    let (out, end) = relayed(&messages(), Dialect::OpenAi, &[OPENAI, USAGE, DONE]);
    assert_eq!(end.unwrap().output, 9);
    insta::assert_snapshot!(out);
    // The same without the mark at the end.
    assert_eq!(relayed(&messages(), Dialect::OpenAi, &[OPENAI, USAGE]).0, out);
}

#[test]
fn a_translation_that_is_translated_back_says_the_same() {
    let (there, _) = relayed(&chat(true), Dialect::Anthropic, &[ANTHROPIC, STOP]);
    let (back, end) = relayed(&messages(), Dialect::OpenAi, &[&there]);
    assert!(end.is_ok());
    assert_eq!(said(&back), said(&[ANTHROPIC, STOP].concat()));
}

proptest! {
    /// However a stream is cut, the client gets the same, and the same is counted.
    #[test]
    fn any_split_gives_the_same(
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        crlf in any::<bool>(),
        which in 0..4_usize,
    ) {
        let (ask, dialect, whole) = match which {
            0 => (chat(false), Dialect::OpenAi, [OPENAI, USAGE, DONE].concat()),
            1 => (messages(), Dialect::OpenAi, [OPENAI, USAGE, DONE].concat()),
            2 => (messages(), Dialect::Anthropic, [ANTHROPIC, STOP].concat()),
            _ => (chat(true), Dialect::Anthropic, [ANTHROPIC, STOP].concat()),
        };
        let whole = if crlf { whole.replace('\n', "\r\n") } else { whole };
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        at.extend([0, whole.len()]);
        at.sort_unstable();
        let pieces: Vec<&str> = at.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
        prop_assert_eq!(relayed(&ask, dialect, &pieces), relayed(&ask, dialect, &[&whole]));
    }

    /// Wherever a stream breaks off, it is either complete or told to be broken, and what came out are whole events.
    #[test]
    fn a_stream_never_ends_in_the_middle(cut in any::<prop::sample::Index>(), which in 0..4_usize) {
        let (ask, dialect, whole) = match which {
            0 => (chat(false), Dialect::OpenAi, [OPENAI, USAGE, DONE].concat()),
            1 => (messages(), Dialect::OpenAi, [OPENAI, USAGE, DONE].concat()),
            2 => (messages(), Dialect::Anthropic, [ANTHROPIC, STOP].concat()),
            _ => (chat(true), Dialect::Anthropic, [ANTHROPIC, STOP].concat()),
        };
        let at = cut.index(whole.len());
        let (out, end) = relayed(&ask, dialect, &[&whole[..at]]);
        prop_assert!(out.is_empty() || out.ends_with("\n\n"));
        let finish = if dialect == Dialect::OpenAi { r#""finish_reason":"tool_calls"}]}"# } else { r#""output_tokens":9}}"# };
        let finished = at >= whole.find(finish).unwrap() + finish.len();
        prop_assert_eq!(end.is_ok(), finished);
        prop_assert_eq!(out.ends_with(DONE) || out.ends_with(STOP), finished);
    }
}

/// A stream through a relay: what the client got, and how it ended.
fn relayed(ask: &Ask, dialect: Dialect, pieces: &[&str]) -> (String, Result<Usage, StreamFault>) {
    let mut relay = Relay::new(ask, dialect, 1_700_000_000);
    let mut out = Vec::new();
    let mut sum = Seen::default();
    for piece in pieces {
        match relay.push(piece.as_bytes(), &mut out) {
            Ok(seen) => {
                sum.content |= seen.content;
                sum.finished |= seen.finished;
                sum.tokens += seen.tokens;
                assert_eq!(sum, relay.seen());
            }
            Err(fault) => return (String::from_utf8(out).unwrap(), Err(fault)),
        }
    }
    let end = relay.end(&mut out);
    (String::from_utf8(out).unwrap(), end)
}

fn chat(wants_usage: bool) -> Ask {
    let body = format!(
        r#"{{"model":"chat","messages":[{{"role":"user","content":"hi"}}],"stream":true,"stream_options":{{"include_usage":{wants_usage}}}}}"#
    );
    Ask::parse(Surface::ChatCompletions, body.into()).unwrap()
}

fn messages() -> Ask {
    let body = br#"{"model":"chat","messages":[{"role":"user","content":"hi"}],"max_tokens":100,"stream":true}"#;
    Ask::parse(Surface::Messages, Bytes::from_static(body)).unwrap()
}

/// The data of each event, as values.
fn values(stream: &str) -> Vec<serde_json::Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
}

/// What an Anthropic stream says, block by block.
fn said(stream: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut end = String::new();
    for event in values(stream) {
        let index = usize::try_from(event["index"].as_u64().unwrap_or_default()).unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                let block = &event["content_block"];
                blocks.push(format!("{} {} {}: ", block["type"], block["id"], block["name"]));
            }
            "content_block_delta" => {
                for key in ["text", "thinking", "partial_json"] {
                    blocks[index].push_str(event["delta"][key].as_str().unwrap_or_default());
                }
            }
            "message_delta" => {
                end =
                    format!("{} {}", event["delta"]["stop_reason"], event["usage"]["output_tokens"])
            }
            _ => {}
        }
    }
    // No arguments are the same as `{}`.
    let mut said: Vec<String> =
        blocks.iter().map(|block| block.trim_end_matches("{}").to_owned()).collect();
    said.push(end);
    said
}

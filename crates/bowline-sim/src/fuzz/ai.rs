//! What AI providers and their clients send: streams through a relay, requests and answers.

use std::time::SystemTime;

use bowline_ai::wire::{
    Ask, Dialect, FaultKind, Relay, StreamFault, Surface, Usage, answer, judge,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::{meter::peak_bytes, rng::Rng};

const WAYS: [(Surface, Dialect); 4] = [
    (Surface::ChatCompletions, Dialect::OpenAi),
    (Surface::ChatCompletions, Dialect::Anthropic),
    (Surface::Messages, Dialect::OpenAi),
    (Surface::Messages, Dialect::Anthropic),
];

/// A byte that says who talks to whom, a byte that says how the stream is cut, and the stream.
pub(super) fn stream(data: &[u8]) {
    let [way, cut, stream @ ..] = data else { return };
    let (surface, dialect) = WAYS[usize::from(way % 4)];
    let ask = asked(surface, way & 4 != 0);
    let mut whole = None;
    let peak = peak_bytes(|| whole = Some(relayed(&ask, dialect, &[stream])));
    let bound = 400 * stream.len() + 65_536;
    assert!(peak <= bound, "{peak} bytes for a stream of {}", stream.len());
    let whole = whole.expect("it was made");
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(*cut % 31) + 1).collect();
    assert_eq!(relayed(&ask, dialect, &pieces), whole, "cut otherwise, it is another stream");

    let (out, end) = whole;
    let Ok(out) = String::from_utf8(out) else {
        assert_eq!(surface.dialect(), dialect, "only what is passed on as it is may be no text");
        return;
    };
    match (surface, dialect) {
        (Surface::Messages, Dialect::OpenAi) => check_anthropic(&out, end.is_ok()),
        (Surface::ChatCompletions, Dialect::Anthropic) => check_openai(&out, end.is_ok()),
        _ => {}
    }
}

/// A byte that says who talks to whom, and a body: as a request, as an answer, as a refusal.
pub(super) fn body(data: &[u8]) {
    let [way, body @ ..] = data else { return };
    let (surface, dialect) = WAYS[usize::from(way % 4)];
    let bytes = Bytes::copy_from_slice(body);
    let surface = if way & 8 != 0 { Surface::Embeddings } else { surface };
    if let Ok(ask) = Ask::parse(surface, bytes.clone()) {
        if let Ok(sent) = ask.body_for(surface.dialect(), "a \"model\"") {
            let again = Ask::parse(surface, sent.clone()).expect("a request stays a request");
            assert_eq!(again.model(), "a \"model\"");
            assert_eq!(
                (again.stream(), again.max_tokens(), again.user()),
                (ask.stream(), ask.max_tokens(), ask.user())
            );
            assert!(!ask.stream() || again.wants_usage());
            assert_eq!(again.body_for(surface.dialect(), "a \"model\""), Ok(sent));
        }
        let other = match surface {
            Surface::ChatCompletions => Some((Dialect::Anthropic, Surface::Messages)),
            Surface::Messages => Some((Dialect::OpenAi, Surface::ChatCompletions)),
            Surface::Embeddings => None,
        };
        if let Some((dialect, surface)) = other
            && let Ok(sent) = ask.body_for(dialect, "model")
        {
            let there = Ask::parse(surface, sent).expect("a translation is a request");
            assert_eq!((there.model(), there.stream()), ("model", ask.stream()));
        }
    }
    if let Ok(found) = answer(&asked(surface, false), dialect, &bytes, 7) {
        serde_json::from_slice::<serde::de::IgnoredAny>(&found.body).expect("an answer is JSON");
        assert!(found.body == bytes || surface.dialect() != dialect);
    }
    let status = StatusCode::from_u16(400 + u16::from(*way)).expect("three digits");
    let fault = judge(status, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH);
    assert!(!fault.words.is_empty() && fault.words.len() <= 500);
    assert!(fault.kind != FaultKind::Truncated);
}

fn asked(surface: Surface, wants_usage: bool) -> Ask {
    let body = format!(
        r#"{{"model":"m","messages":[{{}}],"input":"x","stream":true,"stream_options":{{"include_usage":{wants_usage}}}}}"#
    );
    Ask::parse(surface, body.into()).expect("it is a request")
}

/// What the client gets, and how it ends.
fn relayed(ask: &Ask, dialect: Dialect, pieces: &[&[u8]]) -> (Vec<u8>, Result<Usage, StreamFault>) {
    let mut relay = Relay::new(ask, dialect, 7);
    let mut out = Vec::new();
    for piece in pieces {
        if let Err(fault) = relay.push(piece, &mut out) {
            return (out, Err(fault));
        }
    }
    let end = relay.end(&mut out);
    (out, end)
}

/// The data of each event.
fn events(out: &str) -> Vec<&str> {
    assert!(out.is_empty() || out.ends_with("\n\n"), "an event is not whole");
    out.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

fn value(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data}"))
}

/// The calls of tools count from zero; `[DONE]` comes once, at the end of what is whole.
fn check_openai(out: &str, whole: bool) {
    let events = events(out);
    let marks = events.iter().filter(|data| **data == "[DONE]").count();
    assert_eq!(marks, usize::from(whole));
    assert!(!whole || out.ends_with("data: [DONE]\n\n"));
    let mut calls = 0;
    for data in events.into_iter().filter(|data| *data != "[DONE]") {
        let chunk = value(data);
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().expect("a call has an index");
            if call.get("id").is_some() {
                assert_eq!(index, calls, "a gap between calls");
                calls += 1;
            }
            assert!(index < calls, "a call goes on that has not begun");
        }
    }
}

/// Blocks count from zero, grow only while they are open, and are closed before the message ends.
fn check_anthropic(out: &str, whole: bool) {
    let (mut blocks, mut open) = (0, Vec::new());
    let mut last = String::new();
    for (n, data) in events(out).into_iter().enumerate() {
        let event = value(data);
        let kind = event["type"].as_str().expect("an event has a type").to_owned();
        assert_eq!(kind == "message_start", n == 0);
        let index = event["index"].as_u64();
        match kind.as_str() {
            "content_block_start" => {
                assert_eq!(index, Some(blocks), "a gap between blocks");
                blocks += 1;
                open.push(index);
            }
            "content_block_delta" => {
                assert!(open.contains(&index), "a block grows that is not open")
            }
            "content_block_stop" => {
                assert!(open.contains(&index), "a block is closed that is not open");
                open.retain(|one| *one != index);
            }
            "message_delta" => assert!(open.is_empty(), "a block is left open"),
            _ => {}
        }
        last = kind;
    }
    assert_eq!(last == "message_stop", whole);
}

pub(super) fn valid_stream(rng: &mut Rng) -> Vec<u8> {
    let way = rng.byte();
    let mut data = vec![way, rng.byte()];
    let anthropic = WAYS[usize::from(way % 4)].1 == Dialect::Anthropic;
    let end = *rng.pick(&["\n", "\n", "\r\n", "\r"]);
    for _ in 0..rng.below(12) {
        let index = rng.below(3);
        let id = rng.below(3);
        let line = if anthropic {
            match rng.below(10) {
                0 => r#"{"type":"message_start","message":{"id":"m","model":"x","usage":{"input_tokens":3}}}"#.to_owned(),
                1 => format!(r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"text","text":""}}}}"#),
                2 => format!(r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"t{id}","name":"f","input":{{}}}}}}"#),
                3 => format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"text_delta","text":"a\\n"}}}}"#),
                4 => format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"input_json_delta","partial_json":"{{"}}}}"#),
                5 => format!(r#"{{"type":"content_block_stop","index":{index}}}"#),
                6 => r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#.to_owned(),
                7 => r#"{"type":"message_stop"}"#.to_owned(),
                8 => r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#.to_owned(),
                _ => r#"{"type":"ping"}"#.to_owned(),
            }
        } else {
            match rng.below(9) {
                0 => format!(
                    r#"{{"id":"c","choices":[{{"index":{index},"delta":{{"role":"assistant","content":""}}}}]}}"#
                ),
                1 => r#"{"choices":[{"index":0,"delta":{"content":"a\\u00e9"}}],"usage":null}"#
                    .to_owned(),
                2 => r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#.to_owned(),
                3 => format!(
                    r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":{index},"id":"t{id}","function":{{"name":"f","arguments":"{{}}"}}}}]}}}}]}}"#
                ),
                4 => format!(
                    r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":{index},"function":{{"arguments":"1"}}}}]}}}}]}}"#
                ),
                5 => r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned(),
                6 => {
                    r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.to_owned()
                }
                7 => r#"{"error":{"code":"1302","message":"x"}}"#.to_owned(),
                _ => "[DONE]".to_owned(),
            }
        };
        if rng.one_in(6) {
            data.extend_from_slice(format!(": ping{end}{end}").as_bytes());
        }
        data.extend_from_slice(format!("data: {line}{end}{end}").as_bytes());
    }
    data
}

pub(super) fn valid_body(rng: &mut Rng) -> Vec<u8> {
    let mut data = vec![rng.byte()];
    let message = *rng.pick(&[
        r#"{"role":"user","content":"hi"}"#,
        r#"{"role":"system","content":[{"type":"text","text":"x"}]}"#,
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"role":"tool","tool_call_id":"t","content":"x"}"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}"#,
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":1}}]}"#,
    ]);
    let option = *rng.pick(&[
        r#""max_tokens":5"#,
        r#""stop":["a"],"reasoning_effort":"high""#,
        r#""stream_options":{"include_usage":false},"user":"u""#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"x":1}}}],"tool_choice":"auto""#,
        r#""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"}"#,
        r#""system":"s","thinking":{"type":"enabled","budget_tokens":2000}"#,
        r#""input":["a",[1,2]]"#,
    ]);
    let stream = rng.one_in(2);
    let body = match rng.below(4) {
        0 => r#"{"id":"c","choices":[{"index":0,"message":{"content":"x","tool_calls":[{"id":"t","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#.to_owned(),
        1 => r#"{"id":"m","content":[{"type":"text","text":"x"},{"type":"tool_use","id":"t","name":"f","input":{}}],"stop_reason":"end_turn","usage":{"input_tokens":1}}"#.to_owned(),
        2 => r#"{"error":{"code":"1308","type":"x","message":"try again in 1m2s, 2026-08-25 07:41:44"}}"#.to_owned(),
        _ => format!(r#"{{"model":"m","messages":[{message},{message}],"stream":{stream},{option}}}"#),
    };
    data.extend_from_slice(body.as_bytes());
    data
}

//! Requests and plain answers, translated.

use serde_json::{Value, json};

use super::*;

/// Each row: what an OpenAI client asks beside model and messages, and what Anthropic is asked.
#[test]
fn options_of_openai_become_those_of_anthropic() {
    let thinking = |budget: u64| json!({"type": "enabled", "budget_tokens": budget});
    let search = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let tool_out = json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]);
    let rows = [
        (json!({}), json!({"max_tokens": 8192})),
        (json!({"max_tokens": 7}), json!({"max_tokens": 7})),
        (json!({"max_tokens": 7, "max_completion_tokens": 9}), json!({"max_tokens": 9})),
        (
            json!({"max_tokens": 1, "temperature": 1.5, "top_p": 0.5, "top_k": 3, "seed": 1, "logit_bias": {}, "n": 1}),
            json!({"max_tokens": 1, "temperature": 1.0, "top_p": 0.5, "top_k": 3}),
        ),
        (
            json!({"max_tokens": 1, "stop": "END"}),
            json!({"max_tokens": 1, "stop_sequences": ["END"]}),
        ),
        (
            json!({"max_tokens": 1, "stop": ["A", "\n"]}),
            json!({"max_tokens": 1, "stop_sequences": ["A"]}),
        ),
        (
            json!({"max_tokens": 1, "stream": true, "stream_options": {}}),
            json!({"max_tokens": 1, "stream": true}),
        ),
        (
            json!({"max_tokens": 1, "user": "u"}),
            json!({"max_tokens": 1, "metadata": {"user_id": "u"}}),
        ),
        (
            json!({"reasoning_effort": "low"}),
            json!({"max_tokens": 10240, "thinking": thinking(2048)}),
        ),
        (
            json!({"reasoning_effort": "high"}),
            json!({"max_tokens": 24576, "thinking": thinking(16384)}),
        ),
        (
            json!({"reasoning_effort": "high", "max_tokens": 4096, "temperature": 0.3}),
            json!({"max_tokens": 4096, "thinking": thinking(2048)}),
        ),
        (json!({"reasoning_effort": "high", "max_tokens": 100}), json!({"max_tokens": 100})),
        (
            json!({"reasoning_effort": "none"}),
            json!({"max_tokens": 8192, "thinking": {"type": "disabled"}}),
        ),
        (
            json!({"thinking": {"type": "enabled"}}),
            json!({"max_tokens": 16384, "thinking": thinking(8192)}),
        ),
        (
            json!({"thinking": {"type": "disabled"}}),
            json!({"max_tokens": 8192, "thinking": {"type": "disabled"}}),
        ),
        (
            json!({"max_tokens": 1, "web_search_options": {}}),
            json!({"max_tokens": 1, "tools": search}),
        ),
        (
            json!({"max_tokens": 1, "tools": [{"type": "web_search", "web_search": {}}]}),
            json!({"max_tokens": 1, "tools": search}),
        ),
        (
            json!({"max_tokens": 1, "tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}),
            json!({"max_tokens": 1, "tools": search}),
        ),
        (json!({"max_tokens": 1, "tools": tool}), json!({"max_tokens": 1, "tools": tool_out})),
        (
            json!({"max_tokens": 1, "tools": tool, "tool_choice": "required"}),
            json!({"max_tokens": 1, "tools": tool_out, "tool_choice": {"type": "any"}}),
        ),
        (
            json!({"max_tokens": 1, "tools": tool, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"max_tokens": 1, "tools": tool_out, "tool_choice": {"type": "tool", "name": "f"}}),
        ),
        (
            json!({"max_tokens": 1, "tools": tool, "parallel_tool_calls": false}),
            json!({"max_tokens": 1, "tools": tool_out, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
        ),
        (json!({"max_tokens": 1, "tool_choice": "auto"}), json!({"max_tokens": 1})),
        (
            json!({"max_tokens": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}}),
            json!({"max_tokens": 1, "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
        ),
        (
            json!({"max_tokens": 1, "response_format": {"type": "json_object"}}),
            json!({"max_tokens": 1}),
        ),
    ];
    for (given, expected) in rows {
        let mut found = to_anthropic(with(&given, json!([{"role": "user", "content": "hi"}])));
        let map = found.as_object_mut().unwrap();
        assert_eq!(map.remove("model"), Some(json!("claude")));
        assert_eq!(
            map.remove("messages"),
            Some(json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]))
        );
        assert_eq!(found, expected, "{given}");
    }
}

#[test]
fn a_conversation_of_openai_becomes_one_of_anthropic() {
    let asked = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
        ]},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"z\":1,\"a\":12345678901234567890123}"}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "two"}]},
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "  "},
        {"role": "assistant", "content": "well"},
    ]);
    let body = with(&json!({}), asked).to_string();
    let ask = Ask::parse(Surface::ChatCompletions, body.into()).unwrap();
    let sent = ask.body_for(Dialect::Anthropic, "claude").unwrap();
    // Arguments keep their bytes: no order is changed, no number rounded.
    assert!(
        std::str::from_utf8(&sent)
            .unwrap()
            .contains(r#""input":{"z":1,"a":12345678901234567890123}"#)
    );
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(sent["system"], json!([text("be brief"), text("be kind")]));
    let turns = sent["messages"].as_array().unwrap();
    assert_eq!(turns.len(), 4);
    assert_eq!(
        turns[0],
        json!({"role": "user", "content": [
            text("what is this?"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}, "title": "a.pdf"},
        ]})
    );
    assert_eq!(
        turns[1]["content"][1],
        json!({"type": "tool_use", "id": "t2", "name": "g", "input": {}})
    );
    assert_eq!(
        turns[2],
        json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [text("one")]},
            {"type": "tool_result", "tool_use_id": "t2", "content": [text("two")]},
            text("and?"),
        ]})
    );
    assert_eq!(turns[3], json!({"role": "assistant", "content": [text("well")]}));
}

#[test]
fn what_anthropic_cannot_do_is_named() {
    let user = json!([{"role": "user", "content": "hi"}]);
    let call = |arguments: &str| json!([{"role": "assistant", "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]);
    let rows = [
        (json!({"n": 2}), user.clone(), "n"),
        (json!({"logprobs": true}), user.clone(), "logprobs"),
        (json!({"audio": {}}), user.clone(), "audio"),
        (json!({"functions": []}), user.clone(), "functions"),
        (json!({"tools": [{"type": "custom"}]}), user.clone(), "tools.0.type"),
        (
            json!({"tools": [{"type": "web_search"}], "tool_choice": {"type": "allowed_tools"}}),
            user,
            "tool_choice",
        ),
        (json!({}), json!([{"role": "function", "content": ""}]), "messages.0.role"),
        (
            json!({}),
            json!([{"role": "user", "content": [{"type": "input_audio"}]}]),
            "messages.0.content.0",
        ),
        (json!({}), json!([{"role": "user", "content": 7}]), "messages.0.content"),
        (json!({}), json!([{"role": "tool", "content": "x"}]), "messages.0.tool_call_id"),
        (json!({}), call("{"), "messages.0.tool_calls.0.function.arguments"),
        (json!({}), call("7"), "messages.0.tool_calls.0.function.arguments"),
    ];
    for (options, messages, param) in rows {
        let ask = Ask::parse(
            Surface::ChatCompletions,
            with(&options, messages.clone()).to_string().into(),
        )
        .unwrap();
        assert_eq!(
            ask.body_for(Dialect::Anthropic, "claude").unwrap_err().param,
            param,
            "{options} {messages}"
        );
    }
    let ask =
        Ask::parse(Surface::Embeddings, br#"{"model":"e","input":"x"}"#.as_slice().into()).unwrap();
    let fault = Fault::from(ask.body_for(Dialect::Anthropic, "claude").unwrap_err());
    assert_eq!((fault.retry, fault.blames), (Retry::Next, Blame::Client));
}

/// Each row: what an Anthropic client asks beside model and messages, and what OpenAI is asked.
#[test]
fn options_of_anthropic_become_those_of_openai() {
    let tool = json!([{"name": "f", "description": "d", "input_schema": {"type": "object"}}]);
    let tool_out = json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]);
    let schema = json!({"type": "object", "properties": {}});
    let rows = [
        (json!({"max_tokens": 7}), json!({"max_tokens": 7})),
        (
            json!({"temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END"]}),
            json!({"temperature": 0.5, "top_p": 0.9, "stop": ["END"]}),
        ),
        (
            json!({"stream": true}),
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        ),
        (json!({"metadata": {"user_id": "u"}}), json!({"user": "u"})),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
            json!({"reasoning_effort": "low"}),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 8000}}),
            json!({"reasoning_effort": "medium"}),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 32000}}),
            json!({"reasoning_effort": "high"}),
        ),
        (
            json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
            json!({"reasoning_effort": "high"}),
        ),
        (json!({"thinking": {"type": "disabled"}}), json!({})),
        (json!({"tools": tool}), json!({"tools": tool_out})),
        (
            json!({"tools": tool, "tool_choice": {"type": "any"}}),
            json!({"tools": tool_out, "tool_choice": "required"}),
        ),
        (
            json!({"tools": tool, "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true}}),
            json!({"tools": tool_out, "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false}),
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            json!({"web_search_options": {}}),
        ),
        (
            json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}}}),
        ),
    ];
    for (given, expected) in rows {
        let mut found =
            to_openai(with(&given, json!([{"role": "user", "content": "hi"}])), "kimi-k2");
        let map = found.as_object_mut().unwrap();
        assert_eq!(map.remove("model"), Some(json!("kimi-k2")));
        assert_eq!(map.remove("messages"), Some(json!([{"role": "user", "content": "hi"}])));
        assert_eq!(found, expected, "{given}");
    }
    let asked = with(&json!({"max_tokens": 7}), json!([{"role": "user", "content": "hi"}]));
    assert_eq!(to_openai(asked, "gpt-5.1")["max_completion_tokens"], json!(7));
}

#[test]
fn a_conversation_of_anthropic_becomes_one_of_openai() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let image_out =
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let asked = json!([
        {"role": "user", "content": [
            text("look"),
            image,
            {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            text("a"),
            text("b"),
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 1, "a": 2}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [text("seen"), image]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "two", "is_error": true},
            {"type": "tool_result", "tool_use_id": "t3"},
            text("and?"),
        ]},
        {"role": "user", "content": [text("one"), text("two")]},
    ]);
    let asked = with(
        &json!({"system": [text("s1"), {"type": "text", "text": "s2", "cache_control": {"type": "ephemeral"}}]}),
        asked,
    );
    assert_eq!(
        to_openai(asked, "kimi-k2")["messages"],
        json!([
            {"role": "system", "content": "s1\n\ns2"},
            {"role": "user", "content": [
                text("look"),
                image_out,
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
                text("plain"),
            ]},
            {"role": "assistant", "content": "ab", "reasoning_content": "hm", "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":2,\"z\":1}"}},
            ]},
            {"role": "tool", "content": "seen", "tool_call_id": "t1"},
            {"role": "tool", "content": "two", "tool_call_id": "t2"},
            {"role": "tool", "content": "", "tool_call_id": "t3"},
            {"role": "user", "content": [image_out, text("and?")]},
            {"role": "user", "content": "one\ntwo"},
        ])
    );
}

#[test]
fn what_openai_cannot_do_is_named() {
    let rows = [
        (
            json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}),
            json!([{"role": "user", "content": "x"}]),
            "tools.0.type",
        ),
        (
            json!({}),
            json!([{"role": "user", "content": [{"type": "search_result", "content": []}]}]),
            "messages.0.content.0.type",
        ),
        (
            json!({}),
            json!([{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]),
            "messages.0.content.0.id",
        ),
        (json!({}), json!([{"role": "robot", "content": "x"}]), "messages.0.role"),
    ];
    for (options, messages, param) in rows {
        let ask =
            Ask::parse(Surface::Messages, with(&options, messages.clone()).to_string().into())
                .unwrap();
        assert_eq!(
            ask.body_for(Dialect::OpenAi, "kimi").unwrap_err().param,
            param,
            "{options} {messages}"
        );
    }
}

#[test]
fn plain_answers_pass_unchanged() {
    let body = r#"{ "choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"length"}], "usage":{"prompt_tokens":5,"completion_tokens":2}, "x":1e400}"#;
    let found = answered(Surface::ChatCompletions, Dialect::OpenAi, body).unwrap();
    assert_eq!(found.body, body);
    assert_eq!(
        (found.usage.input, found.usage.output, found.finish),
        (5, 2, Some(FinishReason::Length))
    );
    let body = r#"{"type":"message","content":[{"type":"text","text":"12345678"}],"stop_reason":"end_turn"}"#;
    let found = answered(Surface::Messages, Dialect::Anthropic, body).unwrap();
    assert_eq!(found.body, body);
    assert_eq!(
        (found.usage.output, found.usage.estimated, found.finish),
        (2, true, Some(FinishReason::Stop))
    );
    let body = r#"{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
    let found = answered(Surface::Embeddings, Dialect::OpenAi, body).unwrap();
    assert_eq!((&*found.body, found.usage.input, found.finish), (body.as_bytes(), 5, None));
}

#[test]
fn anthropics_answer_reads_as_openais() {
    let body = json!({
        "id": "m1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Héllo "},
            {"type": "text", "text": "world", "citations": [{"type": "web_search_result_location", "url": "https://e.com", "title": "E", "cited_text": "x"}]},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
        ],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 3},
    });
    let found = answered(Surface::ChatCompletions, Dialect::Anthropic, &body.to_string()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&found.body).unwrap(),
        json!({
            "id": "m1", "object": "chat.completion", "created": 7, "model": "claude-x",
            "choices": [{"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "Héllo world", "refusal": null, "reasoning_content": "hm",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}],
                "annotations": [{"type": "url_citation", "url_citation": {"url": "https://e.com", "title": "E", "start_index": 6, "end_index": 11}}],
            }}],
            "usage": {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17, "prompt_tokens_details": {"cached_tokens": 4}},
        })
    );
}

#[test]
fn openais_answer_reads_as_anthropics() {
    let body = json!({
        "id": "c1", "object": "chat.completion", "model": "kimi-k2",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "hi", "reasoning_content": "hm",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "oops"}},
            ],
        }}],
        "usage": {"prompt_tokens": 14, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
    });
    let found = answered(Surface::Messages, Dialect::OpenAi, &body.to_string()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&found.body).unwrap(),
        json!({
            "id": "c1", "type": "message", "role": "assistant", "model": "kimi-k2",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "bowline-unsigned"},
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {"arguments": "oops"}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 10, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4},
        })
    );
}

#[test]
fn what_is_no_answer_is_a_fault() {
    let rows = [
        (Surface::ChatCompletions, Dialect::OpenAi, "", FaultKind::Malformed),
        (Surface::ChatCompletions, Dialect::OpenAi, "{}", FaultKind::Malformed),
        (Surface::ChatCompletions, Dialect::OpenAi, "<html>", FaultKind::Malformed),
        (Surface::ChatCompletions, Dialect::OpenAi, r#"{"choices":[]}"#, FaultKind::Malformed),
        (
            Surface::ChatCompletions,
            Dialect::OpenAi,
            r#"{"error":{"code":"1305","message":"busy"}}"#,
            FaultKind::Overloaded,
        ),
        (
            Surface::ChatCompletions,
            Dialect::Anthropic,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            FaultKind::Overloaded,
        ),
        (Surface::Messages, Dialect::OpenAi, r#"{"choices":[]}"#, FaultKind::Malformed),
        (Surface::Messages, Dialect::Anthropic, "{}", FaultKind::Malformed),
        (Surface::Embeddings, Dialect::OpenAi, "{}", FaultKind::Malformed),
        (Surface::Embeddings, Dialect::OpenAi, r#"{"error":{"code":"1113"}}"#, FaultKind::Billing),
        (
            Surface::ChatCompletions,
            Dialect::OpenAi,
            r#"{"choices":[{"message":{"content":""},"finish_reason":"network_error"}]}"#,
            FaultKind::ServerError,
        ),
    ];
    for (surface, dialect, body, kind) in rows {
        assert_eq!(Fault::from(answered(surface, dialect, body).unwrap_err()).kind, kind, "{body}");
    }
}

fn answered(surface: Surface, dialect: Dialect, body: &str) -> Result<Answered, StreamFault> {
    answer(&asked(surface), dialect, &body.to_owned().into(), 7)
}

fn asked(surface: Surface) -> Ask {
    let body = r#"{"model":"chat","messages":[{"role":"user","content":"hi"}],"input":"hi"}"#;
    Ask::parse(surface, body.into()).unwrap()
}

/// A request: these options, and messages.
fn with(options: &Value, messages: Value) -> Value {
    let mut body = options.clone();
    body["model"] = json!("chat");
    body["messages"] = messages;
    body
}

fn to_anthropic(body: Value) -> Value {
    let ask = Ask::parse(Surface::ChatCompletions, body.to_string().into()).unwrap();
    serde_json::from_slice(&ask.body_for(Dialect::Anthropic, "claude").unwrap()).unwrap()
}

fn to_openai(body: Value, model: &str) -> Value {
    let ask = Ask::parse(Surface::Messages, body.to_string().into()).unwrap();
    serde_json::from_slice(&ask.body_for(Dialect::OpenAi, model).unwrap()).unwrap()
}

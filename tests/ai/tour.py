"""The official Python SDKs against a gateway of sdk.test.mjs: `tour.py http://127.0.0.1:PORT`."""

import asyncio
import sys

import anthropic
import openai

HELLO = [{"role": "user", "content": "hello"}]
STOPS = []


def stop(tour):
    STOPS.append(tour)
    return tour


@stop
def plain(client, _):
    for name in ("chat", "claude", "falls"):
        raw = client.chat.completions.with_raw_response.create(model=name, messages=HELLO)
        answer = raw.parse()
        assert "token0 token1" in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop" and answer.usage.total_tokens > 0
        assert raw.headers["bowline-served-by"] in ("one/good", "two/good")
        assert answer._request_id.startswith("req_")


@stop
def streamed(client, _):
    for name in ("chat", "claude", "falls"):
        chunks = list(client.chat.completions.create(model=name, messages=HELLO, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text.startswith("token0 ") and text.endswith("token7 "), text
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(model=name, messages=HELLO, stream=True, stream_options=options))
        assert [bool(chunk.usage) for chunk in chunks].count(True) == 1 and chunks[-1].usage.total_tokens > 0


@stop
def tools(client, claude):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    for name in ("vendor/tools", "claude-tools"):
        answer = client.chat.completions.create(model=name, messages=HELLO, tools=[tool]).choices[0]
        assert answer.finish_reason == "tool_calls" and len(answer.message.tool_calls) == 2
        with client.chat.completions.stream(model=name, messages=HELLO, tools=[tool]) as stream:
            answer = stream.get_final_completion().choices[0]
        assert [call.function.name for call in answer.message.tool_calls], answer
        assert len(answer.message.tool_calls) == 2
        use = claude.messages.create(
            model=name, max_tokens=9, messages=HELLO, tools=[{"name": "weather", "input_schema": {"type": "object"}}]
        )
        assert use.stop_reason == "tool_use" and [block.type for block in use.content].count("tool_use") == 2


@stop
def embeddings_and_models(client, claude):
    assert len(client.embeddings.create(model="chat", input=["a", "b"]).data[0].embedding) > 0
    assert "chat" in [model.id for model in client.models.list()]
    assert client.models.retrieve("vendor/tools").id == "vendor/tools"
    assert "claude" in [model.id for model in claude.models.list()]


@stop
def errors(client, claude):
    for name, kind, code in (
        ("long", openai.BadRequestError, "context_length_exceeded"),
        ("nobody", openai.NotFoundError, "model_not_found"),
        ("dead", openai.InternalServerError, "upstream_error"),
    ):
        try:
            client.chat.completions.create(model=name, messages=HELLO)
        except kind as error:
            assert error.code == code, error
        else:
            raise AssertionError(name)
    try:
        list(client.chat.completions.create(model="cut", messages=HELLO, stream=True))
    except openai.APIError:
        pass
    else:
        raise AssertionError("a stream that was cut looked complete")
    for name, kind in (("nobody", anthropic.NotFoundError), ("long", anthropic.BadRequestError)):
        try:
            claude.messages.create(model=name, max_tokens=9, messages=HELLO)
        except kind:
            continue
        raise AssertionError(name)
    try:
        with claude.messages.stream(model="claude-cut", max_tokens=9, messages=HELLO) as stream:
            stream.get_final_message()
    except anthropic.APIError:
        pass
    else:
        raise AssertionError("a stream that was cut looked complete")


@stop
def messages(_, claude):
    for name in ("claude", "chat", "falls"):
        answer = claude.messages.create(model=name, max_tokens=100, messages=HELLO)
        assert "token0 token1" in answer.content[0].text and answer.usage.output_tokens > 0
        with claude.messages.stream(model=name, max_tokens=100, messages=HELLO) as stream:
            assert "".join(stream.text_stream).startswith("token0 ")
            assert stream.get_final_message().stop_reason == "end_turn"


async def at_once(url):
    """Many at a time, as agents do."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        asks = [client.chat.completions.create(model="chat", messages=HELLO) for _ in range(50)]
        answers = await asyncio.gather(*asks)
    assert all(answer.choices[0].finish_reason == "stop" for answer in answers)


def main(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    claude = anthropic.Anthropic(base_url=url, api_key="none")
    for tour in STOPS:
        tour(client, claude)
    asyncio.run(at_once(url))
    print(f"tour: {len(STOPS) + 1} stops, all well")


if __name__ == "__main__":
    main(sys.argv[1])

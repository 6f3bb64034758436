//! The app behind Bowline's HTTP backend: it lets everybody in and echoes, as an ack if one is
//! asked for. It does as little as it can, since the gateway is what is measured.
//!
//!     app 127.0.0.1:5000

use std::error::Error;

use axum::{Json, Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::post};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "type")]
    what: String,
    args: Option<Box<RawValue>>,
    #[serde(default)]
    ack: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: app ADDR")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true));
    axum::serve(listener, Router::new().route("/bowline", post(answer))).await?;
    Ok(())
}

async fn answer(Json(asked): Json<Asked>) -> impl IntoResponse {
    let args = asked.args.as_deref().map_or("[]", RawValue::get);
    let body = match asked.what.as_str() {
        "connect" => r#"{"allow":true}"#.to_owned(),
        "event" if asked.ack => format!(r#"{{"ack":{args}}}"#),
        "event" => format!(r#"{{"emit":[{{"event":"message","args":{args}}}]}}"#),
        _ => String::new(),
    };
    ([(CONTENT_TYPE, "application/json")], body)
}

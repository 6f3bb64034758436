//! The client of the control socket: how the other commands ask a server.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime, time,
};

use crate::failure::Failure;

/// How long a server may take to answer. The master answers by itself; what it passes on to its
/// gateway waits for the shards.
const ANSWER: Duration = Duration::from_secs(5);

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ControlError {
    /// This user may not ask.
    Denied { path: PathBuf },
    /// Nobody answers there.
    Silent { path: PathBuf, error: String },
    /// Nobody answers at this URL.
    Unreachable { url: String, error: String },
    /// The server said no.
    Refused { code: Option<ErrorCode>, name: String, message: String },
}

/// Asks the server at `path` and waits for its answer.
///
/// # Errors
/// When it does not answer, or says no.
pub(crate) fn ask(
    path: &Path,
    method: &Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, ControlError> {
    ask_within(ANSWER, path, method, target, body)
}

/// Asks for something that may take so long.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_within(
    patience: Duration,
    path: &Path,
    method: &Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, ControlError> {
    let silent = |error: &dyn fmt::Display| ControlError::Silent {
        path: path.to_owned(),
        error: error.to_string(),
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| silent(&error))?;
    runtime.block_on(async {
        match time::timeout(patience, exchange(path, method, target, body)).await {
            Ok(Ok((status, body))) => understand(status, &body),
            Ok(Err(Trouble::Connect(error))) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ControlError::Denied { path: path.to_owned() })
            }
            Ok(Err(Trouble::Connect(error))) => Err(silent(&error)),
            Ok(Err(Trouble::Http(error))) => Err(silent(&error)),
            Err(_) => Err(silent(&format_args!("no answer within {} s", patience.as_secs()))),
        }
    })
}

/// Why nothing could be exchanged.
pub(crate) enum Trouble {
    Connect(io::Error),
    Http(Box<dyn std::error::Error + Send + Sync>),
}

async fn exchange(
    path: &Path,
    method: &Method,
    target: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Bytes), Trouble> {
    let stream = UnixStream::connect(path).await.map_err(Trouble::Connect)?;
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(bytes))
        .map_err(|error| Trouble::Http(error.into()))?;
    converse(stream, request).await
}

/// Sends one request over a connection and reads the answer.
pub(crate) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Trouble> {
    let http = |error: hyper::Error| Trouble::Http(error.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(Trouble::Http)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(http)?;
            answer.await
        }
    }
}

/// Takes an answer apart; an error is always `{"error":{"code","message","remedy"}}`.
pub(crate) fn understand(status: StatusCode, body: &[u8]) -> Result<Value, ControlError> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if let (true, Some(value)) = (status.is_success(), &value) {
        return Ok(value.clone());
    }
    let word = |key: &str| Some(value.as_ref()?.get("error")?.get(key)?.as_str()?.to_owned());
    let name = word("code").unwrap_or_else(|| status.as_str().to_owned());
    let message = word("message").unwrap_or_else(|| {
        format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]))
    });
    let code = ErrorCode::ALL.into_iter().find(|code| code.name() == name);
    Err(ControlError::Refused { code, name, message })
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::Denied { .. } => ErrorCode::InstanceDenied,
            ControlError::Silent { .. } => ErrorCode::ControlSilent,
            ControlError::Unreachable { .. } => ErrorCode::ServerUnreachable,
            ControlError::Refused { code, .. } => code.unwrap_or(ErrorCode::ControlRefused),
        };
        Self::new(code, error)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { path } => write!(f, "this user may not use {}", path.display()),
            Self::Silent { path, error } => {
                write!(f, "no answer from {}: {error}", path.display())
            }
            Self::Unreachable { url, error } => write!(f, "no answer from {url}: {error}"),
            Self::Refused { code: Some(_), message, .. } => f.write_str(message),
            Self::Refused { code: None, name, message } => write!(f, "{message} ({name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use super::*;

    /// Answers one request with these bytes, and says what was asked.
    fn served(answer: &'static str) -> (Result<Value, ControlError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut chunk = [0; 1024];
            while !asked.ends_with(b"{\"a\":1}") {
                let length = stream.read(&mut chunk).unwrap();
                assert_ne!(length, 0);
                asked.extend_from_slice(&chunk[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let body = serde_json::json!({ "a": 1 });
        let answer = ask(&path, &Method::POST, "/api/v1/x", Some(&body));
        (answer, server.join().unwrap())
    }

    #[test]
    fn an_answer_is_json() {
        let (answer, asked) = served("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"b\":[2]}");
        assert_eq!(answer.unwrap(), serde_json::json!({ "b": [2] }));
        assert!(asked.starts_with("POST /api/v1/x HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/json"), "{asked}");
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        let (answer, _) = served(
            "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 54\r\n\r\n\
             {\"error\":{\"code\":\"config-invalid\",\"message\":\"two of\"}}",
        );
        let failure = Failure::from(answer.unwrap_err());
        assert_eq!((failure.code, &*failure.message), (ErrorCode::ConfigInvalid, "two of"));
    }

    #[test]
    fn what_is_no_answer_is_told_as_it_is() {
        let (answer, _) = served("HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\noops");
        let failure = Failure::from(answer.unwrap_err());
        assert_eq!(failure.code, ErrorCode::ControlRefused);
        assert_eq!(failure.message, "500 Internal Server Error: oops (500)");
    }

    #[test]
    fn a_socket_without_a_server_is_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let error = ask(&path, &Method::GET, "/", None).unwrap_err();
        assert!(matches!(error, ControlError::Silent { .. }), "{error}");
    }
}

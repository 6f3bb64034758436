//! What an embedding program serves over HTTP beside Socket.IO.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like the tests")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bowline_net::{Echo, HttpAnswer, HttpBody, HttpCall, HttpResponse, HttpService, Server};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// `/v1/size` says how large a body was, `/v1/count` counts until its client leaves, `/v1/broken`
/// gives up, `/v1/never` does not answer.
#[derive(Clone)]
struct Service {
    office: Handle,
    left: mpsc::Sender<&'static str>,
    bodies: Arc<AtomicUsize>,
    go_on: Arc<Semaphore>,
}

impl HttpService for Service {
    fn serves(&self, path: &str) -> bool {
        path.starts_with("/v1/")
    }

    fn admit(&self, _: IpAddr, head: &Parts) -> Result<Box<dyn HttpCall>, Box<HttpResponse>> {
        if head.headers.contains_key("authorization") {
            return Ok(Box::new(self.clone()));
        }
        let mut answer = Response::new(HttpBody::from(Bytes::from_static(b"who are you?")));
        *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
        Err(Box::new(answer))
    }
}

impl HttpCall for Service {
    fn body_bytes_max(&self) -> usize {
        1_000
    }

    fn run(self: Box<Self>, request: Request<Bytes>) -> HttpAnswer {
        self.bodies.fetch_add(1, SeqCst);
        match request.uri().path() {
            "/v1/size" => {
                let size = request.body().len().to_string();
                Box::pin(async { Response::new(HttpBody::from(Bytes::from(size))) })
            }
            "/v1/never" => {
                let told = TellsWhenDropped(self.left.clone());
                Box::pin(async move {
                    let _told = told;
                    std::future::pending().await
                })
            }
            "/v1/broken" => {
                let (sender, body) = HttpBody::stream(1);
                Box::pin(async move {
                    sender.send(Bytes::from_static(b"half")).await.unwrap();
                    // Before anything of the answer is on the wire.
                    drop(sender);
                    Response::new(body)
                })
            }
            _ => {
                let (sender, body) = HttpBody::stream(1);
                self.office.clone().spawn(async move {
                    for number in 0.. {
                        // Whoever asked for three gets no more.
                        if number == 3 && request.uri().query() == Some("3") {
                            return sender.finish().await;
                        }
                        sender.send(Bytes::from(format!("{number}\n"))).await?;
                        tokio::select! {
                            () = sender.left() => break,
                            permit = self.go_on.acquire() => permit.unwrap().forget(),
                        }
                    }
                    self.left.send("count").await.unwrap();
                    Ok(())
                });
                Box::pin(async { Response::new(body) })
            }
        }
    }
}

struct TellsWhenDropped(mpsc::Sender<&'static str>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        self.0.try_send("never").unwrap();
    }
}

struct Rig {
    address: SocketAddr,
    service: Service,
    left: mpsc::Receiver<&'static str>,
    _office: tokio::runtime::Runtime,
}

fn rig() -> Rig {
    let office = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (told, left) = mpsc::channel(4);
    let service = Service {
        office: office.handle().clone(),
        left: told,
        bodies: Arc::default(),
        go_on: Arc::new(Semaphore::new(0)),
    };
    let builder =
        Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(1).namespace("/", Echo);
    let server = builder.http_service(service.clone()).bind().unwrap();
    let address = server.local_addrs()[0];
    thread::spawn(move || server.run_blocking(std::future::pending()));
    Rig { address, service, left, _office: office }
}

impl Rig {
    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A request with a key and a body of so many bytes.
    fn ask(&self, path: &str, bytes: usize) -> TcpStream {
        let mut stream = self.open();
        write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n").unwrap();
        write!(stream, "content-length: {bytes}\r\n\r\n{}", "x".repeat(bytes)).unwrap();
        stream
    }
}

/// What was heard by the time that it ended so, or that the connection did.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&heard).ends_with(end) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&heard)),
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn a_request_is_judged_by_its_head_before_its_body_is_read() {
    let rig = rig();
    let mut stream = rig.open();
    stream.write_all(b"POST /v1/size HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, "who are you?");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(rig.service.bodies.load(SeqCst), 0);

    let answer = read_until(&mut rig.ask("/other", 0), "found\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn a_body_is_bounded_and_handed_over_whole() {
    let rig = rig();
    let answer = read_until(&mut rig.ask("/v1/size", 1_000), "1000");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = read_until(&mut rig.ask("/v1/size", 1_001), "bytes\n");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(rig.service.bodies.load(SeqCst), 1);
}

#[test]
fn each_piece_of_a_stream_is_sent_at_once_and_its_end_is_said() {
    let rig = rig();
    let mut stream = rig.ask("/v1/count?3", 0);
    for number in 0..3 {
        let piece = format!("\r\n{number}\n\r\n");
        let heard = read_until(&mut stream, &piece);
        assert!(heard.ends_with(&piece), "{heard}");
        rig.service.go_on.add_permits(1);
    }
    assert!(read_until(&mut stream, "0\r\n\r\n").ends_with("0\r\n\r\n"));
    // The connection goes on.
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "}").contains("HTTP/1.1 200"));
}

#[test]
fn a_stream_that_is_given_up_has_no_end() {
    let rig = rig();
    let heard = read_until(&mut rig.ask("/v1/broken", 0), "0\r\n\r\n");
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(heard.contains("half") && !heard.ends_with("0\r\n\r\n"), "{heard}");
}

#[test]
fn a_client_that_leaves_is_noticed_before_and_in_an_answer() {
    let mut rig = rig();
    let mut streaming = rig.ask("/v1/count", 0);
    read_until(&mut streaming, "0\n\r\n");
    drop(streaming);
    assert_eq!(rig.left.blocking_recv(), Some("count"));
    let waiting = rig.ask("/v1/never", 3);
    while rig.service.bodies.load(SeqCst) < 2 {
        thread::yield_now();
    }
    drop(waiting);
    assert_eq!(rig.left.blocking_recv(), Some("never"));
}

//! A Socket.IO client made of a socket and a decoder, for tests that look at every packet.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bowline_proto::{
    Sid,
    websocket::{DecodeConfig, Decoder, Incoming, Message, OpCode, Role, encode},
};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A client on a WebSocket.
pub(crate) struct Client {
    /// The shard that owns its session.
    pub(crate) shard: u8,
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    received: Vec<u8>,
}

impl Client {
    /// Opens a session, and joins no namespace.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut received = Vec::new();
        let end = loop {
            let end = received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "no answer to an upgrade");
            received.extend_from_slice(&bytes[..count]);
        };
        assert!(received.starts_with(b"HTTP/1.1 101"));
        received.drain(..end);
        let mut client = Self { shard: 0, stream, decoder: Decoder::new(Role::Client), received };
        let open = client.hear();
        let sid = open.strip_prefix("0{\"sid\":\"").unwrap();
        client.shard = sid[..Sid::TEXT_LEN].parse::<Sid>().unwrap().shard();
        client
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.send(OpCode::Text, text.as_bytes());
    }

    pub(crate) fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode(&mut bytes, opcode, false, Some([1, 2, 3, 4]), &[payload]);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message, a binary one as `<1 2 3>`.
    pub(crate) fn hear(&mut self) -> String {
        match self.next() {
            Some(Incoming::Message(Message::Text(text))) => text.to_string(),
            Some(Incoming::Message(Message::Binary(bytes))) => {
                let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
                format!("<{}>", numbers.join(" "))
            }
            other => panic!("shard {}: {other:?}", self.shard),
        }
    }

    /// Whatever comes next; `None` if the server has closed without a close frame.
    pub(crate) fn next(&mut self) -> Option<Incoming> {
        let config = DecodeConfig { max_message_bytes: 10_000_000, deflate: false };
        loop {
            let mut input = &mut *self.received;
            let incoming = self.decoder.decode(&config, &mut input).unwrap();
            let rest = input.len();
            self.received.drain(..self.received.len() - rest);
            if incoming.is_some() {
                return incoming;
            }
            let mut bytes = vec![0; 64 * 1024];
            let count = self.stream.read(&mut bytes).unwrap();
            if count == 0 {
                return None;
            }
            self.received.extend_from_slice(&bytes[..count]);
        }
    }
}

/// Waits for an answer of the server.
pub(crate) fn run<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let bounded = async { tokio::time::timeout(DEADLINE, question).await.unwrap() };
    runtime.block_on(bounded)
}

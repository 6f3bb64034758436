//! HTTP/1.1 as a browser speaks it: requests are made, responses are split.

use std::{borrow::Cow, ops::Range};

use httparse::Status;

use crate::{error::Error, limit, target::Target};

/// What all requests of a browser have in common. It makes continuity take part in Bowline, and
/// every server has as much to read as it would have. Nothing is offered to be compressed: not all
/// servers would compress, and those that did would be measured for that.
const BROWSER: &str = "\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
DNT: 1\r\n";

/// The requests of polling, but for the id of the session and the body.
#[derive(Debug)]
pub(crate) struct Requests {
    path: String,
    host: String,
}

impl Requests {
    pub(crate) fn new(target: &Target) -> Self {
        Self { path: target.path.clone(), host: target.authority.clone() }
    }

    /// The upgrade of a connection to WebSocket, for a new session or for one that polls.
    pub(crate) fn websocket(&self, session: usize, sid: Option<&str>) -> String {
        let Self { path, host } = self;
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let cookie = cookie(session);
        format!(
            "GET {path}?EIO=4&transport=websocket{sid} HTTP/1.1\r\n\
             Host: {host}\r\n\
             Connection: Upgrade\r\n\
             Pragma: no-cache\r\n\
             Cache-Control: no-cache\r\n\
             Upgrade: websocket\r\n\
             Origin: http://{host}\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Accept-Encoding: gzip, deflate, br, zstd\r\n\
             {BROWSER}{cookie}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    /// A poll; without an id it opens a session.
    pub(crate) fn poll(&self, session: usize, sid: Option<&str>) -> Numbered {
        let Self { path, host } = self;
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let cookie = cookie(session);
        Numbered::new(format!(
            "GET {path}?EIO=4&transport=polling&t=g{NUMBER}{sid} HTTP/1.1\r\n\
             Host: {host}\r\n\
             Connection: keep-alive\r\n\
             Accept: */*\r\n\
             Referer: http://{host}/\r\n\
             {BROWSER}{cookie}\r\n"
        ))
    }

    /// The head of a post, up to the length of its body.
    pub(crate) fn post(&self, session: usize, sid: &str) -> Numbered {
        let Self { path, host } = self;
        let cookie = cookie(session);
        Numbered::new(format!(
            "POST {path}?EIO=4&transport=polling&t=p{NUMBER}&sid={sid} HTTP/1.1\r\n\
             Host: {host}\r\n\
             Connection: keep-alive\r\n\
             Accept: */*\r\n\
             Content-Type: text/plain;charset=UTF-8\r\n\
             Origin: http://{host}\r\n\
             Referer: http://{host}/\r\n\
             {BROWSER}{cookie}\
             Content-Length: "
        ))
    }
}

/// The parameter by which clients keep requests apart for caches, before the first request. A
/// server may take one that comes twice for the work of a proxy.
const NUMBER: &str = "0000000";

/// A request that is sent again and again, each time with another number.
#[derive(Debug)]
pub(crate) struct Numbered {
    bytes: Vec<u8>,
    digits: Range<usize>,
}

impl Numbered {
    fn new(request: String) -> Self {
        let begin = request.find(NUMBER).unwrap_or_default();
        Self { bytes: request.into_bytes(), digits: begin..begin + NUMBER.len() }
    }

    /// The request with the next number.
    pub(crate) fn next(&mut self) -> &[u8] {
        for digit in self.bytes[self.digits.clone()].iter_mut().rev() {
            if *digit != b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        &self.bytes
    }
}

fn cookie(session: usize) -> String {
    format!("Cookie: session=1f0c9a55-5e2e-4c63-9d5c-{session:012}; theme=dark; consent=all\r\n")
}

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: Cow<'a, [u8]>,
    /// How many bytes it was.
    pub(crate) used: usize,
}

/// The first response; none while it is incomplete.
pub(crate) fn split(input: &[u8]) -> Result<Option<Response<'_>>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; limit::HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let broken = |error| Error::failed(format!("the server does not speak HTTP: {error}"));
    let Status::Complete(begin) = head.parse(input).map_err(broken)? else {
        if input.len() > limit::HEAD_BYTES_MAX {
            return Err(Error::failed("the server's HTTP headers have no end"));
        }
        return Ok(None);
    };
    let status = head.code.unwrap_or_default();
    let rest = &input[begin..];
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| str::from_utf8(header.value).ok()).map(str::trim)
    };
    if status == 101 {
        return Ok(Some(Response { status, body: Cow::Borrowed(&[]), used: begin }));
    }
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let Some((body, length)) = dechunk(rest)? else { return Ok(None) };
        return Ok(Some(Response { status, body: Cow::Owned(body), used: begin + length }));
    }
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Ok(rest.get(..length).map(|body| Response {
        status,
        body: Cow::Borrowed(body),
        used: begin + length,
    }))
}

/// A body that came in chunks, and how many bytes they were; none while they are incomplete.
fn dechunk(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let size = httparse::parse_chunk_size(&input[at..])
            .map_err(|_| Error::failed("the server sent a chunk without a length"))?;
        let Status::Complete((head, size)) = size else { return Ok(None) };
        let begin = at + head;
        let Some(end) = usize::try_from(size).ok().and_then(|size| begin.checked_add(size)) else {
            return Err(Error::failed("the server sent a chunk that is too long"));
        };
        // Behind each stands a line end.
        let Some(chunk) = input.get(begin..end).filter(|_| input.len() >= end + 2) else {
            return Ok(None);
        };
        body.extend(chunk);
        at = end + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_split_wherever_reads_end() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nServer: x\r\n\r\nok", "ok"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                "abcd",
            ),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", ""),
        ] {
            for cut in 0..text.len() {
                assert_eq!(split(&text.as_bytes()[..cut]).unwrap(), None, "{cut} of {text}");
            }
            let more = format!("{text}HTTP");
            let response = split(more.as_bytes()).unwrap().unwrap();
            assert_eq!((&*response.body, response.used), (body.as_bytes(), text.len()), "{text}");
        }
    }

    #[test]
    fn each_request_has_another_number() {
        let requests =
            Requests::new(&Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1))));
        let mut poll = requests.poll(0, Some("abc"));
        let numbers: Vec<String> = (0..10)
            .map(|_| {
                let text = str::from_utf8(poll.next()).unwrap();
                text.split(['=', '&', ' ']).find(|word| word.starts_with("g0")).unwrap().to_owned()
            })
            .collect();
        assert_eq!((&*numbers[0], &*numbers[9]), ("g0000001", "g0000010"));
    }

    #[test]
    fn what_is_no_http_is_said_to_be_none() {
        assert!(split(b"220 mail.example.com ESMTP\r\n").is_err());
        assert!(split(b"HTTP/1.1 200 OK\r\nx: y\r\n").unwrap().is_none());
        assert!(split(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").is_err());
    }
}

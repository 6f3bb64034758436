//! One look at the server, and who takes it: a thread of its own, since the load must not wait for an answer of the
//! admin listener.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    iter,
    net::{SocketAddr, TcpStream},
    path::Path,
    str::FromStr,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::super::{
    plan::{Key, Wishes},
    tally::Tally,
};
use crate::{clock, error::Error, limit, server::Server, target::Target, wire::http};

/// One look. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sample {
    /// Seconds since the first request was due.
    pub at_s: f64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether nothing is under way: before the first request, and behind the last one.
    pub idle: bool,
    /// Requests that were over by then.
    pub requests: u64,
    /// Those of them that had failed.
    pub failed: u64,
    /// Half of the requests since the last sample took no longer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 99 of a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Resident memory of the server's processes; without one that is known, what it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Descriptors that its processes have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<u64>,
    /// Those of them that are sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u64>,
    /// Permits of the gateway as a whole that are held: answers under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits_held: Option<u64>,
    /// Requests that wait for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits_queued: Option<u64>,
    /// For how long the oldest permit has been held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_permit_s: Option<f64>,
}

/// The admin listener of a Bowline, whose `/metrics` tells of permits.
#[derive(Debug, Clone)]
pub struct Admin {
    target: Target,
    token: Option<Key>,
}

impl Admin {
    /// With the token that it wants.
    #[must_use]
    pub fn with_token(self, token: Option<Key>) -> Self {
        Self { token, ..self }
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = Target::parse(text, "/", "such as http://127.0.0.1:8001")?;
        Ok(Self { target, token: None })
    }
}

impl Sample {
    /// What the load knows. The rest is looked up.
    pub(super) fn of(tally: &mut Tally, at: Duration, idle: bool) -> Self {
        let lately = std::mem::take(&mut tally.lately).spread();
        let millis = |micros: f64| (micros.round()) / 1000.0;
        Self {
            at_s: (at.as_secs_f64() * 1000.0).round() / 1000.0,
            unix_ms: clock::unix_ms(),
            idle,
            requests: tally.requests,
            failed: tally.failures(),
            p50_ms: lately.map(|spread| millis(spread.p50)),
            p99_ms: lately.map(|spread| millis(spread.p99)),
            ..Self::default()
        }
    }
}

/// Completes samples and writes them down.
pub(super) struct Sampler {
    to: SyncSender<Sample>,
    thread: JoinHandle<Result<Vec<Sample>, Error>>,
    missed: u64,
}

impl Sampler {
    /// Takes the first sample before it returns: nothing is under way then.
    pub(super) fn start(
        file: &Path,
        server: Server,
        wishes: &Wishes,
        address: SocketAddr,
        admin: Option<Admin>,
    ) -> Result<Self, Error> {
        let into = OpenOptions::new().create_new(true).append(true).open(file);
        let into = into.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::usage(format!(
                "{} has the samples of another run: name another --out, or see them with --draw",
                file.display()
            )),
            _ => Error::failed(format!("{}: {error}", file.display())),
        })?;
        let (to, from) = sync_channel(limit::SAMPLES_WAITING_MAX);
        let mut look = Look { server, pids: wishes.pids.clone(), address, admin };
        let mut first = Sample::of(&mut Tally::default(), Duration::ZERO, true);
        look.complete(&mut first);
        let thread = thread::Builder::new()
            .name("samples".into())
            .spawn(move || write_down(first, &from, look, into))
            .map_err(Error::io("starting a thread"))?;
        Ok(Self { to, thread, missed: 0 })
    }

    /// Has a sample completed, unless too many wait for that.
    pub(super) fn take(&mut self, sample: Sample) -> Result<(), Error> {
        match self.to.try_send(sample) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => {
                Err(Error::failed("samples cannot be written any more; is the disk full?"))
            }
        }
    }

    /// Samples that were left out.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Waits for the last one. Returns all.
    pub(super) fn end(self) -> Result<Vec<Sample>, Error> {
        drop(self.to);
        self.thread.join().unwrap_or_else(|_| Err(Error::failed("taking samples failed")))
    }
}

/// Reads samples. The last line may have been cut off.
pub(super) fn read(file: &Path) -> Result<Vec<Sample>, Error> {
    let text = fs::read_to_string(file)
        .map_err(|error| Error::failed(format!("{}: {error}", file.display())))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn write_down(
    first: Sample,
    from: &Receiver<Sample>,
    mut look: Look,
    mut into: File,
) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    let further = from.iter().map(|mut sample| {
        look.complete(&mut sample);
        sample
    });
    for sample in iter::once(first).chain(further) {
        let line = serde_json::to_string(&sample).unwrap_or_default() + "\n";
        // Whole lines, at once: whoever cuts the run off has all of them but perhaps the last.
        into.write_all(line.as_bytes()).map_err(Error::io("writing samples"))?;
        samples.push(sample);
    }
    Ok(samples)
}

/// Where the rest of a sample is looked up.
struct Look {
    server: Server,
    /// Those that were named.
    pids: Vec<u32>,
    address: SocketAddr,
    admin: Option<Admin>,
}

impl Look {
    fn complete(&mut self, sample: &mut Sample) {
        match (self.server.rss_bytes(), self.server.descriptors()) {
            (Ok(rss), Ok(descriptors)) => {
                sample.rss_bytes = rss.or(sample.rss_bytes);
                sample.descriptors = descriptors.map(|found| found.all);
                sample.sockets = descriptors.map(|found| found.sockets);
            }
            // It has ended. If it was started anew, that is another process.
            _ => self.server = Server::new(&self.pids, self.address),
        }
        let Some(page) = self.admin.as_ref().and_then(|admin| page(admin).ok()) else { return };
        sample.rss_bytes = sample.rss_bytes.or(sum(&page, "bowline_process_resident_bytes", ""));
        sample.permits_held = sum(&page, "bowline_ai_permits", r#"provider="*",state="held""#);
        sample.permits_queued = sum(&page, "bowline_ai_permits", r#"provider="*",state="queued""#);
        let oldest = values(&page, "bowline_ai_oldest_permit_seconds", r#"provider="*""#);
        sample.oldest_permit_s = oldest.reduce(f64::max);
    }
}

/// The sum of all series of a metric with these labels; none if there is none.
fn sum(page: &str, name: &str, labels: &str) -> Option<u64> {
    let sum = values(page, name, labels).reduce(|sum, value| sum + value)?;
    Some(sum as u64)
}

fn values<'a>(page: &'a str, name: &'a str, labels: &'a str) -> impl Iterator<Item = f64> + 'a {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (series, value) = rest.rsplit_once(' ')?;
        let whole = series.is_empty() || series.starts_with('{');
        (whole && series.contains(labels)).then(|| value.parse().ok()).flatten()
    })
}

/// The page with the metrics.
fn page(admin: &Admin) -> io::Result<String> {
    let Target { address, authority, path } = &admin.target;
    let mut stream = TcpStream::connect_timeout(address, limit::ADMIN)?;
    stream.set_read_timeout(Some(limit::ADMIN))?;
    stream.set_write_timeout(Some(limit::ADMIN))?;
    let token = admin.token.as_ref().map(|key| key.header()).unwrap_or_default();
    let request = format!(
        "GET {path}metrics HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{token}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limit::PAGE_BYTES_MAX).read_to_end(&mut answer)?;
    match http::split(&answer) {
        Ok(Some(response)) if response.status == 200 => {
            Ok(String::from_utf8_lossy(&response.body).into_owned())
        }
        _ => Err(io::Error::other("no metrics")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_on_a_page() {
        let page = "# TYPE bowline_ai_permits gauge
bowline_ai_permits{provider=\"*\",state=\"held\"} 3
bowline_ai_permits{provider=\"*\",state=\"queued\"} 0
bowline_ai_permits{provider=\"kimi\",state=\"held\"} 2
bowline_ai_permits_more{provider=\"*\",state=\"held\"} 9
bowline_process_resident_bytes 1000
bowline_ai_oldest_permit_seconds{provider=\"*\"} 1.5
";
        let held = |labels| sum(page, "bowline_ai_permits", labels);
        assert_eq!(held(r#"provider="*",state="held""#), Some(3));
        assert_eq!(held(r#"provider="*",state="queued""#), Some(0));
        assert_eq!(held(r#"provider="glm""#), None);
        assert_eq!(sum(page, "bowline_process_resident_bytes", ""), Some(1000));
        let oldest: Vec<f64> = values(page, "bowline_ai_oldest_permit_seconds", "").collect();
        assert_eq!(oldest, [1.5]);
    }

    #[test]
    fn samples_are_read_as_they_were_written_and_a_line_that_was_cut_off_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("samples.jsonl");
        let wishes = Wishes::little();
        let nobody: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let start = || Sampler::start(&file, Server::new(&[], nobody), &wishes, nobody, None);
        let mut sampler = start().unwrap();
        let first = Sample { at_s: 0.5, requests: 7, rss_bytes: Some(5), ..Sample::default() };
        sampler.take(first).unwrap();
        sampler.take(Sample { idle: true, ..Sample::default() }).unwrap();
        let written = sampler.end().unwrap();
        assert_eq!((written.len(), written[0].idle, written[1].requests), (3, true, 7));
        assert_eq!(written[1].rss_bytes, Some(5), "what is known is kept");
        let mut into = OpenOptions::new().append(true).open(&file).unwrap();
        into.write_all(b"{\"at_s\":1.0,\"unix").unwrap();
        assert_eq!(read(&file).unwrap(), written);
        // Nor is another run written behind it.
        assert!(matches!(start().map(drop), Err(Error::Usage(_))));
    }
}

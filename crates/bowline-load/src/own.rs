//! A gateway of one's own, for those who name no server: started, measured and stopped.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{clock, error::Error, limit, target::Target};

/// Limits that keep strangers in check would do so here.
const CONFIG: &str = "\
[limits]
handshakes-per-second = 500_000
events-per-second = 500_000
";

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A `bowline serve` on loopback that lives as long as this value.
#[derive(Debug)]
pub struct OwnServer {
    child: Child,
    target: Target,
    /// Where it keeps its things. Goes last.
    _folder: TempDir,
}

impl OwnServer {
    /// Starts one on free ports, and waits until it answers.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(program: &Path) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for a server"))?;
        let [config, said] = ["bowline.toml", "stderr"].map(|name| folder.path().join(name));
        fs::write(&config, CONFIG).map_err(Error::io("its configuration"))?;
        let stderr = File::create(&said).map_err(Error::io("its log"))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // What is set for another server is not meant for this one.
            let name = name.to_string_lossy().into_owned();
            if name == "PORT" || name.starts_with("BOWLINE_") || name == "NOTIFY_SOCKET" {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--log-format", "text", "--log-level", "warn"])
            .arg("--config")
            .arg(config)
            .arg("--state-dir")
            .arg(folder.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(Error::io("starting a server"))?;
        // From here on it is stopped whatever happens.
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, target: unknown.into(), _folder: folder };
        server.target = server.wait(&said)?.into();
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Waits until it has said where it listens, and answers there.
    fn wait(&mut self, said: &Path) -> Result<SocketAddr, Error> {
        let deadline = clock::now() + limit::OWN_SERVER;
        loop {
            let text = fs::read_to_string(said).unwrap_or_default();
            let address = text.lines().find_map(listening);
            if let Some(address) = address.filter(|address| answers(*address).is_ok()) {
                return Ok(address);
            }
            let ended = self.child.try_wait().map_err(Error::io("waiting for the server"))?;
            if ended.is_some() || clock::now() > deadline {
                let text = text.trim();
                return Err(Error::failed(format!("a server of its own did not start:\n{text}")));
            }
            thread::sleep(PAUSE);
        }
    }

    fn stop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // The second one ends it at once.
        for patience in [limit::OWN_SERVER / 10, limit::OWN_SERVER] {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = clock::now() + patience;
            while clock::now() < deadline {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(PAUSE);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The address in the line of the banner that says where it listens.
fn listening(line: &str) -> Option<SocketAddr> {
    let url = line.trim().strip_prefix("listening")?.trim().strip_prefix("http://")?;
    url.trim_end_matches('/').parse().ok()
}

/// Whether HTTP is spoken there yet: the port is open before that.
fn answers(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit::OWN_SERVER)?;
    stream.set_read_timeout(Some(limit::OWN_SERVER))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.1 ") { Ok(()) } else { Err(io::Error::other("no HTTP")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_a_server_listens() {
        let address = listening("  listening   http://127.0.0.1:4711/");
        assert_eq!(address, Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
        assert_eq!(listening("  admin       http://127.0.0.1:4712/"), None);
    }
}

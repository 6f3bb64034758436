//! What the server says when it starts, for people.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    config::{Config, duration_text},
    failure::colours,
};

/// Writes where the server listens and what it does there.
pub(crate) fn text(
    config: &Config,
    public: &[SocketAddr],
    admin: &[SocketAddr],
    links: &[SocketAddr],
) -> String {
    let (bold, soft, end) =
        if colours() { ("\x1b[1;36m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("\n  {bold}bowline{end} {soft}{}{end}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {soft}{label:<11}{end} {value}");
    };
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    for address in public {
        line("listening", &url(scheme, *address));
    }
    for address in admin {
        line("admin", &url("http", *address));
    }
    for address in links {
        let words = "for the bots of [links], as `bowline link env NAME` says";
        line("links", &format!("{} {soft}{words}{end}", url("http", *address)));
    }
    let namespaces: Vec<String> = (config.namespaces.0.iter())
        .map(|(name, rule)| format!("{name} {soft}{}{end}", rule.handler.name()))
        .collect();
    line("namespaces", &namespaces.join("   "));
    if config.engine.path != "/socket.io/" {
        line("path", &config.engine.path);
    }
    let drain = duration_text(config.server.drain);
    line("stop", &format!("Ctrl-C drains for up to {drain}, a second one ends at once"));
    text.push('\n');
    text
}

/// The address as one types it into a browser on this machine.
fn url(scheme: &str, address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => {
            format!("{scheme}://localhost:{port}/ (and every other address)")
        }
        _ => format!("{scheme}://{address}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_shown_as_one_that_works() {
        let address: SocketAddr = "0.0.0.0:80".parse().unwrap();
        assert_eq!(url("http", address), "http://localhost:80/ (and every other address)");
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(url("http", address), "http://[::1]:80/");
    }

    #[test]
    fn every_listener_is_shown_and_one_with_tls_as_https() {
        let file = ("/x/bowline.toml".into(), TLS.to_owned());
        let config = crate::config::of_text(Some(file), crate::config::Overrides::default());
        let [public, admin, links] = [1, 2, 3].map(|port| format!("[::1]:{port}").parse().unwrap());
        let shown = text(&config.unwrap(), &[public], &[admin], &[links]);
        for (label, url) in [
            ("listening", "https://[::1]:1/"),
            ("admin", "http://[::1]:2/"),
            ("links", "http://[::1]:3/"),
        ] {
            let line = shown.lines().find(|line| line.contains(url)).unwrap_or_default();
            assert!(line.contains(label), "{shown}");
        }
    }

    const TLS: &str = "[server.tls]\ncert-file = \"a\"\nkey-file = \"b\"\n";
}

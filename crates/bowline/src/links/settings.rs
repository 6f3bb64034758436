//! From `[links]` to what links are told, tokens included.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use bowline_link::settings::{self, Secret};

use crate::{
    config::{Config, Deliver, Link, Profile},
    instance::Paths,
};

/// The longest token: those of services are a few hundred bytes.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// How often the service's own ping is sent to Webex, as Cisco's SDK does.
const WEBEX_ACK: Duration = Duration::from_secs(15);

/// What all links share. `state` is where this server keeps what outlives it.
pub(crate) fn shared(config: &Config, state: &Path) -> settings::Shared {
    let links = &config.links;
    settings::Shared {
        listen: links.listen,
        attempts_per_second: links.attempts_per_second,
        attempts_burst: links.attempts_burst,
        directory: state.join("links"),
        leases: leases(),
        waiting_max: links.waiting_max,
    }
}

/// Where leases are: the same for every server of this user, wherever each keeps its state.
fn leases() -> PathBuf {
    Paths::of_user().join("leases")
}

/// The links of a configuration, with their tokens.
///
/// # Errors
/// What is wrong with a token, and of which link. Does not hold what stands there.
pub(crate) fn links(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<settings::Link>, (String, String)> {
    let mut links: Vec<settings::Link> = Vec::new();
    for (name, link) in &config.links.all.0 {
        let token = token(link, &variable).map_err(|why| (name.clone(), why))?;
        let same = |other: &&settings::Link| token.is_some() && other.token == token;
        if let Some(other) = links.iter().find(same) {
            let key = if link.token_env.is_some() { "token-env" } else { "token-file" };
            let why = format!(
                "`{key}`: it is the token of `links.{}`; two links with one token would drive each other out",
                other.name
            );
            return Err((name.clone(), why));
        }
        links.push(of(name, link, token));
    }
    Ok(links)
}

/// One of them.
pub(crate) fn of(name: &str, link: &Link, token: Option<Secret>) -> settings::Link {
    let mut keeper = link.keeper.clone();
    let interval = link.probe_interval..=link.longest_probe_interval();
    keeper.probe_interval = link.has_probe().then_some(interval);
    keeper.service_after = link.restart_after;
    keeper.ping_interval = Some(link.ping_interval).filter(|interval| !interval.is_zero());
    if link.profile == Profile::Webex {
        keeper.ack_interval = Some(WEBEX_ACK);
        keeper.look_interval = Some(link.look_interval).filter(|interval| !interval.is_zero());
    }
    settings::Link {
        name: name.to_owned(),
        profile: profile(link),
        token,
        proxy: link.proxy.clone(),
        ca_file: link.ca_file.clone(),
        keeper,
        http: link.http.clone(),
        deliver: match &link.deliver {
            Deliver::Proxy => settings::Deliver::Proxy { intercept: link.intercept.clone() },
            Deliver::Http(app) => settings::Deliver::Http(app.clone()),
            Deliver::Namespace(name) => settings::Deliver::Namespace(name.clone()),
        },
        service: link.service.clone(),
        confirm_timeout: link.confirm_timeout,
        offers_max: link.offers_max,
    }
}

fn profile(link: &Link) -> settings::Profile {
    // What is demanded has been checked.
    let url = || link.url.as_ref().map(|url| url.to_string()).unwrap_or_default();
    match link.profile {
        Profile::WebSocket => settings::Profile::WebSocket {
            url: url(),
            headers: (link.headers.0.iter())
                .map(|(name, value)| (name.clone(), Secret::new(value.as_str())))
                .collect::<BTreeMap<_, _>>(),
            hello: link.hello.clone(),
            message_id: link.message_id.clone(),
            room: link.room.clone(),
            probe: link.probe.clone(),
            ack: link.ack.clone(),
            protocols: link.protocols.clone(),
        },
        Profile::SocketIo => settings::Profile::SocketIo {
            url: url(),
            eio: link.eio,
            path: link.path.clone(),
            auth: link.auth.clone(),
            message_id: link.message_id.clone(),
            room: link.room.clone(),
            probe: link.probe.clone(),
            recovery: link.recovery,
        },
        Profile::Webex => settings::Profile::Webex {
            catalog_url: link.catalog_url.to_string(),
            api_url: link.api_url.to_string(),
            probe_room: link.probe_room.clone(),
        },
    }
}

/// The token of a link, if it has one.
///
/// # Errors
/// What is wrong with where it should be. Does not hold what stands there.
pub(crate) fn token(
    link: &Link,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if let Some(name) = &link.token_env {
        let value = variable(name).map(|value| value.trim().to_owned());
        let value = value.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("`token-env`: the variable {name} is not set"))?;
        return checked(value)
            .map(Some)
            .map_err(|why| format!("`token-env`: the variable {name} {why}"));
    }
    let Some(path) = &link.token_file else { return Ok(None) };
    let shown = path.display();
    let text = read(path).map_err(|error| format!("`token-file`: cannot read {shown}: {error}"))?;
    checked(text).map(Some).map_err(|why| format!("`token-file`: {shown} {why}"))
}

/// How a variable of this process is read.
pub(crate) fn of_environment(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn checked(token: String) -> Result<Secret, &'static str> {
    if token.is_empty() {
        return Err("is empty");
    }
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    let short = token.len() as u64 <= TOKEN_BYTES_MAX;
    if plain && short {
        Ok(Secret::new(token))
    } else {
        Err("holds no token: that is one word of ASCII")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::of_text;

    fn config(text: &str) -> Config {
        of_text(Some(("/srv/bowline.toml".into(), text.to_owned())), Default::default())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_link_is_what_its_table_says() {
        let text = r#"
[services.bot]
command = ["bot"]
[links.a]
profile = "websocket"
url = "wss://chat.example.com/bots?v=1"
token-env = "A"
headers = { Authorization = "Bearer {token}" }
probe = "ping {nonce}"
probe-interval = "10s"
ping-interval = "0s"
message-id = "/id"
http = { idle-max = "2s" }
backoff = { max = "5s" }
service = "bot"
restart-after = 3
[links.b]
profile = "webex"
token-env = "B"
intercept = ["*.Example.com"]
[links.c]
profile = "socketio"
url = "http://localhost:3000/bots"
eio = 3
"#;
        let links = links(&config(text), |name| Some(format!("token-{name}\n"))).unwrap();
        let [a, b, c] = &links[..] else { panic!("{links:?}") };
        assert_eq!(a.token, Some(Secret::new("token-A")));
        let settings::Profile::WebSocket { url, headers, message_id, .. } = &a.profile else {
            panic!("{a:?}")
        };
        assert_eq!(
            (url.as_str(), message_id.as_deref()),
            ("wss://chat.example.com/bots?v=1", Some("/id"))
        );
        assert_eq!(headers["Authorization"].expose(), "Bearer {token}");
        let interval = Duration::from_secs(10)..=Duration::from_secs(15);
        assert_eq!(a.keeper.probe_interval, Some(interval));
        assert_eq!((a.http.idle_max.as_secs(), a.keeper.backoff_max.as_secs()), (2, 5));
        assert_eq!((a.service.as_deref(), a.keeper.service_after), (Some("bot"), Some(3)));
        assert_eq!((a.keeper.ack_interval, a.keeper.look_interval), (None, None));
        assert_eq!(
            (a.keeper.ping_interval, c.keeper.ping_interval),
            (None, Some(Duration::from_secs(10)))
        );

        let intercept = vec!["*.example.com".to_owned()];
        assert_eq!(b.deliver, settings::Deliver::Proxy { intercept });
        assert_eq!(b.keeper.ack_interval, Some(WEBEX_ACK));
        assert_eq!(b.keeper.look_interval, Some(Duration::from_secs(60)));
        let longest = Duration::from_secs(900);
        assert_eq!(b.keeper.probe_interval.as_ref().map(|range| *range.end()), Some(longest));
        assert!(c.keeper.probe_interval.is_none() && c.token.is_none());
        assert!(!format!("{links:?}").contains("token-A"));
    }

    #[test]
    fn a_token_that_cannot_be_had_is_told_of_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let text = format!("[links.a]\nprofile = \"webex\"\ntoken-file = {file:?}\n");
        let why = |text: &str| links(&config(text), |_| None).unwrap_err().1;
        assert!(why(&text).starts_with("`token-file`: cannot read"), "{}", why(&text));
        fs::write(&file, "two words hush").unwrap();
        assert!(why(&text).ends_with("one word of ASCII") && !why(&text).contains("hush"));
        fs::write(&file, "\n").unwrap();
        assert!(why(&text).ends_with("is empty"));
        let variable = "[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\n";
        assert_eq!(why(variable), "`token-env`: the variable A is not set");
    }

    #[test]
    fn two_links_with_one_token_are_refused_wherever_it_stands() {
        let text = "[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\n[links.b]\nprofile = \"webex\"\ntoken-env = \"B\"\n";
        let (link, why) = links(&config(text), |_| Some("hush".to_owned())).unwrap_err();
        assert_eq!(link, "b");
        assert!(why.contains("the token of `links.a`") && !why.contains("hush"), "{why}");
    }
}

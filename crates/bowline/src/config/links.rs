//! `[links]`: outbound connections that the gateway keeps for bots, as they were written.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use bowline_link::settings::{self, Secret};
use bowline_proto::keeper;

use super::{
    ai::Named,
    effective::{Config, Handler, Url},
    keys,
    read::unknown,
    services::Variables,
    suggest,
};

/// `[links]`. Without a link in it nothing of this is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    /// Where bots find the loopback proxy.
    pub(crate) listen: SocketAddr,
    /// Attempts to connect, to one host, over all links.
    pub(crate) attempts_per_second: u32,
    /// Those that may be made at once before that counts.
    pub(crate) attempts_burst: u32,
    /// Messages without a confirmation, over all links.
    pub(crate) waiting_max: u64,
    /// The links, in the order of the file.
    pub(crate) all: Named<Link>,
}

/// One table of `[links]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// What it speaks.
    pub(crate) profile: Profile,
    /// The file that holds what it authorises itself with.
    pub(crate) token_file: Option<PathBuf>,
    /// The variable that holds it.
    pub(crate) token_env: Option<String>,
    /// Where the service is; for Webex this is known.
    pub(crate) url: Option<Url>,
    /// Headers of the handshake.
    pub(crate) headers: Variables,
    /// Subprotocols that are offered.
    pub(crate) protocols: Vec<String>,
    /// What is said first.
    pub(crate) hello: Option<Secret>,
    /// Where the id of a message stands in it.
    pub(crate) message_id: Option<String>,
    /// Where its room does.
    pub(crate) room: Option<String>,
    /// The routing probe.
    pub(crate) probe: Option<String>,
    /// What acknowledges a message.
    pub(crate) ack: Option<String>,
    /// The protocol revision of Engine.IO.
    pub(crate) eio: u8,
    /// The path of Engine.IO.
    pub(crate) path: String,
    /// The auth payload of Socket.IO, as JSON.
    pub(crate) auth: Option<Secret>,
    /// Whether missed events are asked for.
    pub(crate) recovery: bool,
    pub(crate) catalog_url: Url,
    pub(crate) api_url: Url,
    /// The space that Webex is probed in.
    pub(crate) probe_room: Option<String>,
    pub(crate) deliver: Deliver,
    /// Further hosts whose TLS is ended by the loopback proxy.
    pub(crate) intercept: Vec<String>,
    /// Whether `/health/ready` waits for it.
    pub(crate) required: bool,
    /// What the bot runs as.
    pub(crate) service: Option<String>,
    /// After how many messages in a row that it did not handle that is restarted.
    pub(crate) restart_after: Option<u32>,
    pub(crate) confirm_timeout: Duration,
    /// How often a message is offered.
    pub(crate) offers_max: u32,
    /// The shortest time between two routing round trips; the longest is half as long again.
    pub(crate) probe_interval: Duration,
    /// How often a ping is sent; zero: none is.
    pub(crate) ping_interval: Duration,
    /// How long nothing may arrive before the service is asked whether that is so; zero: it is not asked.
    pub(crate) look_interval: Duration,
    /// The rest of how it is kept.
    pub(crate) keeper: keeper::Config,
    pub(crate) http: settings::Http,
    /// What all of it goes through.
    pub(crate) proxy: Option<Secret>,
    pub(crate) ca_file: Option<PathBuf>,
}

/// What a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    WebSocket,
    SocketIo,
    Webex,
}

/// How messages reach the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deliver {
    /// To whoever comes through the loopback proxy.
    Proxy,
    /// To the app of this name in `[backends]`.
    Http(String),
    /// To whoever is in this namespace.
    Namespace(String),
}

impl Profile {
    /// The word of the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::SocketIo => "socketio",
            Self::Webex => "webex",
        }
    }

    /// The keys that only some profiles have, and whether this one has each.
    pub(crate) fn own_keys(self) -> impl Iterator<Item = (&'static str, bool)> {
        use Profile::{SocketIo, WebSocket, Webex};
        let keys: [(&str, &[Self]); 15] = [
            ("url", &[WebSocket, SocketIo]),
            ("headers", &[WebSocket]),
            ("protocols", &[WebSocket]),
            ("hello", &[WebSocket]),
            ("message-id", &[WebSocket, SocketIo]),
            ("room", &[WebSocket, SocketIo]),
            ("probe", &[WebSocket, SocketIo]),
            ("ack", &[WebSocket]),
            ("eio", &[SocketIo]),
            ("path", &[SocketIo]),
            ("auth", &[SocketIo]),
            ("recovery", &[SocketIo]),
            ("catalog-url", &[Webex]),
            ("api-url", &[Webex]),
            ("look-interval", &[Webex]),
        ];
        // What only Webex has beside that.
        let probe_room = ("probe-room", self == Webex);
        keys.into_iter().map(move |(key, of)| (key, of.contains(&self))).chain([probe_room])
    }
}

impl fmt::Display for Deliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("proxy"),
            Self::Http(app) => write!(f, "the app {app}"),
            Self::Namespace(name) => write!(f, "the namespace {name}"),
        }
    }
}

impl Links {
    /// The link that somebody may have meant who wrote this name.
    pub(crate) fn nearest(&self, name: &str) -> Option<&str> {
        suggest::nearest(name, self.all.0.iter().map(|(known, _)| known.as_str()))
    }

    /// Whether bots come to the loopback proxy.
    pub(crate) fn listens(&self) -> bool {
        self.all.0.iter().any(|(_, link)| link.deliver == Deliver::Proxy)
    }
}

impl Link {
    /// Whether it makes routing round trips.
    pub(crate) fn has_probe(&self) -> bool {
        self.profile == Profile::Webex || self.probe.is_some()
    }

    /// The longest time from one routing round trip to the next.
    pub(crate) fn longest_probe_interval(&self) -> Duration {
        self.probe_interval + self.probe_interval / 2
    }

    /// Whether the token stands in what is said to the service.
    pub(crate) fn says_token(&self) -> bool {
        const PLACE: &str = "{token}";
        let said = [&self.hello, &self.auth].into_iter().flatten();
        self.profile == Profile::Webex
            || self.headers.0.values().any(|value| value.contains(PLACE))
            || said.into_iter().any(|text| text.expose().contains(PLACE))
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8002)),
            attempts_per_second: 5,
            attempts_burst: 5,
            waiting_max: 100_000,
            all: Named::default(),
        }
    }
}

impl Default for Link {
    /// The profile is demanded, so that nothing is ever kept of this one.
    fn default() -> Self {
        Self {
            profile: Profile::WebSocket,
            token_file: None,
            token_env: None,
            url: None,
            headers: Variables::default(),
            protocols: Vec::new(),
            hello: None,
            message_id: None,
            room: None,
            probe: None,
            ack: None,
            eio: 4,
            path: "/socket.io/".to_owned(),
            auth: None,
            recovery: false,
            catalog_url: Url::new("https://u2c.wbx2.com/u2c/api/v1".to_owned()),
            api_url: Url::new("https://webexapis.com/v1".to_owned()),
            probe_room: None,
            deliver: Deliver::Proxy,
            intercept: Vec::new(),
            required: false,
            service: None,
            restart_after: None,
            confirm_timeout: Duration::from_secs(60),
            offers_max: 10,
            probe_interval: Duration::from_secs(600),
            ping_interval: Duration::from_secs(10),
            look_interval: Duration::from_secs(60),
            keeper: keeper::Config::default(),
            http: settings::Http::default(),
            proxy: None,
            ca_file: None,
        }
    }
}

/// Whether what is wrong with this key of a link depends on its profile.
pub(super) fn is_of_profile(key: &str) -> bool {
    let own = || Profile::Webex.own_keys().any(|(own, _)| own == key);
    let by_probe = ["probe-interval", "probe-timeout", "idle-after", "ping-interval"];
    key == "profile" || by_probe.contains(&key) || own()
}

/// What is wrong with what links say of themselves and of others, as the whole path of a key and what goes on after
/// it. `set` tells whether a key stands in the file.
pub(super) fn mistakes(config: &Config, set: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let usual = Link::default();
    let links = &config.links.all.0;
    let mut mistakes = Vec::new();
    for (at, (name, link)) in links.iter().enumerate() {
        let path = |key: &str| format!("links.{name:?}.{key}");
        let mut say = |key: &str, words: String| mistakes.push((path(key), words));
        let profile = link.profile.name();
        // A default that is written, as `config show` writes all of them, is no mistake.
        let changed = |key: &str| set(&path(key)) && keys::differ(key, link, &usual);
        for (key, has) in link.profile.own_keys() {
            if !has && changed(key) {
                say(key, format!("is nothing for the profile \"{profile}\""));
            }
        }
        match (link.profile, &link.url) {
            (Profile::Webex, _) => {
                if link.token_file.is_none() && link.token_env.is_none() {
                    let words = "needs the bot's token; write `token-file` or `token-env` too";
                    say("profile", words.to_owned());
                }
            }
            (Profile::WebSocket | Profile::SocketIo, None) => {
                say("profile", "needs the service's `url`".to_owned());
            }
            (Profile::WebSocket, Some(url)) if !is_of(url, &["ws://", "wss://"]) => {
                say(
                    "url",
                    "is no URL of a WebSocket; write one such as \"wss://chat.example.com/bots\""
                        .to_owned(),
                );
            }
            (Profile::SocketIo, Some(url)) if !is_of(url, &["http://", "https://"]) => {
                let words = "is no URL of a Socket.IO server; write one such as \"https://chat.example.com/namespace\"";
                say("url", words.to_owned());
            }
            (Profile::WebSocket | Profile::SocketIo, Some(_)) => {}
        }
        let tokenless = link.token_file.is_none() && link.token_env.is_none();
        if tokenless && link.profile != Profile::Webex && link.says_token() {
            let key = if link.hello.as_ref().is_some_and(|hello| hello.expose().contains("{token}"))
            {
                "hello"
            } else if link.auth.is_some() {
                "auth"
            } else {
                "headers"
            };
            say(key, "has {token} in it; write `token-file` or `token-env` too".to_owned());
        }
        if link.profile == Profile::WebSocket
            && link.probe.as_ref().is_some_and(|probe| !probe.contains("{nonce}"))
        {
            let words = "has no {nonce} in it, by which its echo is known";
            say("probe", words.to_owned());
        }
        if let Some(ack) = &link.ack {
            if !ack.contains("{id}") {
                say("ack", "has no {id} in it, the id of the message".to_owned());
            } else if link.message_id.is_none() {
                say("ack", "is set, but no message has an id; write `message-id` too".to_owned());
            }
        }
        for key in ["probe-interval", "probe-timeout", "idle-after"] {
            if !link.has_probe() && changed(key) {
                say(key, "is set, but there is no `probe`".to_owned());
            }
        }
        if link.probe_interval <= link.keeper.probe_timeout && link.has_probe() {
            say("probe-interval", "is not longer than `probe-timeout`".to_owned());
        }
        if link.ping_interval.is_zero() && !link.has_probe() {
            let words = "switches pings off, and there is no `probe`: nothing would tell that the connection is dead";
            say("ping-interval", words.to_owned());
        }
        if link.keeper.backoff_first > link.keeper.backoff_max {
            say("backoff.first", "is longer than `backoff.max`".to_owned());
        }
        match &link.deliver {
            Deliver::Proxy => {}
            Deliver::Http(app) => {
                let words = unknown("backend", app, "[backends]", &config.backends.0);
                words.into_iter().for_each(|words| say("deliver", words));
            }
            Deliver::Namespace(namespace) => {
                namespace_words(config, namespace, &links[..at])
                    .into_iter()
                    .for_each(|words| say("deliver", words));
            }
        }
        if !link.intercept.is_empty() && link.deliver != Deliver::Proxy {
            say("intercept", "is for deliver = \"proxy\" alone".to_owned());
        }
        if let Some(service) = &link.service {
            let words = unknown("service", service, "[services]", &config.services.0);
            words.into_iter().for_each(|words| say("service", words));
        }
        if link.restart_after.is_some() && link.service.is_none() {
            let words = "is set, but nobody knows what to restart; write `service` too";
            say("restart-after", words.to_owned());
        }
        for (key, same) in [
            ("token-file", same(&links[..at], &link.token_file, |other| &other.token_file)),
            ("token-env", same(&links[..at], &link.token_env, |other| &other.token_env)),
        ] {
            if let Some(other) = same {
                let words = format!(
                    "is that of `links.{other:?}`; two links with one token would drive each other out"
                );
                say(key, words);
            }
        }
    }
    for (name, service) in &config.services.0 {
        let wanted = service.link.as_ref();
        let path = || format!("services.{name:?}.link");
        let words = wanted.and_then(|wanted| unknown("link", wanted, "[links]", links));
        mistakes.extend(words.map(|words| (path(), words)));
        let named = wanted.and_then(|wanted| links.iter().find(|(name, _)| name == wanted));
        if let Some((name, link)) = named
            && link.deliver != Deliver::Proxy
        {
            let words = format!(
                "names \"{name}\", which delivers to {}: only deliver = \"proxy\" has variables",
                link.deliver
            );
            mistakes.push((path(), words));
        }
    }
    for (pattern, rule) in &config.namespaces.0 {
        let has = |(_, link): &(String, Link)| link.deliver == Deliver::Namespace(pattern.clone());
        if rule.handler == Handler::Link && !links.iter().any(has) {
            let words = format!(
                "is \"link\", but no link delivers there; write deliver = {{ namespace = {pattern:?} }} in its table of \
                 [links]"
            );
            mistakes.push((format!("namespaces.{pattern:?}.handler"), words));
        }
    }
    mistakes.extend(listens_twice(config));
    mistakes
}

fn is_of(url: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| url.starts_with(scheme))
}

/// Which link before this one has the same.
fn same<'a, T: PartialEq>(
    before: &'a [(String, Link)],
    of: &Option<T>,
    get: impl Fn(&Link) -> &Option<T>,
) -> Option<&'a str> {
    let of = of.as_ref()?;
    before.iter().find(|(_, other)| get(other).as_ref() == Some(of)).map(|(name, _)| name.as_str())
}

/// Why a link cannot have this namespace.
fn namespace_words(config: &Config, namespace: &str, before: &[(String, Link)]) -> Option<String> {
    let other = before.iter().find(
        |(_, other)| matches!(&other.deliver, Deliver::Namespace(taken) if taken == namespace),
    );
    if let Some((other, _)) = other {
        return Some(format!("names the namespace {namespace}, which `links.{other:?}` has"));
    }
    let rule = config.namespaces.0.iter().find(|(pattern, _)| pattern == namespace);
    let Some((_, rule)) = rule else {
        return Some(format!(
            "names the namespace {namespace}, which is not there; write [namespaces.{namespace:?}] with handler = \"link\""
        ));
    };
    match rule.handler {
        Handler::Link => None,
        Handler::Echo | Handler::Relay | Handler::Http(_) | Handler::Ai(_) => Some(format!(
            "names the namespace {namespace}, whose handler is another; write handler = \"link\" there"
        )),
    }
}

/// Complains if bots would have to share an address with clients or operators.
fn listens_twice(config: &Config) -> Option<(String, String)> {
    let links = &config.links;
    let listen = links.listen;
    if !links.listens() || listen.port() == 0 {
        return None;
    }
    let with = if config.server.listen.contains(&listen) {
        "server.listen"
    } else if config.admin.listen == listen {
        "admin.listen"
    } else {
        return None;
    };
    let words = format!("is {listen}, which is `{with}`; bots need a port of their own");
    Some(("links.listen".to_owned(), words))
}

//! `config check`: what is wrong with a configuration and the files it names, and what is only
//! suspicious.

use std::{fs::File, io, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use bowline_fleet::spec::Run;
use bowline_net::{Tls, TlsError};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::{
    Allowance, Backend, Deliver, Error, Examined, Jwt, Link, Mistake, Place, Profile, Provider,
    Service, excerpt, near,
};
use crate::{
    ai, alerts,
    api::Tokens,
    auth, backends,
    links::settings as tokens,
    services::{proof, settings},
    telemetry,
};

/// What was found in files that are named, and in what is allowed but probably not meant.
#[derive(Default)]
pub(crate) struct Findings {
    /// With these a server would not start.
    pub(crate) mistakes: Vec<Mistake>,
    /// Files that this user cannot read. Perhaps the user that runs the server can.
    pub(crate) unreadable: Vec<Mistake>,
    /// It may be right on another machine or for another user.
    pub(crate) warnings: Vec<String>,
}

/// Open files that are kept for health checks and administration (`bowline-net`).
const RESERVED: u64 = 64;

/// Looks at a configuration that has no mistakes in itself.
pub(crate) fn look(examined: &Examined) -> Findings {
    let mut findings = Findings::default();
    let config = &examined.config;
    if let Some(tls) = &config.server.tls {
        let files = Tls { cert_file: tls.cert_file.clone(), key_file: tls.key_file.clone() };
        match files.check() {
            Ok(()) => {}
            Err(TlsError::Read { path, source }) => {
                let is_key = path == tls.key_file && path != tls.cert_file;
                let key = if is_key { "server.tls.key-file" } else { "server.tls.cert-file" };
                findings.cannot_read(examined, key, &path, &source);
            }
            Err(error) => findings.mistake(examined, "server.tls.cert-file", &error.to_string()),
        }
        findings.secret("server.tls.key-file", &tls.key_file);
    }
    if let Some(path) = &config.admin.token_file {
        match (File::open(path), Tokens::read(path)) {
            (Err(error), _) => findings.cannot_read(examined, "admin.token-file", path, &error),
            (Ok(_), Err(problem)) => findings.mistake(examined, "admin.token-file", &problem),
            (Ok(_), Ok(_)) => findings.secret("admin.token-file", path),
        }
    }
    if let Some(path) = &config.alerts.rules_file {
        match (File::open(path), alerts::load(&config.alerts)) {
            (Err(error), _) => findings.cannot_read(examined, "alerts.rules-file", path, &error),
            (Ok(_), Err(_)) => {
                let problem = format!("`bowline alerts check {}` says what is wrong", near(path));
                findings.mistake(examined, "alerts.rules-file", &problem);
            }
            (Ok(_), Ok(_)) => {}
        }
    }
    for (name, backend) in &config.backends.0 {
        findings.backend(examined, name, backend);
    }
    for (name, rule) in &config.namespaces.0 {
        if let Some(jwt) = &rule.jwt {
            findings.keys(examined, name, jwt);
        }
    }
    for (name, provider) in &config.ai.providers.0 {
        findings.provider(examined, name, provider);
    }
    findings.telemetry(examined);
    if config.ai.is_on() && config.ai.keys.0.is_empty() && ai::listens_to_others(config) {
        findings.warnings.push(
            "`ai`: others can connect to `server.listen`, and there are no keys in [ai.keys], so that \
             /v1 is closed; `bowline config hash-key` makes what stands there"
                .to_owned(),
        );
    }
    for (name, service) in &config.services.0 {
        findings.service(name, service);
    }
    for (name, link) in &config.links.all.0 {
        findings.link(examined, name, link);
    }
    if config.server.proxy_protocol && config.server.trusted_proxies.is_empty() {
        findings.warnings.push(
            "`server.proxy-protocol` without `server.trusted-proxies`: whoever reaches the \
             listener may claim any address"
                .to_owned(),
        );
    }
    let open_files = getrlimit(Resource::Nofile).maximum;
    if let (Allowance::Of(connections), Some(most)) = (config.limits.connections, open_files)
        && connections as u64 > most.saturating_sub(RESERVED)
    {
        findings.warnings.push(format!(
            "`limits.connections` is {connections}, but a process may open only {most} files here \
             and keeps {RESERVED} of them: raise that limit (`ulimit -Hn`, LimitNOFILE=)"
        ));
    }
    findings
}

impl Findings {
    fn mistake(&mut self, examined: &Examined, key: &str, problem: &str) {
        let message = format!("`{key}`: {problem}");
        self.mistakes.push(Mistake { place: place(examined, key), message });
    }

    /// A file that this user may not read may be right for the user that runs the server; one that
    /// is not there is right for nobody.
    fn cannot_read(&mut self, examined: &Examined, key: &str, path: &Path, error: &io::Error) {
        let message = format!("`{key}`: cannot read {}: {error}", path.display());
        let mistake = Mistake { place: place(examined, key), message };
        match error.kind() {
            io::ErrorKind::PermissionDenied => self.unreadable.push(mistake),
            _ => self.mistakes.push(mistake),
        }
    }

    /// Looks at whether an app could be asked, and at its secret.
    fn backend(&mut self, examined: &Examined, name: &str, backend: &Backend) {
        let path = format!("backends.{name:?}.secret-file");
        let unreadable =
            backend.secret_file.as_ref().and_then(|file| Some((file, File::open(file).err()?)));
        match (unreadable, backends::options(name, backend)) {
            (Some((file, error)), _) => self.cannot_read(examined, &path, file, &error),
            (None, Err(problem)) => {
                let key = if problem.starts_with("`secret-file`") { "secret-file" } else { "url" };
                let problem = problem.trim_start_matches("`secret-file`: ");
                self.mistake(examined, &format!("backends.{name:?}.{key}"), problem);
            }
            (None, Ok(_)) => {
                if let Some(file) = &backend.secret_file {
                    self.secret(&path, file);
                }
            }
        }
        if backend.url.starts_with("http://") && !is_here(&backend.url) {
            self.warnings.push(format!(
                "`backends.{name:?}.url`: what clients say goes to {} without TLS, which is right in a \
                 network of your own alone",
                backend.url.shown()
            ));
        }
    }

    /// Looks at what a service would be made of. It may all be there by its start, so none of it keeps a server
    /// from starting.
    fn service(&mut self, name: &str, service: &Service) {
        let files = service.script.iter().map(|path| ("script", path));
        let files = files.chain(service.directory.iter().map(|path| ("directory", path)));
        let files =
            files.chain(service.environment_files.iter().map(|it| ("environment-files", it)));
        for (key, path) in files {
            if let Err(error) = path.metadata() {
                let path = path.display();
                self.warnings.push(format!("`services.{name:?}.{key}`: {path}: {error}"));
            }
        }
        for path in &service.environment_files {
            self.secret(&format!("services.{name:?}.environment-files"), path);
        }
        if service.user.is_some() && !rustix::process::geteuid().is_root() {
            self.warnings.push(format!(
                "`services.{name:?}.user`: only root may run a process as somebody else, and this user is not \
                 root"
            ));
        }
    }

    /// Finds out what would run each service. One that nothing can run is a mistake.
    pub(crate) fn prove(
        &mut self,
        examined: &Examined,
        file: Option<&Path>,
    ) -> Vec<(String, String)> {
        let mut proofs = Vec::new();
        for service in settings::specs(&examined.config, file) {
            let name = &service.name;
            let key = match service.run {
                Run::Command(_) => "command",
                Run::Script { .. } => "script",
                Run::Module { .. } => "module",
            };
            let key = format!("services.{name:?}.{key}");
            match proof::prove(&service) {
                Ok(Some(choice)) => {
                    proofs.push((name.clone(), choice.to_string()));
                    let warnings = choice.warnings.into_iter();
                    self.warnings.extend(warnings.map(|words| format!("`{key}`: {words}")));
                }
                Ok(None) => {}
                Err(problem) => self.mistake(examined, &key, &problem),
            }
        }
        proofs
    }

    /// Looks at what a provider is shown.
    fn provider(&mut self, examined: &Examined, name: &str, provider: &Provider) {
        let path = |key: &str| format!("ai.providers.{name:?}.{key}");
        if let Some(file) = &provider.api_key_file {
            match (File::open(file), ai::api_key(provider, ai::of_environment)) {
                (Err(error), _) => self.cannot_read(examined, &path("api-key-file"), file, &error),
                (Ok(_), Err(problem)) => {
                    let problem = problem.trim_start_matches("`api-key-file`: ");
                    self.mistake(examined, &path("api-key-file"), problem);
                }
                (Ok(_), Ok(_)) => self.secret(&path("api-key-file"), file),
            }
        } else if let Err(problem) = ai::api_key(provider, ai::of_environment) {
            // The server may be started with another environment than this command.
            let problem = problem.trim_start_matches("`api-key-env`: ");
            self.warnings.push(format!("`{}`: {problem} here", path("api-key-env")));
        }
        if provider.base_url.starts_with("http://") && !is_here(&provider.base_url) {
            self.warnings.push(format!(
                "`{}`: prompts, answers and the key go to {} without TLS, which is right in a network of \
                 your own alone",
                path("base-url"),
                provider.base_url.shown()
            ));
        }
    }

    /// Looks at the token of a link, and at what it cannot do in this way.
    fn link(&mut self, examined: &Examined, name: &str, link: &Link) {
        let path = |key: &str| format!("links.{name:?}.{key}");
        let token = tokens::token(link, tokens::of_environment);
        if let Some(file) = &link.token_file {
            match (File::open(file), token) {
                (Err(error), _) => self.cannot_read(examined, &path("token-file"), file, &error),
                (Ok(_), Err(problem)) => {
                    let problem = problem.trim_start_matches("`token-file`: ");
                    self.mistake(examined, &path("token-file"), problem);
                }
                (Ok(_), Ok(_)) => self.secret(&path("token-file"), file),
            }
        } else if let Err(problem) = token {
            // The server may be started with another environment than this command.
            let problem = problem.trim_start_matches("`token-env`: ");
            self.warnings.push(format!("`{}`: {problem} here", path("token-env")));
        }
        if let Some(Err(error)) = link.ca_file.as_ref().map(File::open) {
            let file = link.ca_file.clone().unwrap_or_default();
            self.cannot_read(examined, &path("ca-file"), &file, &error);
        }
        let has_token = link.token_file.is_some() || link.token_env.is_some();
        if has_token && !link.says_token() {
            let key = if link.token_env.is_some() { "token-env" } else { "token-file" };
            self.warnings.push(format!(
                "`{}`: the token is said nowhere: write {{token}} where the service wants it, in `headers`, `hello` or \
                 `auth`",
                path(key)
            ));
        }
        if link.profile == Profile::WebSocket && link.message_id.is_none() {
            self.warnings.push(format!(
                "`{}`: without `message-id` a message that comes again is another one, except while two connections are \
                 beside each other",
                path("profile")
            ));
        }
        if !link.has_probe() {
            self.warnings.push(format!(
                "`{}`: without `probe` it is not known whether messages reach the link, only whether its connection lives",
                path("profile")
            ));
        }
        if link.profile == Profile::SocketIo && link.deliver == Deliver::Proxy {
            self.warnings.push(format!(
                "`{}`: bots of this profile do not come over the proxy: write `deliver`, to an app or a namespace",
                path("profile")
            ));
        }
        let plain = link.url.as_ref().filter(|url| {
            (url.starts_with("http://") || url.starts_with("ws://")) && !is_here(url)
        });
        if let Some(url) = plain {
            self.warnings.push(format!(
                "`{}`: messages and the token go to {} without TLS, which is right in a network of your own alone",
                path("url"),
                url.shown()
            ));
        }
    }

    /// Looks at what a collector is shown, and on which way.
    fn telemetry(&mut self, examined: &Examined) {
        let telemetry = &examined.config.telemetry;
        let shown = telemetry::headers(telemetry, ai::of_environment);
        if let Some(file) = &telemetry.otlp_headers_file {
            const KEY: &str = "telemetry.otlp-headers-file";
            match (File::open(file), &shown) {
                (Err(error), _) => self.cannot_read(examined, KEY, file, &error),
                (Ok(_), Err(problem)) => {
                    self.mistake(
                        examined,
                        KEY,
                        problem.trim_start_matches("`otlp-headers-file`: "),
                    );
                }
                (Ok(_), Ok(_)) => self.secret(KEY, file),
            }
        } else if let Err(problem) = &shown {
            // The server may be started with another environment than this command.
            let problem = problem.trim_start_matches("`otlp-headers-env`: ");
            self.warnings.push(format!("`telemetry.otlp-headers-env`: {problem} here"));
        }
        let endpoint = telemetry.otlp_endpoint.as_ref();
        let plain = endpoint.filter(|url| url.starts_with("http://") && !is_here(url));
        if let Some(url) = plain.filter(|_| matches!(shown, Ok(Some(_)))) {
            self.warnings.push(format!(
                "`telemetry.otlp-endpoint`: headers go to {} without TLS, which is right in a network of \
                 your own alone",
                url.shown()
            ));
        }
    }

    /// Looks at what tokens of a namespace are checked with.
    fn keys(&mut self, examined: &Examined, name: &str, jwt: &Jwt) {
        let (key, path) = match (&jwt.secret_file, &jwt.public_key_file) {
            (Some(path), _) => ("secret-file", path),
            (None, Some(path)) => ("public-key-file", path),
            (None, None) => {
                let plain = jwt.jwks_url.as_ref().filter(|url| url.starts_with("http://"));
                let far = plain.filter(|url| !is_here(url));
                if let Some(url) = far {
                    self.warnings.push(format!(
                        "`namespaces.{name:?}.auth.jwt.jwks-url`: {} comes without TLS: whoever is on \
                         the way may put in keys of their own",
                        url.shown()
                    ));
                }
                return;
            }
        };
        let key = format!("namespaces.{name:?}.auth.jwt.{key}");
        match (File::open(path), auth::files(jwt)) {
            (Err(error), _) => self.cannot_read(examined, &key, path, &error),
            (Ok(_), Some(Err(problem))) => self.mistake(examined, &key, &problem),
            (Ok(_), Some(Ok(keys))) => {
                if keys.has_short_secret() {
                    self.warnings.push(format!(
                        "`{key}`: a secret has fewer than 32 bytes; whoever has a token may find it \
                         by trying: `openssl rand -base64 48` makes a better one"
                    ));
                }
                if jwt.secret_file.is_some() {
                    self.secret(&key, path);
                }
            }
            (Ok(_), None) => {}
        }
    }

    /// Warns if everybody may read or change the file.
    fn secret(&mut self, key: &str, path: &Path) {
        let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o006 != 0 {
            let shown = path.display();
            self.warnings.push(format!(
                "`{key}`: {shown} is open to everybody on this machine: `chmod 600 {shown}`"
            ));
        }
    }
}

/// Where the value of a key comes from.
fn place(examined: &Examined, key: &str) -> Place {
    Place::of(examined.origins.get(key).copied().unwrap_or_default())
}

/// Whether a URL names this machine.
fn is_here(url: &str) -> bool {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    host.is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// A configuration that may be used, as JSON.
pub(crate) fn good_json(file: Option<&Path>, warnings: &[String]) -> Value {
    json!({ "ok": true, "file": file, "mistakes": [], "warnings": warnings })
}

/// One that may not.
pub(crate) fn bad_json(error: &Error) -> Value {
    let (file, mistakes) = match error {
        Error::Unreadable { path, .. } => {
            let mistakes = vec![json!({ "message": error.to_string() })];
            (Some(path), mistakes)
        }
        Error::Invalid { file, mistakes } => {
            let text = file.as_ref().map(|(_, text)| text.as_str()).unwrap_or_default();
            let shown = mistakes.iter().map(|Mistake { place, message }| match place {
                Place::Line(line) => {
                    json!({ "line": line, "text": excerpt(text, *line), "message": message })
                }
                Place::Outside(what) => json!({ "place": what, "message": message }),
            });
            (file.as_ref().map(|(path, _)| path), shown.collect())
        }
    };
    json!({ "ok": false, "file": file, "mistakes": mistakes, "warnings": [] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Origin};

    #[test]
    fn only_a_file_that_another_user_may_read_is_no_mistake() {
        let origins = [("admin.token-file".to_owned(), Origin::Line(3))].into();
        let examined = Examined { config: Config::default(), origins };
        let mut findings = Findings::default();
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound] {
            let path = Path::new("/nowhere/token");
            findings.cannot_read(&examined, "admin.token-file", path, &kind.into());
        }
        let places = |found: &[Mistake]| -> Vec<_> {
            found.iter().map(|mistake| (mistake.place.clone(), mistake.message.clone())).collect()
        };
        let text = |why: &str| format!("`admin.token-file`: cannot read /nowhere/token: {why}");
        let line = Place::Line(3);
        assert_eq!(places(&findings.mistakes), [(line.clone(), text("entity not found"))]);
        assert_eq!(places(&findings.unreadable), [(line, text("permission denied"))]);
    }
}

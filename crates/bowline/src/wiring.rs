//! From a configuration to the description of a server: at the start, and again at a reload.

use std::sync::Arc;

use bowline_names::ErrorCode;
use bowline_net::{
    Builder, Continuity, Echo, Keeping, Limits, Relay, Server, SessionKeySource, SessionLimits, Tls,
};

use crate::{
    ai::Ai,
    auth::Auth,
    backends::Backends,
    config::{Allowance, Config, Cookie, Handler, Namespace, SessionKey, Shards},
    failure::Failure,
    links::Links,
    page,
};

/// Describes the server that a configuration asks for, but for its addresses: those were bound by
/// the master and are adopted.
///
/// # Errors
/// The keys that a namespace checks tokens with, the secret of an app, the key of a provider, or the token of a link
/// cannot be read.
pub(crate) fn builder(
    config: &Config,
    auth: &Auth,
    backends: &Backends,
    ai: &Ai,
    links: &Links,
) -> Result<Builder, Failure> {
    let Config { server, engine, limits, continuity, namespaces, health, .. } = config;
    backends.prepare(config)?;
    ai.prepare(config)?;
    links.prepare(config)?;
    let mut builder =
        Server::builder()
            .drain(server.drain)
            .trusted_proxies(server.trusted_proxies.iter().copied())
            .proxy_protocol(server.proxy_protocol)
            .tls(server.tls.as_ref().map(|tls| Tls {
                cert_file: tls.cert_file.clone(),
                key_file: tls.key_file.clone(),
            }))
            .public_url(health.public_url.clone())
            .path(&engine.path)
            .polling(engine.transports.polling)
            .websocket(engine.transports.websocket)
            .allow_eio3(engine.allow_eio3)
            .ping_interval(engine.ping_interval)
            .ping_timeout(engine.ping_timeout)
            .upgrade_timeout(engine.upgrade_timeout)
            .connect_timeout(engine.connect_timeout)
            .compression(engine.compression)
            .cors_allowed_origins(engine.cors_allowed_origins.iter().map(String::as_str))
            .cookie(match &engine.cookie {
                Cookie::Off => None,
                Cookie::Named(name) => Some(name.clone()),
            })
            .limits(Limits {
                connections: number(limits.connections),
                connections_per_address: number(limits.connections_per_address),
                handshakes_per_second: limits.handshakes_per_second,
                handshakes_per_second_per_address: number(limits.handshakes_per_second_per_address)
                    .and_then(|number| u32::try_from(number).ok()),
                request_head: limits.request_head,
            })
            .session_limits(SessionLimits {
                max_payload_bytes: engine.max_payload_bytes,
                packets_per_payload: limits.packets_per_payload,
                attachments: limits.attachments,
                namespaces_per_session: limits.namespaces_per_session,
                rooms_per_session: limits.rooms_per_session,
                pending_acks_per_session: limits.pending_acks_per_session,
                events_per_second: limits.events_per_second,
                queued_bytes_per_session: limits.queued_bytes_per_session,
            })
            .continuity(Continuity {
                window: continuity.window,
                max_bytes: continuity.max_bytes,
                max_away: continuity.max_away,
            })
            .http_service(ai.service())
            .page(page::render(config));
    if let Shards::Of(shards) = server.shards {
        builder = builder.shards(shards.into());
    }
    for (pattern, rule) in &namespaces.0 {
        let most = number(limits.connections_per_subject);
        let handler = handler(pattern, rule, most, auth, (backends, ai, links))?;
        builder = builder.namespace_shared(pattern, handler).keeping(keeping(rule));
    }
    Ok(builder)
}

/// What answers the events of a namespace, with a guard before it where tokens are asked for.
fn handler(
    pattern: &str,
    rule: &Namespace,
    per_subject_max: Option<usize>,
    auth: &Auth,
    (backends, ai, links): (&Backends, &Ai, &Links),
) -> Result<Arc<dyn bowline_net::Handler>, Failure> {
    let handler: Arc<dyn bowline_net::Handler> = match &rule.handler {
        Handler::Echo => Arc::new(Echo),
        Handler::Relay => Arc::new(Relay),
        Handler::Link => links.namespace(pattern),
        Handler::Http(name) => Arc::new(backends.get(name).ok_or_else(|| {
            // The configuration has been checked.
            Failure::new(ErrorCode::ConfigInvalid, format!("there is no backend {name}"))
        })?),
        Handler::Ai(model) => Arc::new(ai.chat(pattern, model, rule)),
    };
    let Some(jwt) = &rule.jwt else { return Ok(handler) };
    let name_claim = match &rule.session_key {
        Some(SessionKey::Claim(name)) => Some(name.clone()),
        Some(SessionKey::Cookie(_)) | None => None,
    };
    Ok(Arc::new(auth.guard(pattern, jwt, name_claim, per_subject_max, handler)?))
}

fn keeping(rule: &Namespace) -> Keeping {
    Keeping {
        stamp: rule.stamp,
        on_doubt: rule.on_doubt,
        event_id: rule.event_id.clone(),
        session_key: rule.session_key.as_ref().map(|key| match key {
            SessionKey::Cookie(name) => SessionKeySource::Cookie(name.as_str().into()),
            SessionKey::Claim(_) => SessionKeySource::Claim,
        }),
    }
}

fn number(allowance: Allowance) -> Option<usize> {
    match allowance {
        Allowance::Auto => None,
        Allowance::Of(number) => Some(number),
    }
}

//! The page at `/` of the admin listener: one verdict, the figures behind it, and links. No
//! script; it comes anew every five seconds.

use std::{fmt::Write as _, sync::Arc};

use axum::{extract::State, response::Html};
use bowline_net::Readiness;

use super::status::{self, Status};
use crate::{
    clock,
    config::duration_text,
    gateway::Gateway,
    links::words::{facts, remarks, troubles},
};

const HEAD: &str = include_str!("page_head.html");

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Well,
    /// It will be, or ends as it was told to.
    Moving,
    /// Clients are served, but somebody should look.
    Look,
    Bad,
}

impl Verdict {
    fn class(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Moving => "moving",
            Self::Look => "look",
            Self::Bad => "bad",
        }
    }
}

/// A page for people: the verdict and links.
#[utoipa::path(get, path = "/", tag = "observe", responses(
    (status = 200, description = "A page for people", content_type = "text/html", body = String),
))]
pub(super) async fn page(State(gateway): State<Arc<Gateway>>) -> Html<String> {
    let readiness = gateway.handle.readiness();
    Html(render(&status::of_gateway(&gateway).await, readiness))
}

fn render(status: &Status, readiness: Readiness) -> String {
    let (verdict, words) = verdict(status, readiness);
    let mut page = HEAD.to_owned();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(page, "<h1 class=\"{}\">{}</h1>", verdict.class(), escape(&words));
    let gateway = &status.gateway;
    let mut restarts = gateway.restarts.total.to_string();
    if let Some(end) = &gateway.last_end {
        restarts = format!("{restarts}, the last after it {end}");
    }
    let rows = [
        ("version", status.version.clone()),
        ("up for", duration_text(std::time::Duration::from_secs(status.uptime_seconds))),
        ("looked after by", status.management.clone()),
        ("processes", format!("master {}, gateway {}", status.pid, number(gateway.pid))),
        ("gateway restarts", restarts),
        ("sessions", count(status.sessions)),
        ("connections", count(status.connections)),
        (
            "configuration",
            status
                .config_file
                .as_ref()
                .map_or("defaults".to_owned(), |path| path.display().to_string()),
        ),
    ];
    page.push_str("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    for listener in &status.listeners {
        let tls = if listener.tls { " (TLS)" } else { "" };
        let (door, address) = (escape(&listener.door), listener.address);
        let _ = writeln!(page, "<tr><th>{door} listener</th><td>{address}{tls}</td></tr>");
    }
    page.push_str("</table>\n");
    alerts(&mut page, status);
    services(&mut page, status);
    links(&mut page, status);
    components(&mut page, status);
    page.push_str(LINKS);
    page
}

const LINKS: &str = "<h2>More</h2>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a> for Prometheus</li>\n\
    <li><a href=\"/health/ready\">/health/ready</a>, <a href=\"/health/websocket\">/health/websocket\
    </a>, <a href=\"/health/live\">/health/live</a></li>\n\
    <li><a href=\"/api/v1/status\">/api/v1/status</a>, <a href=\"/api/v1/components\">components</a>, \
    <a href=\"/api/v1/sockets\">sockets</a>, <a href=\"/api/v1/rooms\">rooms</a></li>\n\
    <li><a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>: all of the API</li>\n\
    </ul>\n</main>\n</html>\n";

fn verdict(status: &Status, readiness: Readiness) -> (Verdict, String) {
    let failed: Vec<&str> = (status.components.iter())
        .filter(|component| component.state == "failed")
        .map(|component| component.name.as_str())
        .collect();
    let down: Vec<&str> = (status.services.iter())
        .filter(|service| matches!(&*service.state, "failed" | "crash-loop"))
        .map(|service| service.name.as_str())
        .collect();
    let links = status.links.iter().filter(|link| link.is_down());
    let down: Vec<&str> = down.into_iter().chain(links.map(|link| link.name.as_str())).collect();
    let alerts = status.alerts.len();
    if status.state == "draining" {
        return (Verdict::Moving, "stopping: sessions are drained".to_owned());
    }
    match readiness {
        Readiness::Starting => (Verdict::Moving, "starting".to_owned()),
        Readiness::Degraded { .. } if readiness.is_serving() => {
            (Verdict::Look, format!("serving without {}", failed.join(", ")))
        }
        Readiness::Degraded { .. } => {
            (Verdict::Bad, format!("not ready: {} failed", failed.join(", ")))
        }
        Readiness::Ready if !down.is_empty() => {
            (Verdict::Look, format!("serving without {}", down.join(", ")))
        }
        Readiness::Ready if alerts == 1 => (Verdict::Look, "serving, 1 alert fires".to_owned()),
        Readiness::Ready if alerts > 1 => (Verdict::Look, format!("serving, {alerts} alerts fire")),
        Readiness::Ready => (Verdict::Well, "serving, all is well".to_owned()),
    }
}

fn alerts(page: &mut String, status: &Status) {
    if status.alerts.is_empty() {
        return;
    }
    page.push_str("<h2>Alerts</h2>\n<table>\n");
    for alert in &status.alerts {
        let _ = writeln!(
            page,
            "<tr><th>{}<br><small>{}, since {}</small></th><td>{}<br><small>{}</small></td></tr>",
            escape(&alert.name),
            escape(&alert.severity),
            escape(&alert.since),
            escape(&alert.summary),
            escape(&alert.remedy),
        );
    }
    page.push_str("</table>\n");
}

fn services(page: &mut String, status: &Status) {
    if status.services.is_empty() {
        return;
    }
    page.push_str("<h2>Services</h2>\n<table>\n");
    for service in &status.services {
        let mut words = service.state.clone();
        if let Some(pid) = service.pid {
            let _ = write!(words, ", pid {pid}");
        }
        match service.words() {
            more if more.is_empty() => {}
            more => {
                let _ = write!(words, ": {more}");
            }
        }
        let (name, words) = (escape(&service.name), escape(&words));
        let _ = writeln!(page, "<tr><th>{name}</th><td>{words}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn links(page: &mut String, status: &Status) {
    if status.links.is_empty() {
        return;
    }
    let now = clock::timestamp();
    page.push_str("<h2>Links</h2>\n<table>\n");
    for link in &status.links {
        let class = match &*link.state {
            "live" => Verdict::Well,
            "connecting" | "proving" => Verdict::Moving,
            "refused" | "replaced" => Verdict::Bad,
            _ => Verdict::Look,
        };
        let (name, state, facts) =
            (escape(&link.name), escape(&link.state), escape(&facts(link, now)));
        let class = class.class();
        let _ = write!(page, "<tr><th>{name}</th><td><b class=\"{class}\">{state}</b>, {facts}");
        for line in troubles(link, now) {
            let _ = write!(page, "<br>{}", escape(&line));
        }
        for line in remarks(link, now) {
            let _ = write!(page, "<br><small>{}</small>", escape(&line));
        }
        page.push_str("</td></tr>\n");
    }
    page.push_str("</table>\n");
}

fn components(page: &mut String, status: &Status) {
    if status.components.is_empty() {
        return;
    }
    page.push_str("<h2>Components</h2>\n<table>\n");
    for component in &status.components {
        let mut words = component.state.clone();
        if component.state == "loading" {
            let _ = write!(words, " {:.0} %", component.progress * 100.0);
        }
        if !component.waiting_for.is_empty() {
            let _ = write!(words, ", waits for {}", component.waiting_for.join(", "));
        }
        for more in [component.error.as_deref(), Some(component.text.as_str())] {
            if let Some(more) = more.filter(|more| !more.is_empty()) {
                let _ = write!(words, ": {more}");
            }
        }
        let optional = if component.required { "" } else { " (optional)" };
        let (name, words) = (escape(&component.name), escape(&words));
        let _ = writeln!(page, "<tr><th>{name}{optional}</th><td>{words}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn count(figure: Option<usize>) -> String {
    figure.map_or("unknown".to_owned(), |figure| figure.to_string())
}

fn number(pid: Option<u32>) -> String {
    pid.map_or("none".to_owned(), |pid| pid.to_string())
}

fn escape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::status::{ComponentStatus, GatewayStatus, Restarts};

    fn status() -> Status {
        Status {
            state: "running".to_owned(),
            management: "foreground".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            started: jiff::Timestamp::UNIX_EPOCH,
            uptime_seconds: 61,
            state_dir: None,
            config_file: None,
            gateway: GatewayStatus {
                state: "answering".to_owned(),
                pid: Some(2),
                started: None,
                answered: true,
                restarts: Restarts::default(),
                last_end: None,
                next_attempt_seconds: None,
                waiting_for: None,
            },
            listeners: Vec::new(),
            components: Vec::new(),
            services: Vec::new(),
            links: Vec::new(),
            links_store: None,
            links_gone: Vec::new(),
            alerts: Vec::new(),
            sessions: Some(0),
            connections: Some(0),
        }
    }

    fn component(name: &str, state: &str, error: Option<&str>) -> ComponentStatus {
        ComponentStatus {
            name: name.to_owned(),
            required: true,
            state: state.to_owned(),
            progress: 0.4,
            text: String::new(),
            waiting_for: Vec::new(),
            since: jiff::Timestamp::UNIX_EPOCH,
            error: error.map(str::to_owned),
            seconds: None,
        }
    }

    #[test]
    fn the_verdict_is_the_worst_that_is_so() {
        let mut status = status();
        assert_eq!(verdict(&status, Readiness::Ready).0, Verdict::Well);
        assert_eq!(verdict(&status, Readiness::Starting).0, Verdict::Moving);
        status.components.push(component("store", "failed", Some("no disk")));
        let serving = Readiness::Degraded { serving: true };
        let (look, words) = verdict(&status, serving);
        assert_eq!((look, words.as_str()), (Verdict::Look, "serving without store"));
        let (bad, words) = verdict(&status, Readiness::Degraded { serving: false });
        assert_eq!((bad, words.as_str()), (Verdict::Bad, "not ready: store failed"));
        status.state = "draining".to_owned();
        assert_eq!(verdict(&status, serving).0, Verdict::Moving);
    }

    #[test]
    fn what_others_said_is_no_html() {
        let mut status = status();
        let hostile = "<script>alert(\"1\")</script>";
        status.components.push(component(hostile, "failed", Some(hostile)));
        status.gateway.last_end = Some(hostile.to_owned());
        status.config_file = Some(hostile.into());
        status.management = hostile.to_owned();
        let page = render(&status, Readiness::Ready);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"), "{page}");
    }

    #[test]
    fn a_status_is_what_the_contract_says() {
        let status = serde_json::to_value(status()).unwrap();
        assert_eq!(status["started"], json!("1970-01-01T00:00:00Z"));
        assert_eq!(status["gateway"]["restarts"], json!({"total": 0, "by_reason": {}}));
        assert_eq!(status["gateway"]["next_attempt_seconds"], json!(null));
    }
}

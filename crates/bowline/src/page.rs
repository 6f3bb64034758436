//! The page at `/` to try a connection: one file, no requests to elsewhere.

use serde_json::json;

use crate::config::Config;

const TEMPLATE: &str = include_str!("page.html");

/// Fills in what the page needs to know.
pub(crate) fn render(config: &Config) -> String {
    let engine = &config.engine;
    let transports: Vec<&str> = [
        engine.transports.polling.then_some("polling"),
        engine.transports.websocket.then_some("websocket"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let namespaces: Vec<(&str, &str)> = (config.namespaces.0.iter())
        .map(|(name, rule)| (name.as_str(), rule.handler.name()))
        .collect();
    let settings = json!({
        "path": engine.path,
        "transports": transports,
        "namespaces": namespaces,
        "version": env!("CARGO_PKG_VERSION"),
    });
    // Inside <script> only a tag could end it.
    TEMPLATE.replacen("__SETTINGS__", &settings.to_string().replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Handler;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for (at, _) in TEMPLATE.match_indices("http") {
            let words = &TEMPLATE[at..(at + 24).min(TEMPLATE.len())];
            let allowed = ["http://www.w3.org/2000/s", "http-equiv"];
            let is_address = words.starts_with("http://") || words.starts_with("https://");
            assert!(!is_address || allowed.iter().any(|word| words.starts_with(word)), "{words}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"));
    }

    #[test]
    fn a_name_cannot_end_the_script() {
        let hostile = "/</script><script>alert(1)</script>".to_owned();
        let mut config = Config::default();
        config.namespaces.0.clear();
        config.namespaces.entry(&hostile).handler = Handler::Echo;
        let page = render(&config);
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("\\u003c/script>"));
    }
}

//! What an unmodified bot is told, by way of its environment.

use std::net::IpAddr;

use super::{
    authority::Authority,
    files::{Directory, LocalError},
    secret,
};
use crate::settings::{Link, Profile, Shared};

/// The variables that bring a bot to its link, in the order in which people read them. `shared.listen` must be the
/// address that is bound. Works on files alone and may block for as long as another process writes some: the master
/// may call it as well as the gateway. Makes the authority and the secret when there are none.
///
/// Proxies are named in both cases, since Python prefers the lower one. Plain HTTP keeps its own way: there is no
/// `HTTP_PROXY`, so that what the bot asks of its own machine, or of a model that takes minutes, is not changed.
/// Certificates in [`Link::ca_file`] are believed by Bowline and not by the bot.
///
/// # Errors
///
/// A file cannot be read or made.
pub fn environment(shared: &Shared, link: &Link) -> Result<Vec<(String, String)>, LocalError> {
    let (_, files) = Authority::open(&shared.directory)?;
    let secret = secret::of_link(&Directory::lock(&shared.directory)?, &link.name)?;

    let proxy = format!("http://{}:{}@{}", link.name, secret.expose(), shared.listen);
    // A service on this machine is reached through the proxy too: else its bot would go past its link.
    let near = if is_near(link) { "" } else { "localhost,127.0.0.1,::1" }.to_owned();
    let bundle = files.bundle.display().to_string();
    let certificate = files.certificate.display().to_string();
    let variables = [
        ("HTTPS_PROXY", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", near.clone()),
        ("no_proxy", near),
        ("SSL_CERT_FILE", bundle.clone()),
        ("REQUESTS_CA_BUNDLE", bundle.clone()),
        ("CURL_CA_BUNDLE", bundle),
        ("NODE_EXTRA_CA_CERTS", certificate),
        // Since 24 (and 22.21) Node heeds the proxy when it is told to.
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// Whether the service of a link is on this machine.
fn is_near(link: &Link) -> bool {
    let Profile::WebSocket { url, .. } = &link.profile else { return false };
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::{super::tests::settings, *};

    #[test]
    fn the_environment_names_files_that_are_there_and_stays_the_same() {
        let temporary = tempfile::tempdir().unwrap();
        let (shared, link) = settings(temporary.path());
        let first = environment(&shared, &link).unwrap();
        assert_eq!(environment(&shared, &link).unwrap(), first);

        assert!(first.contains(&("NO_PROXY".to_owned(), "localhost,127.0.0.1,::1".to_owned())));
        let by_name = first.into_iter().collect::<BTreeMap<_, _>>();
        let proxy = &by_name["HTTPS_PROXY"];
        assert!(proxy.starts_with("http://bot:") && proxy.ends_with("@127.0.0.1:8002"), "{proxy}");
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"]
        {
            let path = Path::new(&by_name[name]);
            assert!(fs::read_to_string(path).unwrap().contains("BEGIN CERTIFICATE"), "{name}");
        }
    }
    #[test]
    fn the_way_to_a_service_on_this_machine_leads_through_the_proxy_too() {
        let temporary = tempfile::tempdir().unwrap();
        let (shared, mut link) = settings(temporary.path());
        for (url, near) in [
            ("ws://127.0.0.1:9000/bots", true),
            ("wss://localhost/bots", true),
            ("ws://[::1]:9000/", true),
            ("wss://chat.example/bots", false),
        ] {
            link.profile = Profile::WebSocket {
                url: url.to_owned(),
                headers: BTreeMap::new(),
                hello: None,
                ack: None,
                message_id: None,
                room: None,
                probe: None,
                protocols: Vec::new(),
            };
            let variables: BTreeMap<_, _> =
                environment(&shared, &link).unwrap().into_iter().collect();
            assert_eq!(variables["NO_PROXY"].is_empty(), near, "{url}");
        }
    }
}

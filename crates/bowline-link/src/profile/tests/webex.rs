//! What Webex is asked beside its socket, and what a service may answer that is broken or wants the token.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bowline_dial::{Leg, LegOptions, Proxy, Trust};
use bowline_proto::{
    keeper::Verdict,
    websocket::{OpCode, handshake::accept_key, server_frame},
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring::default_provider};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::{
    super::webex::{Webex, envelope::public_id},
    *,
};
use crate::{clock, far::CatchUpFailure};

const ROOMS: &str = "GET webexapis.com/v1/rooms?sortBy=lastactivity";
const POST: &str = "POST webexapis.com/v1/messages";
const MESSAGES: &str = "GET webexapis.com/v1/messages?roomId=";

/// How far back is asked.
const BACK_MS: u64 = 120_000;

#[tokio::test]
async fn a_quiet_account_costs_one_request_whatever_its_own_probes_do() {
    let cloud = Cloud::start(|_| Said::items([room("probe", "group", ago(1)), old("quiet")])).await;
    cloud.facts.inbox().set("bot", "probe-room", Some(&public_id("ROOM", "probe"))).await;
    assert_eq!(cloud.look().await, Ok(vec![]));
    assert_eq!(cloud.asked(), [format!("{ROOMS}&max=10")]);
    assert_eq!(cloud.catch_up().await, Ok(vec![]));
    assert_eq!(cloud.asked(), [format!("{ROOMS}&max=10")]);
    let yesterday = clock::unix_ms() - 86_400_000;
    let caught_up = cloud.webex.catch_up(yesterday).await.unwrap();
    assert_eq!((caught_up.len(), cloud.asked()), (0, vec![format!("{ROOMS}&max=100")]));
}

#[tokio::test]
async fn a_space_with_news_is_asked_once_until_there_is_more_of_it() {
    let at = ago(5);
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => {
            Said::items([room("ann", "direct", at), room("team", "group", at), old("quiet")])
        }
        _ if asked.contains(&public_id("ROOM", "ann")) => Said::items([
            message("answer", "ann", "me", at),
            message("question", "ann", "paula", at - 1),
            message("before", "ann", "paula", ago(600)),
        ]),
        _ => Said::items([]),
    })
    .await;
    assert_eq!(ids(cloud.look().await), ["question"]);
    let of = |room: &str, more: &str| format!("{MESSAGES}{}&max=10{more}", public_id("ROOM", room));
    let (ann, team) = (of("ann", ""), of("team", "&mentionedPeople=me"));
    assert_eq!(cloud.asked(), [format!("{ROOMS}&max=10"), ann.clone(), team.clone()]);
    assert_eq!(ids(cloud.look().await), [""; 0]);
    assert_eq!(cloud.asked(), [format!("{ROOMS}&max=10")]);
    // Whoever knows that something is missing gets all of it, each time.
    assert_eq!(ids(cloud.catch_up().await), ["question"]);
    assert_eq!(cloud.asked(), [format!("{ROOMS}&max=10"), ann, team]);
    cloud.answer(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => Said::items([room("ann", "direct", at + 1)]),
        _ => Said::items([message("another", "ann", "paula", at + 1)]),
    });
    assert_eq!(ids(cloud.look().await), ["another"]);
}

#[tokio::test]
async fn a_service_that_wants_to_be_left_alone_is_obeyed_and_asked_for_the_rest_afterwards() {
    let at = ago(5);
    let spaces = move || ["a", "b", "c"].map(|name| room(name, "direct", at));
    let listing = move |asked: &str| match asked {
        _ if asked.starts_with(ROOMS) => Said::items(spaces()),
        _ if asked.contains(&public_id("ROOM", "a")) => {
            Said::items([message("a2", "a", "paula", at), message("a1", "a", "paula", at)])
        }
        _ if asked.contains(&public_id("ROOM", "b")) => {
            Said::items([message("b1", "b", "paula", at - 1)])
        }
        _ => Said::items([message("c1", "c", "paula", at - 2)]),
    };
    let busy = |status: u16, headers: &[(&'static str, &str)]| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Said { status, headers, body: r#"{"message":"slower"}"#.to_owned() }
    };
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.contains(&public_id("ROOM", "b")) => busy(429, &[("retry-after", "17")]),
        _ => listing(asked),
    })
    .await;
    let refused = cloud.catch_up().await.unwrap_err();
    assert_eq!(refused.words, "listing messages: answered 429: slower");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(17)));
    assert_eq!(cloud.asked().len(), 3);

    cloud.answer(listing);
    assert_eq!(ids(cloud.catch_up().await), ["c1", "b1", "a1", "a2"], "in their order");
    let asked = cloud.asked();
    assert_eq!(asked.len(), 3, "what was answered is not asked again: {asked:?}");
    assert_eq!(ids(cloud.catch_up().await).len(), 4);
    assert_eq!(cloud.asked().len(), 4, "the next one begins anew");

    for (status, said) in [(503, Some(Duration::from_secs(3))), (500, None)] {
        let headers: &[_] = if said.is_some() { &[("retry-after", "3")] } else { &[] };
        let answer = busy(status, headers);
        cloud.answer(move |_| answer.clone());
        for asked in [cloud.look().await, cloud.catch_up().await] {
            assert_eq!(asked.unwrap_err().retry_after, said);
        }
    }
}

#[tokio::test]
async fn a_space_that_cannot_be_read_takes_nothing_from_the_others() {
    let at = ago(5);
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => Said::items([
            room("left", "direct", at),
            room("broken", "direct", at),
            room("a", "direct", at),
            json!({ "id": "a&max=1", "type": "direct", "lastActivity": iso(at) }),
            json!({ "id": "", "type": {} }),
            json!(7),
        ]),
        _ if asked.contains(&public_id("ROOM", "left")) => Said::status(404),
        _ if asked.contains(&public_id("ROOM", "broken")) => Said::status(500),
        _ => Said::items([message("a1", "a", "paula", at)]),
    })
    .await;
    for _ in 1..4 {
        let why = cloud.catch_up().await.unwrap_err();
        assert_eq!(why.words, "listing messages: answered 500");
    }
    cloud.asked();
    assert_eq!(ids(cloud.catch_up().await), ["a1"], "the fourth time nobody waits for it");
    assert_eq!(cloud.asked().len(), 3, "`a` had answered");
    for _ in 0..2 {
        assert_eq!(ids(cloud.look().await), [""; 0], "it is asked again, and fails");
        let asked = cloud.asked();
        assert!(
            asked.iter().any(|asked| asked.contains(&public_id("ROOM", "broken"))),
            "{asked:?}"
        );
    }
    cloud.answer(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => Said::items([]),
        _ => Said::items([message("late", "broken", "paula", at)]),
    });
    assert_eq!(ids(cloud.look().await), ["late"]);
    cloud.asked();
    assert_eq!((ids(cloud.look().await).len(), cloud.asked().len()), (0, 1));
}

#[tokio::test]
async fn spaces_that_fail_together_are_all_asked_again_when_they_answer() {
    let at = ago(5);
    let names = ["a", "b", "c", "d", "e", "f"];
    let rooms = Said::items(names.map(|name| room(name, "direct", at)));
    let of = move |asked: &str| {
        let is_of = |name: &&&str| asked.contains(&format!("={}&", public_id("ROOM", name)));
        let name = *names.iter().find(is_of).unwrap();
        Said::items([message(&format!("of-{name}"), name, "paula", at)])
    };
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => rooms.clone(),
        _ if asked.contains(&public_id("ROOM", "a")) => of(asked),
        _ => Said::status(500),
    })
    .await;
    let mut found = Vec::new();
    for _ in 0..20 {
        if let Ok(messages) = cloud.catch_up().await {
            found.extend(ids(Ok(messages)));
            break;
        }
    }
    assert_eq!(found, ["of-a"]);
    cloud.answer(move |asked| if asked.starts_with(ROOMS) { Said::items([]) } else { of(asked) });
    for _ in names {
        found.extend(ids(cloud.look().await));
    }
    found.sort();
    assert_eq!(found, names.map(|name| format!("of-{name}")));
}

#[tokio::test]
async fn a_look_finds_what_others_have_beside_a_space_that_fails() {
    let at = ago(5);
    let rooms = Said::items(["broken", "a"].map(|name| room(name, "direct", at)));
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => rooms.clone(),
        _ if asked.contains(&public_id("ROOM", "broken")) => Said::status(500),
        _ => Said::items([message("a1", "a", "paula", at)]),
    })
    .await;
    assert_eq!(ids(cloud.look().await), ["a1"]);
    cloud.answer(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => Said::items([]),
        _ => Said::items([message("late", "broken", "paula", at)]),
    });
    assert_eq!(ids(cloud.look().await), ["late"]);
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_and_nothing_overtakes() {
    let (cloud, mut far) = busy().await;
    far.tell(Command::Send(Outgoing { ask: Some(1), ..outgoing("{}") })).await;
    assert!(matches!(far.next().await, Event::Answered { ask: 1, answer: Err(_) }));
    assert!(timeout(Duration::from_millis(100), far.next()).await.is_err());
    let posts = cloud.asked().iter().filter(|it| it.starts_with(POST)).count();
    assert_eq!(posts, 1, "nothing goes out beside the first");
}

#[tokio::test]
async fn a_confirmation_waits_for_the_answers_before_it_however_many_wait() {
    let (_cloud, mut far) = busy().await;
    far.tell(Command::Confirmed { id: "m".into() }).await;
    let said = timeout(Duration::from_millis(100), far.next()).await;
    assert!(said.is_err(), "{said:?}");
}

#[tokio::test]
async fn of_a_space_that_fails_for_long_nothing_is_found_whose_id_is_forgotten() {
    const HOUR: u64 = 3600;
    let rooms = Said::items(["a", "broken"].map(|name| room(name, "direct", ago(5))));
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => rooms.clone(),
        _ if asked.contains(&public_id("ROOM", "broken")) => Said::status(500),
        _ => Said::items([]),
    })
    .await;
    // As one that began to fail yesterday.
    let since = ago(30 * HOUR);
    for _ in 1..4 {
        cloud.webex.catch_up(since).await.unwrap_err();
    }
    cloud.webex.catch_up(since).await.unwrap();
    let answer = |asked: &str| match asked {
        _ if asked.contains(&public_id("ROOM", "broken")) => Said::items([
            message("new", "broken", "paula", ago(5)),
            message("confirmed", "broken", "paula", ago(25 * HOUR)),
        ]),
        _ => Said::items([]),
    };
    cloud.answer(answer);
    assert_eq!(ids(cloud.look().await), ["new"]);
}

#[tokio::test]
async fn a_service_that_fails_is_neither_overrun_nor_taken_for_an_empty_one() {
    let at = ago(5);
    let names: Vec<_> = (0..50).map(|n| format!("r{n}")).collect();
    let rooms: Vec<_> = names.iter().map(|name| room(name, "direct", at)).collect();
    let rooms = Said::items(rooms);
    let (first, later) = (rooms.clone(), rooms);
    let cloud =
        Cloud::start(
            move |asked| {
                if asked.starts_with(ROOMS) { first.clone() } else { Said::status(503) }
            },
        )
        .await;
    for _ in 0..30 {
        cloud.catch_up().await.unwrap_err();
        assert_eq!(cloud.asked().len(), 4);
    }
    cloud.answer(move |asked| {
        if asked.starts_with(ROOMS) {
            return later.clone();
        }
        let of = |name: &&String| asked.contains(&format!("={}&", public_id("ROOM", name)));
        let name = names.iter().find(of).unwrap();
        Said::items([message(&format!("of-{name}"), name, "paula", at)])
    });
    assert_eq!(ids(cloud.catch_up().await).len(), 50);
}

#[tokio::test]
async fn what_is_no_list_is_no_silence() {
    let nested = format!(r#"{{"items":{}"#, "[".repeat(1 << 20));
    let large = format!(r#"{{"items":[{}0]}}"#, "0,".repeat(3 << 20));
    for body in ["", "<html>", "{}", r#"{"items":7}"#, "\x1f\u{8b}\x08", &nested, &large] {
        let body = body.to_owned();
        let cloud = Cloud::start(move |_| Said { body: body.clone(), ..Said::status(200) }).await;
        for asked in [cloud.look().await, cloud.catch_up().await] {
            assert!(asked.unwrap_err().words.starts_with("listing the spaces: "));
        }
    }
}

#[tokio::test]
async fn the_token_goes_to_no_other_host() {
    let at = ago(5);
    let elsewhere = "<https://evil.example/v1/rooms?cursor=2>; rel=\"next\"";
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => Said {
            headers: vec![("link", elsewhere.to_owned())],
            ..Said::items([room("a", "direct", at), room("b", "direct", at)])
        },
        _ if asked.contains(&public_id("ROOM", "a")) => Said {
            headers: vec![("location", "https://evil.example/".to_owned())],
            ..Said::status(302)
        },
        _ => Said {
            headers: vec![("link", elsewhere.to_owned())],
            ..Said::items([message("b1", "b", "paula", at)])
        },
    })
    .await;
    for _ in 1..4 {
        cloud.catch_up().await.unwrap_err();
    }
    assert_eq!(ids(cloud.catch_up().await), ["b1"]);

    let catalog = |devices: &str| {
        let links = json!({ "wdm": devices, "conversation": "https://evil.example/c" });
        Said { body: json!({ "serviceLinks": links }).to_string(), ..Said::status(200) }
    };
    let device = |url: &str, socket: &str| {
        let device = json!({ "url": url, "webSocketUrl": socket, "name": "a" });
        Said { body: device.to_string(), ..Said::status(200) }
    };
    let (devices, evil) = ("https://wdm-a.wbx2.com/wdm/api/v1", "https://evil.example/wdm");
    let (url, socket) = ("https://wdm-a.wbx2.com/d/1", "wss://evil.example/v1");
    for (catalog, device) in [
        (catalog(evil), Said::status(500)),
        (catalog(devices), device(url, socket)),
        (catalog(devices), device(evil, "wss://mercury-connection-a.wbx2.com/v1")),
        (catalog(devices), device(url, "wss://wbx2.com.evil.example/v1")),
    ] {
        let cloud = Cloud::bare(move |asked| match asked {
            _ if asked.contains("/people/me") => Said::me(),
            _ if asked.contains("/catalog") => catalog.clone(),
            _ if asked.starts_with("GET") => {
                Said { body: r#"{"devices":[]}"#.to_owned(), ..Said::status(200) }
            }
            _ => device.clone(),
        })
        .await;
        let why = cloud.webex.open(FIRST).await.unwrap_err();
        assert_eq!(why.verdict, Verdict::Refused);
        assert!(why.words.contains("evil.example, which is none of Webex's"), "{}", why.words);
        cloud.no_foreigner();
    }
    cloud.no_foreigner();
}

#[tokio::test]
async fn lists_without_an_end_have_one() {
    let at = ago(5);
    let page = Mutex::new(0);
    // The first time the same page again and again, then ever other ones.
    let cloud = Cloud::start(move |asked| {
        if !asked.starts_with("GET webexapis.com/v1/rooms?") {
            return Said::items([]);
        }
        let mut page = page.lock().unwrap();
        let cursor = if *page < 2 { 0 } else { *page };
        *page += 1;
        let next = format!(
            "<https://webexapis.com/v1/rooms?sortBy=lastactivity&max=10&cursor={cursor}>; rel=next"
        );
        Said {
            headers: vec![("link", next)],
            ..Said::items([room(&format!("r{page}"), "direct", at)])
        }
    })
    .await;
    assert_eq!(ids(cloud.catch_up().await), [""; 0]);
    assert_eq!(cloud.asked().len(), 4, "two pages and their spaces");
    assert_eq!(ids(cloud.catch_up().await), [""; 0]);
    assert_eq!(cloud.asked().len(), 200, "a hundred pages and their spaces");

    let many: Vec<_> = (0..10_000).map(|n| room(&format!("r{n}"), "direct", at + 1)).collect();
    let many = Said::items(many);
    cloud.answer(
        move |asked| {
            if asked.starts_with(ROOMS) { many.clone() } else { Said::items([]) }
        },
    );
    assert_eq!(ids(cloud.look().await), [""; 0]);
    assert_eq!(cloud.asked().len(), 11);
}

#[tokio::test]
async fn times_that_cannot_be_bring_no_message_again_and_again() {
    let at = ago(5);
    let cloud = Cloud::start(move |asked| match asked {
        _ if asked.starts_with(ROOMS) => {
            let mut undated = room("b", "direct", at);
            undated["lastActivity"] = json!("soon");
            Said::items([room("a", "direct", clock::unix_ms() + 10 * 86_400_000), undated])
        }
        _ if asked.contains(&public_id("ROOM", "a")) => Said::items([
            message("future", "a", "paula", clock::unix_ms() + 10 * 86_400_000),
            json!({ "id": public_id("MESSAGE", "never"), "roomId": public_id("ROOM", "a") }),
            message("same", "a", "paula", at),
        ]),
        _ => Said::items([message("same", "b", "paula", at)]),
    })
    .await;
    assert_eq!(ids(cloud.catch_up().await), ["same", "same"], "the store knows the second");
}

#[tokio::test]
async fn it_is_asked_by_the_clock_of_the_service() {
    // An hour behind ours: what was written just now is older than what is asked for.
    let at = ago(3600);
    let cloud = Cloud::start(move |asked| {
        let said = match asked {
            _ if asked.starts_with(ROOMS) => Said::items([room("a", "direct", at)]),
            _ => Said::items([message("a1", "a", "paula", at)]),
        };
        Said { headers: vec![("date", http_date(at))], ..said }
    })
    .await;
    assert_eq!(ids(cloud.catch_up().await), ["a1"]);
    assert_eq!(ids(cloud.look().await), [""; 0], "known by now");
}

#[tokio::test]
async fn no_secret_is_in_what_the_service_says_of_a_request() {
    let cloud = Cloud::start(|_| Said {
        body: json!({ "message": "Bearer t0ken-of-ann\nERROR is invalid" }).to_string(),
        ..Said::status(400)
    })
    .await;
    let why = cloud.catch_up().await.unwrap_err();
    assert_eq!(why.words, "listing the spaces: answered 400: Bearer (token)ERROR is invalid");
}

/// What the service answers.
#[derive(Debug, Clone)]
struct Said {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Said {
    fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    fn items(items: impl Into<Vec<Value>>) -> Self {
        Self { body: json!({ "items": items.into() }).to_string(), ..Self::status(200) }
    }

    fn me() -> Self {
        let me = json!({ "id": public_id("PEOPLE", "me"), "emails": ["me@webex.bot"] });
        Self { body: me.to_string(), ..Self::status(200) }
    }
}

type Answers = Arc<Mutex<Box<dyn Fn(&str) -> Said + Send>>>;

/// All hosts there are, as a link sees them, and what it has asked of them.
struct Cloud {
    webex: Webex,
    facts: Store,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Answers,
    _directory: TempDir,
    _task: JoinSet<()>,
}

impl Cloud {
    /// One whose link knows who it is.
    async fn start(answer: impl Fn(&str) -> Said + Send + 'static) -> Self {
        let cloud = Self::bare(|asked| match asked {
            _ if asked.contains("/people/me") => Said::me(),
            _ if asked.contains("/catalog") => {
                let links = json!({ "wdm": "https://wdm-a.wbx2.com/wdm/api/v1" });
                Said { body: json!({ "serviceLinks": links }).to_string(), ..Said::status(200) }
            }
            _ => Said::items([]),
        })
        .await;
        assert_eq!(cloud.look().await, Ok(vec![]));
        cloud.asked();
        cloud.answer(answer);
        cloud
    }

    async fn bare(answer: impl Fn(&str) -> Said + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let facts = Store::open(directory.path().join("store"));
        let (config, root) = certificates();
        let answers: Answers = Arc::new(Mutex::new(Box::new(answer)));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(serve(
            listener,
            TlsAcceptor::from(config),
            Arc::clone(&asked),
            Arc::clone(&answers),
        ));
        let profile = Settings::Webex {
            catalog_url: "https://u2c.wbx2.com/u2c/api/v1".to_owned(),
            api_url: "https://webexapis.com/v1".to_owned(),
            probe_room: None,
        };
        let link = Link { token: Some(Secret::new("t0ken-of-ann")), ..link(profile) };
        let proxy = Some(Proxy::parse(&format!("http://127.0.0.1:{port}")).unwrap());
        let trust = Trust::SystemAnd(vec![root]);
        let options =
            LegOptions { proxy: proxy.clone(), trust: trust.clone(), ..LegOptions::default() };
        let leg = Arc::new(Leg::new(options));
        let webex = Webex::new(&link, leg, Way { trust, proxy }, facts.inbox()).unwrap();
        Self { webex, facts, asked, answers, _directory: directory, _task: task }
    }

    fn answer(&self, answer: impl Fn(&str) -> Said + Send + 'static) {
        *self.answers.lock().unwrap() = Box::new(answer);
    }

    /// What was asked since the last time: method, host and target.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn no_foreigner(&self) {
        for asked in self.asked() {
            assert!(!asked.contains("evil.example"), "{asked}");
        }
    }

    async fn look(&self) -> Result<Vec<Message>, CatchUpFailure> {
        timeout(DEADLINE, self.webex.look(clock::unix_ms() - BACK_MS)).await.unwrap()
    }

    /// From the same time on each time, as whoever was not answered asks again.
    async fn catch_up(&self) -> Result<Vec<Message>, CatchUpFailure> {
        timeout(DEADLINE, self.webex.catch_up(clock::unix_ms() - BACK_MS)).await.unwrap()
    }
}

/// An account whose answers are not taken, and a connection with as many as may wait.
async fn busy() -> (Cloud, Far) {
    let cloud = Cloud::start(|asked| match asked {
        _ if asked.contains("/catalog") => {
            let links = json!({ "wdm": "https://wdm-a.wbx2.com/wdm/api/v1" });
            Said { body: json!({ "serviceLinks": links }).to_string(), ..Said::status(200) }
        }
        _ if asked.contains("/people/me") => Said::me(),
        _ if asked.starts_with("POST") && asked.contains("devices") => Said {
            body: json!({ "url": "https://wdm-a.wbx2.com/wdm/api/v1/devices/1", "name": "x",
                "webSocketUrl": "wss://mercury-a.wbx2.com/socket" })
            .to_string(),
            ..Said::status(200)
        },
        _ if asked.contains("devices") => {
            Said { body: json!({ "devices": [] }).to_string(), ..Said::status(200) }
        }
        _ if asked.starts_with(POST) => {
            Said { headers: vec![("retry-after", "20".to_owned())], ..Said::status(429) }
        }
        _ => Said::items([]),
    })
    .await;
    let how = OpenHow { fresh_address: false, beside_another: false };
    let far = Far::open(&cloud.webex, how).await;
    cloud.asked();
    let to = |n: usize| json!({ "roomId": "r", "text": n.to_string() }).to_string();
    for n in 0..=256 {
        far.say(&to(n)).await;
    }
    (cloud, far)
}

/// A proxy that leads everywhere, and everything there is: each host is this one. Tunnels are noted as well.
async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Answers,
) {
    let mut tasks = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (tls, asked, answers) = (tls.clone(), Arc::clone(&asked), Arc::clone(&answers));
        tasks.spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if head.contains("evil.example") {
                asked.lock().unwrap().push(head);
            }
            stream.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").await.unwrap();
            let Ok(stream) = tls.accept(stream).await else { return };
            let upgrade = Arc::new(Mutex::new(None));
            let upgrading = Arc::clone(&upgrade);
            let service = service_fn(move |mut request: Request<Incoming>| {
                if let Some(key) = request.headers().get("sec-websocket-key") {
                    let accept = accept_key(key.to_str().unwrap());
                    *upgrading.lock().unwrap() = Some(hyper::upgrade::on(&mut request));
                    let response = Response::builder()
                        .status(101)
                        .header("upgrade", "websocket")
                        .header("connection", "Upgrade")
                        .header("sec-websocket-accept", accept)
                        .body(Full::new(Bytes::new()))
                        .unwrap();
                    return std::future::ready(Ok::<_, Infallible>(response));
                }
                let host = request.headers()["host"].to_str().unwrap();
                let line = format!("{} {host}{}", request.method(), request.uri());
                let Said { status, headers, body } = answers.lock().unwrap()(&line);
                asked.lock().unwrap().push(line);
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                let response = response.body(Full::new(Bytes::from(body))).unwrap();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            let upgrade = upgrade.lock().unwrap().take();
            if let Some(upgrade) = upgrade {
                let mut socket = TokioIo::new(upgrade.await.unwrap());
                let ready = br#"{"id":"b","data":{"eventType":"mercury.buffer_state"}}"#;
                socket.write_all(&server_frame(OpCode::Text, &[ready])).await.unwrap();
                while socket.read_u8().await.is_ok() {}
            }
        });
    }
}

fn certificates() -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let names = ["*.wbx2.com", "webexapis.com", "evil.example"].map(str::to_owned).to_vec();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (Arc::new(config), root.der().clone())
}

fn ids(found: Result<Vec<Message>, CatchUpFailure>) -> Vec<String> {
    found.unwrap().into_iter().map(|message| message.id).collect()
}

fn ago(seconds: u64) -> u64 {
    clock::unix_ms() - seconds * 1000
}

fn old(name: &str) -> Value {
    room(name, "direct", ago(3 * 86_400))
}

fn room(name: &str, kind: &str, at: u64) -> Value {
    json!({ "id": public_id("ROOM", name), "type": kind, "lastActivity": iso(at) })
}

fn message(name: &str, room: &str, person: &str, at: u64) -> Value {
    json!({
        "id": public_id("MESSAGE", name),
        "roomId": public_id("ROOM", room),
        "roomType": "direct",
        "personId": public_id("PEOPLE", person),
        "personEmail": format!("{person}@example.com"),
        "created": iso(at),
    })
}

/// A time as Webex writes it.
fn iso(at: u64) -> String {
    let (year, month, day, rest) = date(at);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    let millis = rest % 1000;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn http_date(at: u64) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (year, month, day, rest) = date(at);
    let month = &MONTHS[(month as usize - 1) * 3..][..3];
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("Day, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month, day, and the milliseconds of the day; by counting.
fn date(at: u64) -> (u64, u64, u64, u64) {
    // Until 2100.
    let is_leap = |year: u64| year.is_multiple_of(4);
    let (mut days, rest) = (at / 86_400_000, at % 86_400_000);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1, rest)
}

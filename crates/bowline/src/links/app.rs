//! Messages of a link to an app of `[backends]`.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_backend::PostFailure;
use bowline_link::{
    bot::{Deliver, Offer, Outcome, Presence},
    far::Boxed,
};
use tokio::time;

use super::message;
use crate::{backends::Backends, config::Profile};

/// The first pause before an app is asked again that did not take a message.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// The longest: short enough to notice soon that it is back.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The way to one app.
pub(super) struct App {
    name: String,
    profile: Profile,
    backends: Arc<Backends>,
    /// How often in a row it was not there.
    absences: AtomicU32,
    /// What was said of it last, while it is not there.
    absent: Mutex<Option<String>>,
}

impl App {
    pub(super) fn new(name: &str, profile: Profile, backends: Arc<Backends>) -> Self {
        let absent = Mutex::default();
        Self { name: name.to_owned(), profile, backends, absences: AtomicU32::new(0), absent }
    }

    async fn post(&self, offer: Offer) -> Outcome {
        let body = match message::for_app(&offer) {
            Ok(body) => body,
            Err(words) => return Outcome::Refused(words),
        };
        let Some(backend) = self.backends.get(&self.name) else {
            return self.gone("is not configured any more".to_owned());
        };
        match backend.post(&offer.link, &offer.message.id, body).await {
            Ok(answer) => {
                self.is_there();
                match message::outcome(self.profile, &offer.message.id, &answer) {
                    Outcome::Unconfirmed(words) => Outcome::Unconfirmed(self.say(&words)),
                    other => other,
                }
            }
            Err(PostFailure::Absent(words)) => self.gone(words),
            Err(PostFailure::Failed(words)) => {
                self.is_there();
                Outcome::Unconfirmed(self.say(&words))
            }
        }
    }

    fn say(&self, words: &str) -> String {
        format!("the app \"{}\" {words}", self.name)
    }

    fn gone(&self, words: String) -> Outcome {
        self.absences.fetch_add(1, Relaxed);
        *self.absent() = Some(words);
        Outcome::Absent
    }

    fn is_there(&self) {
        if self.absences.swap(0, Relaxed) > 0 {
            *self.absent() = None;
        }
    }

    fn absent(&self) -> MutexGuard<'_, Option<String>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliver for App {
    fn offer(&self, offer: Offer) -> Boxed<'_, Outcome> {
        Box::pin(self.post(offer))
    }

    /// Nobody says when an app is there again: it is looked for after each pause, so that no offer is made to nobody.
    fn ready(&self) -> Boxed<'_, ()> {
        let mut absences = self.absences.load(Relaxed);
        Box::pin(async move {
            while absences > 0 {
                time::sleep(pause(absences)).await;
                absences = absences.saturating_add(1);
                if let Some(backend) = self.backends.get(&self.name)
                    && backend.is_reachable().await
                {
                    // Whether it takes messages shows at the next offer, which is only made to who is there.
                    *self.absent() = None;
                    return;
                }
            }
        })
    }

    fn presence(&self) -> Presence {
        match &*self.absent() {
            None => Presence { connections: 1, words: format!("[backends.{}]", self.name) },
            Some(words) => Presence { connections: 0, words: self.say(words) },
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("name", &self.name).finish_non_exhaustive()
    }
}

fn pause(absences: u32) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << absences.saturating_sub(1).min(8));
    doubled.min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bowline_link::far::Message;
    use bytes::Bytes;
    use tokio::{net::TcpListener, runtime::Handle};

    use super::*;
    use crate::config;

    /// Messages are only offered to who is there (`run/shell/offering.rs`).
    #[tokio::test]
    async fn an_app_that_was_away_is_there_again() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = TcpListener::bind(any).await.unwrap().local_addr().unwrap();
        let text = format!("[backends.app]\nurl = \"http://{address}/\"\n");
        let config = config::of_text(Some(("bowline.toml".into(), text)), Default::default());
        let backends = Arc::new(Backends::new(Handle::current()));
        backends.prepare(&config.unwrap_or_else(|error| panic!("{error}"))).unwrap();
        let app = App::new("app", Profile::WebSocket, backends);

        assert_eq!(app.offer(offer()).await, Outcome::Absent);
        assert_eq!(app.presence().connections, 0);
        let _listener = TcpListener::bind(address).await.unwrap();
        app.ready().await;
        assert_eq!(app.presence().connections, 1);
    }

    fn offer() -> Offer {
        let message = Message {
            id: "1".to_owned(),
            own_id: true,
            room: String::new(),
            receipt: None,
            confirm: true,
            body: Bytes::from_static(b"{}"),
        };
        Offer { link: "bot".to_owned(), message, attempt: 1 }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<u128> = [1, 2, 3, 6, 100].map(|times| pause(times).as_millis()).into();
        assert_eq!(pauses, [250, 500, 1_000, 5_000, 5_000]);
    }
}

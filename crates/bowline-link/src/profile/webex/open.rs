//! Opens a connection: who the bot is, where its devices are, a device, its socket, the authorization.

use std::{sync::Arc, time::Duration};

use bowline_dial::socket::{self, Socket, SocketEvent, SocketOptions};
use bowline_proto::keeper::{OpenFailure, Verdict};
use tokio::time::timeout;

use super::{
    Account,
    cloud::Cloud,
    connection,
    device::{self, Catalog, Device},
    envelope::{self, Kind},
    rules::text_frame,
    uuid,
};
use crate::{
    clock,
    far::{Connection, OpenHow},
};

/// How long the answer to the authorization is waited for. A service that does not answer it may route for all that: the
/// keeper's probe will tell.
const ADMISSION: Duration = Duration::from_secs(2);

/// The most bytes of a frame.
const FRAME_MAX_BYTES: usize = 4 << 20;

/// Devices that are deleted at once when there are too many.
const DELETED_MAX: usize = 20;

/// Devices of an earlier process that are deleted beside the first connection, one after the other.
const LEFT_MAX: usize = 100;

/// A socket that was admitted, and what came on it before that was known.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) socket: Socket,
    pub(super) early: Vec<SocketEvent>,
}

/// A device to connect to.
struct Chosen {
    device: Device,
    /// It was registered just now.
    is_new: bool,
}

pub(super) async fn open(account: Arc<Account>, how: OpenHow) -> Result<Connection, OpenFailure> {
    let me = account.known().me.clone();
    let me = match me {
        Some(me) => me,
        None => account.cloud.me().await?,
    };
    account.known().me = Some(me);
    let catalog = account.catalog(how).await?;
    let stale = account.tidy(&catalog).await?;

    let mut chosen = account.choose(&catalog, how).await?;
    let admitted = match account.admitted(&chosen.device).await {
        // The service forgot the device, and listed it still.
        Err(why) if why.verdict == Verdict::Elsewhere && !chosen.is_new => {
            account.forget(&chosen.device);
            let device = account.register(&catalog).await?;
            chosen = Chosen { device, is_new: true };
            account.admitted(&chosen.device).await
        }
        admitted => admitted,
    };
    let Chosen { device, is_new } = chosen;
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(why) => {
            if is_new {
                // What cannot be connected to is left behind by nobody.
                account.discard(&device.url).await;
            }
            return Err(why);
        }
    };
    account.facts.set(&account.link, "device", Some(&device.url)).await;
    Ok(connection::start(account, admitted, device, stale))
}

impl Account {
    /// Where the services are: asked each time, because accounts are moved. If it cannot be asked, what was known is as
    /// good as anything, unless nothing of that may be kept.
    async fn catalog(&self, how: OpenHow) -> Result<Catalog, OpenFailure> {
        let asked = self.cloud.catalog().await;
        let mut known = self.known();
        match asked {
            Ok(catalog) => {
                known.catalog = Some(catalog.clone());
                Ok(catalog)
            }
            Err(why) => match &known.catalog {
                Some(catalog) if !how.fresh_address && why.verdict == Verdict::Again => {
                    Ok(catalog.clone())
                }
                _ => Err(why),
            },
        }
    }

    /// Looks once for devices that an earlier process left: one may be used again, the others are to be deleted.
    async fn tidy(&self, catalog: &Catalog) -> Result<Vec<String>, OpenFailure> {
        if self.known().is_tidied {
            return Ok(Vec::new());
        }
        let installation = match self.facts.get(&self.link, "installation").await {
            Some(installation) => installation,
            None => {
                let made: String = uuid().chars().take(8).collect();
                self.facts.set(&self.link, "installation", Some(&made)).await;
                made
            }
        };
        let name = device::name(&self.link, &installation);
        let used = self.facts.get(&self.link, "device").await;
        let mut found = self.cloud.devices(catalog).await?;
        found.retain(|device| device.name == name);
        let kept = found.iter().position(|device| Some(&device.url) == used.as_ref());
        let kept = kept.or(found.len().checked_sub(1)).map(|at| found.remove(at));

        let mut known = self.known();
        known.installation = Some(installation);
        known.is_tidied = true;
        known.devices.extend(kept);
        // The service has 100 at most.
        Ok(found.into_iter().take(LEFT_MAX).map(|device| device.url).collect())
    }

    async fn choose(&self, catalog: &Catalog, how: OpenHow) -> Result<Chosen, OpenFailure> {
        let kept = self.known().devices.last().cloned();
        let may_use = !how.beside_another;
        if may_use
            && !how.fresh_address
            && let Some(device) = self.refreshed(catalog, kept.clone()).await?
        {
            return Ok(Chosen { device, is_new: false });
        }
        match self.register(catalog).await {
            Ok(device) => {
                if let Some(old) = kept.filter(|_| may_use) {
                    // Nobody is connected to it.
                    self.discard(&old.url).await;
                }
                Ok(Chosen { device, is_new: true })
            }
            // Rather the one there is than none.
            Err(why) if may_use && how.fresh_address => {
                match self.refreshed(catalog, kept).await? {
                    Some(device) => Ok(Chosen { device, is_new: false }),
                    None => Err(why),
                }
            }
            Err(why) => Err(why),
        }
    }

    /// The device that was used last, if the service has it, and where the account is now.
    async fn refreshed(
        &self,
        catalog: &Catalog,
        kept: Option<Device>,
    ) -> Result<Option<Device>, OpenFailure> {
        let Some(kept) = kept else { return Ok(None) };
        if !kept.url.starts_with(&catalog.devices) {
            self.discard(&kept.url).await;
            return Ok(None);
        }
        let refreshed = self.cloud.refresh(&kept).await?;
        if refreshed.is_none() {
            self.forget(&kept);
        }
        Ok(refreshed)
    }

    fn forget(&self, device: &Device) {
        self.known().devices.retain(|kept| kept.url != device.url);
    }

    async fn register(&self, catalog: &Catalog) -> Result<Device, OpenFailure> {
        let (name, may) = {
            let mut known = self.known();
            let installation = known.installation.clone().unwrap_or_default();
            let now = self.clock.now();
            (device::name(&self.link, &installation), known.registrations.may(now))
        };
        if let Err(wait) = may {
            let words = format!(
                "{} devices were registered within an hour: something keeps this link from staying, \
                 and an account may have 100",
                device::REGISTRATIONS_MAX
            );
            return Err(OpenFailure { verdict: Verdict::Again, words, retry_after: Some(wait) });
        }
        let mut device = self.cloud.register(catalog, &name).await?;
        if device.is_none() {
            self.make_room(catalog).await?;
            device = self.cloud.register(catalog, &name).await?;
        }
        let device = device.ok_or_else(|| OpenFailure {
            verdict: Verdict::Refused,
            words:
                "registering a device: the account has too many, and none of them is this link's"
                    .to_owned(),
            retry_after: None,
        })?;
        let mut known = self.known();
        known.registrations.made(self.clock.now());
        known.devices.push(device.clone());
        Ok(device)
    }

    /// Deletes devices of this link that it does not use.
    async fn make_room(&self, catalog: &Catalog) -> Result<(), OpenFailure> {
        let mut found = self.cloud.devices(catalog).await?;
        let prefix = device::prefix(&self.link);
        {
            let known = self.known();
            let is_used = |url: &str| known.devices.iter().any(|device| device.url == url);
            found.retain(|device| device.name.starts_with(&prefix) && !is_used(&device.url));
        }
        tracing::warn!(link = %self.link, devices = found.len(), "the account has too many devices; those left behind are deleted");
        for device in found.iter().take(DELETED_MAX) {
            self.cloud.delete_device(&device.url).await;
        }
        Ok(())
    }

    /// Connects to a device, and waits until the service has admitted the socket.
    async fn admitted(&self, device: &Device) -> Result<Admitted, OpenFailure> {
        let Cloud { token, .. } = &self.cloud;
        let bearer = format!("Bearer {}", token.expose());
        let options = SocketOptions {
            headers: vec![("authorization".to_owned(), bearer)],
            proxy: self.way.proxy.clone(),
            trust: self.way.trust.clone(),
            connect_timeout: self.connect_timeout,
            max_message_bytes: FRAME_MAX_BYTES,
            ..SocketOptions::new(device.socket_url(clock::unix_ms()))
        };
        let mut socket = socket::open(options).await.map_err(|refusal| {
            let what = "opening the device's socket";
            match refusal.status {
                Some(status) => device::refusal(what, status, &refusal.headers, &refusal.body),
                None => OpenFailure {
                    verdict: Verdict::Again,
                    words: format!("{what}: {}", refusal.words),
                    retry_after: None,
                },
            }
        })?;
        let mut early = Vec::new();
        let authorization = envelope::authorization(&uuid(), token.expose());
        // If it cannot be sent, the next event tells why.
        let _ = socket.sender.send(text_frame(authorization)).await;
        let admission = async {
            while let Some(event) = socket.next().await {
                let is_answer = is_answer(&event);
                early.push(event);
                if is_answer {
                    break;
                }
            }
        };
        // Whether it is answered in time or not, what came counts.
        let _ = timeout(ADMISSION, admission).await;
        let ended = early.iter().find_map(|event| match event {
            SocketEvent::Closed { code, reason, clean } => {
                Some(connection::ended(*code, reason, *clean, true))
            }
            _ => None,
        });
        match ended {
            Some((verdict, words)) => {
                let words = format!("the service did not admit the socket: {words}");
                Err(OpenFailure { verdict, words, retry_after: None })
            }
            None => Ok(Admitted { socket, early }),
        }
    }
}

/// Whether the service speaks to this socket as to one it has admitted.
fn is_answer(event: &SocketEvent) -> bool {
    match event {
        SocketEvent::Message(message) => {
            let envelope = envelope::decode(connection::bytes_of(message));
            envelope
                .is_ok_and(|envelope| matches!(envelope.kind, Kind::Admitted | Kind::Activity(_)))
        }
        SocketEvent::Closed { .. } => true,
        SocketEvent::Pong(_) | SocketEvent::Heard | SocketEvent::Written(_) => false,
    }
}

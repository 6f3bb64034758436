//! A link's connections to the service: how they are opened, what comes on them, how they end.

use std::time::Duration;

use bowline_proto::{
    Time,
    keeper::{ConnectionId, Input, Level, Merged, OpenFailure, ProbeId, Verdict},
};

use super::{
    link::{Arrived, How, Line},
    network::{Answer, Fate, FlowId, Host, Path, Way, up_to},
    script::Probe,
    service::Down,
    web::What,
    world::{Event, Up, World},
};

/// What a message weighs.
const MESSAGE_BYTES: usize = 700;

impl World<'_> {
    pub(super) fn begin_open(
        &mut self,
        link: usize,
        connection: ConnectionId,
        fresh: bool,
        within: Duration,
    ) {
        self.links[link].lines.insert(connection, Line { fresh, ..Line::default() });
        self.at(self.now + within, Event::OpenLate { link, connection });
        let delay = self.network.delay(self.now, Host::Socket, &mut self.rng) * 2;
        self.at(self.now + delay, Event::Opening { link, connection, step: 0 });
    }

    pub(super) fn on_open_late(&mut self, link: usize, connection: ConnectionId) {
        let line = self.links[link].lines.get(&connection);
        if line.is_some_and(|line| !line.open) {
            self.not_opened(link, connection, Verdict::Again, "it took too long");
        }
    }

    pub(super) fn on_opening(&mut self, link: usize, connection: ConnectionId, step: u8) {
        let Some(line) = self.links[link].lines.get(&connection) else { return };
        let (fresh, flow) = (line.fresh, line.flow);
        match (step, flow) {
            (0, _) => {
                let address = self.network.look_up(self.now, Host::Socket);
                match self.network.knock(self.now, Host::Socket, address) {
                    Answer::Yes => {
                        let flow = self.network.open(self.now, Host::Socket);
                        if let Some(line) = self.links[link].lines.get_mut(&connection) {
                            line.flow = Some(flow);
                        }
                        self.further(link, connection, flow, 1);
                    }
                    Answer::No => self.not_opened(link, connection, Verdict::Again, "refused"),
                    Answer::Expired => {
                        self.not_opened(link, connection, Verdict::Again, "certificate expired");
                    }
                    Answer::Silence => {}
                }
            }
            (1, Some(flow)) => self.authorise(link, connection, flow, fresh),
            (_, Some(flow)) => self.welcome(link, connection, flow),
            (_, None) => {}
        }
    }

    /// One way there and one back, and then the next step.
    fn further(&mut self, link: usize, connection: ConnectionId, flow: FlowId, step: u8) {
        if let Fate::Arrive(at) = self.network.send(self.now, flow, Way::Up, &mut self.rng) {
            let back = self.network.delay(at, Host::Socket, &mut self.rng);
            self.at(at + back, Event::Opening { link, connection, step });
        }
    }

    /// The token is looked at, and the device.
    fn authorise(&mut self, link: usize, connection: ConnectionId, flow: FlowId, fresh: bool) {
        if self.network.path(flow) != Path::Good {
            return;
        }
        let beside = self.links[link].lines.keys().any(|other| *other != connection);
        let account = &mut self.accounts[link];
        if self.now < account.barred_until {
            self.not_opened(link, connection, Verdict::Unauthorized, "401");
            return;
        }
        if self.now < account.busy_until {
            let retry_after = Some(account.busy_until.since(self.now));
            self.refused(link, connection, Verdict::Again, "429", retry_after);
            return;
        }
        let spare = self.links[link].spare.take_if(|_| fresh || !beside).map(|(_, device)| device);
        let (spare, old) = if fresh { (None, spare) } else { (spare, None) };
        if let Some(device) = old {
            account.devices.remove(&device);
        }
        let device = spare.unwrap_or_else(|| account.register());
        if !account.devices.contains_key(&device) {
            self.not_opened(link, connection, Verdict::Elsewhere, "404");
            return;
        }
        if let Some(line) = self.links[link].lines.get_mut(&connection) {
            line.device = Some(device);
        }
        self.further(link, connection, flow, 2);
    }

    fn welcome(&mut self, link: usize, connection: ConnectionId, flow: FlowId) {
        if self.network.path(flow) != Path::Good {
            return;
        }
        let device = self.links[link].lines.get(&connection).and_then(|line| line.device);
        let routed_from = self.now + up_to(&mut self.rng, self.script.setup.routed_within);
        let account = &mut self.accounts[link];
        let joined = device.and_then(|device| account.connect(self.now, device, flow, routed_from));
        let Some((replaced, again)) = joined else {
            self.not_opened(link, connection, Verdict::Elsewhere, "404");
            return;
        };
        if let Some(other) = replaced {
            self.send_down(link, other, Down::Close(4000));
        }
        self.send_down(link, flow, Down::Welcome);
        for number in again {
            self.send_down(link, flow, Down::Message { number, again: true });
        }
    }

    fn not_opened(&mut self, link: usize, connection: ConnectionId, verdict: Verdict, words: &str) {
        self.refused(link, connection, verdict, words, None);
    }

    fn refused(
        &mut self,
        link: usize,
        connection: ConnectionId,
        verdict: Verdict,
        words: &str,
        retry_after: Option<Duration>,
    ) {
        if let Some(line) = self.links[link].lines.remove(&connection) {
            if let Some(flow) = line.flow {
                self.accounts[link].gone(flow);
                self.network.leave(flow);
            }
            if verdict == Verdict::Again {
                self.spare(link, connection, line.device);
            }
        }
        let why = OpenFailure { verdict, words: words.to_owned(), retry_after };
        self.input(link, Input::OpenFailed { connection, why });
    }

    /// A device that nobody uses any more serves the next connection.
    fn spare(&mut self, link: usize, connection: ConnectionId, device: Option<u64>) {
        if let Some(device) = device
            && let Some((_, before)) = self.links[link].spare.replace((connection, device))
        {
            self.at(self.now, Event::Discard { link, device: before });
        }
    }

    pub(super) fn on_up(&mut self, link: usize, flow: FlowId, up: Up) {
        let account = &mut self.accounts[link];
        if !account.heard(self.now, flow) {
            self.send_down(link, flow, Down::Close(1006));
            return;
        }
        match up {
            Up::Ping => self.send_down(link, flow, Down::Pong),
            Up::Ack => self.send_down(link, flow, Down::Ack),
            Up::Receipt(message) => account.acknowledge(flow, message),
            Up::Echo(word) => {
                if account.is_routed(self.now, flow) {
                    self.send_down(link, flow, Down::Probe(word));
                }
            }
            Up::Bye => {
                account.gone(flow);
                self.network.leave(flow);
            }
        }
    }

    pub(super) fn on_down(&mut self, link: usize, flow: FlowId, down: Down) {
        let known = self.links[link].connection_of(flow);
        let Some(connection) = known.or_else(|| self.links[link].ghosts.get(&flow).copied()) else {
            return;
        };
        let heard = |level| Input::Heard { connection, level };
        match down {
            Down::Welcome => {
                if let Some(line) = self.links[link].lines.get_mut(&connection) {
                    line.open = true;
                    self.links[link].merge.open(self.now, connection);
                    self.input(link, Input::Opened { connection });
                    if !self.accounts[link].will_route(flow) {
                        self.links[link].model.on_unrouted(self.now, connection);
                    }
                }
            }
            Down::Message { number, again } => {
                if known.is_none() {
                    return;
                }
                self.input(link, heard(Level::Tcp));
                self.input(link, Input::Arrived { connection });
                let how = if again { How::Again } else { How::Live };
                let arrived = Arrived { number, how };
                let id = (format!("m{number}"), true);
                let kept = &mut self.links[link];
                kept.merge.arrived(self.now, connection, (&id.0, id.1), MESSAGE_BYTES, arrived);
                self.take_merged(link);
            }
            Down::Probe(word) => {
                self.input(link, Input::Probed { probe: ProbeId(word), connection });
            }
            Down::Pong => self.input(link, heard(Level::Pong)),
            Down::Ack => self.input(link, heard(Level::Ack)),
            Down::Draining => self.input(link, Input::Draining { connection }),
            Down::Close(code) => self.ended(link, flow, verdict(code), format!("closed: {code}")),
        }
    }

    pub(super) fn on_reset(&mut self, link: usize, flow: FlowId) {
        self.ended(link, flow, Verdict::Again, "connection reset".to_owned());
    }

    /// A connection has ended, and not because it was closed here.
    fn ended(&mut self, link: usize, flow: FlowId, verdict: Verdict, words: String) {
        let known = self.links[link].connection_of(flow);
        let Some(connection) = known.or_else(|| self.links[link].ghosts.get(&flow).copied()) else {
            return;
        };
        self.network.leave(flow);
        self.links[link].ghosts.remove(&flow);
        let line = self.links[link].lines.remove(&connection);
        let open = line.as_ref().is_none_or(|line| line.open);
        if let Some(line) = line {
            self.links[link].merge.end(self.now, connection);
            self.take_merged(link);
            // Who was replaced, or not let in, has no claim to the device.
            let device = line.device.filter(|_| verdict == Verdict::Again);
            self.spare(link, connection, device);
        }
        if open {
            self.input(link, Input::Closed { connection, verdict, words });
        } else {
            let why = OpenFailure { verdict, words, retry_after: None };
            self.input(link, Input::OpenFailed { connection, why });
        }
    }

    /// Closes a connection: a goodbye, and that is all.
    pub(super) fn close(&mut self, link: usize, connection: ConnectionId, discard: bool) {
        self.send_up(link, connection, Up::Bye);
        let Some(line) = self.links[link].lines.remove(&connection) else {
            // It has ended by itself; what belongs to it may be left.
            let its = self.links[link].spare.take_if(|(its, _)| discard && *its == connection);
            if let Some((_, device)) = its {
                self.at(self.now, Event::Discard { link, device });
            }
            return;
        };
        if let Some(flow) = line.flow {
            self.links[link].ghosts.insert(flow, connection);
        }
        self.links[link].merge.end(self.now, connection);
        self.take_merged(link);
        match line.device {
            Some(device) if discard => {
                let delay = self.network.delay(self.now, Host::Api, &mut self.rng);
                self.at(self.now + delay, Event::Discard { link, device });
            }
            device => self.spare(link, connection, device),
        }
    }

    /// What is made one stream is stored.
    fn take_merged(&mut self, link: usize) {
        while let Some(merged) = self.links[link].merge.poll() {
            match merged {
                Merged::New { connection, message } => self.store(link, Some(connection), message),
                Merged::Copy { connection, message } => {
                    self.counts.copies += 1;
                    self.store(link, Some(connection), message);
                }
            }
        }
    }

    pub(super) fn acknowledge(&mut self, link: usize, connection: ConnectionId, message: usize) {
        self.send_up(link, connection, Up::Receipt(message));
    }

    pub(super) fn begin_probe(&mut self, link: usize, connection: ConnectionId, probe: ProbeId) {
        match self.script.setup.probe {
            Probe::Posted => self.request(link, What::Probe(probe)),
            Probe::Echoed => self.send_up(link, connection, Up::Echo(probe.0)),
            Probe::None => {}
        }
    }

    /// Somebody writes to the bot.
    pub(super) fn write(&mut self, link: usize, room: u8) {
        self.counts.messages += 1;
        let (number, flows) = self.accounts[link].write(self.now, room);
        for flow in flows {
            self.send_down(link, flow, Down::Message { number, again: false });
        }
    }
}

/// What the end of a connection means.
fn verdict(code: u16) -> Verdict {
    match code {
        4000 => Verdict::Replaced,
        4401 => Verdict::Unauthorized,
        _ => Verdict::Again,
    }
}

/// When a message was published, as the service's clock says.
pub(super) fn published(at: Time, behind: Duration) -> Time {
    Time::from_micros(at.as_micros().saturating_sub(u64::try_from(behind.as_micros()).unwrap_or(0)))
}

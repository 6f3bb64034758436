//! How processes of services come to be the crew's: it makes them, or takes them over.

use std::{io, os::fd::AsFd as _, sync::Arc, time::Duration};

use super::{
    held::{Held, Leads, Life, Made, patterns},
    start::{self, Prepared},
    turn::{Event, Running},
    unix_ms,
};
use crate::{
    os::{
        environment::Environment,
        listen::{self, Bound},
        members::{self, Members, Table},
        notify::NotifySocket,
        place::{Place, Record},
        process::{self, Process, boot_id},
        spawn::{Launch, NotSpawned, spawn},
        sweep,
    },
    plan::{End, Input, Instance, Orphan, Variant},
    probe::Surroundings,
    spec::Service,
};

impl Running {
    /// Begins a start.
    pub(super) fn prepare(&mut self, instance: Instance, service: Arc<Service>, variant: Variant) {
        let requests_before = self.requests.get(&service.name).map_or(0, |it| it.sum);
        let held = Held {
            service: Arc::clone(&service),
            variant,
            surroundings: Arc::default(),
            life: Life::Preparing,
            requests_before,
        };
        self.instances.insert(instance, held);
        let (inherited, tell) = (Arc::clone(&self.inherited), self.tell.clone());
        self.tasks.spawn(async move {
            let identity = identity(instance.0);
            let preparing = {
                let identity = identity.clone();
                tokio::task::spawn_blocking(move || {
                    start::prepare(&service, &identity, variant, &inherited)
                })
            };
            let prepared = preparing.await.unwrap_or_else(|error| {
                Err(NotSpawned::passing(format!("what it needs could not be found out: {error}")))
            });
            let event = Event::Prepared(instance, identity, Box::new(prepared));
            // The loop lives as long as its tasks.
            let _ = tell.send(event).await;
        });
    }

    /// Goes on with a start.
    pub(super) fn prepared(
        &mut self,
        instance: Instance,
        identity: String,
        prepared: Result<Prepared, NotSpawned>,
    ) {
        let made = prepared.and_then(|prepared| self.make(instance, identity, prepared));
        let input = match made {
            Ok((pid, interpreter)) => Input::Started { instance, pid, interpreter },
            Err(NotSpawned { words, lasting }) => {
                self.instances.remove(&instance);
                Input::NotStarted { instance, words, lasting }
            }
        };
        self.input(input);
        self.look_soon();
    }

    /// Makes the process.
    fn make(
        &mut self,
        instance: Instance,
        identity: String,
        prepared: Prepared,
    ) -> Result<(u32, Option<String>), NotSpawned> {
        let Some(held) = self.instances.get(&instance) else {
            return Err(NotSpawned::passing("it is not wanted any more"));
        };
        let (service, variant) = (Arc::clone(&held.service), held.variant);
        for warning in &prepared.warnings {
            tracing::warn!(service = service.name, "{warning}");
            self.given.logs.say(&service.name, warning);
        }
        self.bind(&service, None).map_err(NotSpawned::passing)?;
        let place = Place::make(&self.given.options.state_dir, &service.name, &identity)
            .map_err(|error| NotSpawned::passing(format!("it cannot be written down: {error}")))?;
        let record = Record {
            service: service.name.clone(),
            identity: identity.clone(),
            candidate: variant == Variant::Candidate,
            leader: None,
            boot_id: boot_id(),
            started_unix_ms: unix_ms(self.given.clock.wall()),
            ready_unix_ms: None,
            stop_signal: sweep::signal(service.stop.signal).as_raw(),
            grace_ms: u64::try_from(service.stop.grace.as_millis()).unwrap_or(u64::MAX),
            fingerprint: service.fingerprint(),
        };
        let begun = self.begin(instance, &service, &identity, &prepared, &place, &record);
        let (process, notify) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.given.logs.detach(instance);
                place.remove();
                return Err(error);
            }
        };
        let key = process.key();
        let mut made = Made {
            place,
            record: Record { leader: Some(key), ..record },
            leader: None,
            leads: Leads::Still,
            members: Members::new(identity, Some(key)),
            living: vec![key],
            kill_until: None,
            ears: Vec::new(),
        };
        made.write();
        self.listen_to(instance, &mut made, Some(process), notify);
        if let Some(held) = self.instances.get_mut(&instance) {
            held.surroundings = Arc::new(prepared.surroundings);
            held.life = Life::Made(Box::new(made));
        }
        Ok((key.pid, prepared.interpreter))
    }

    /// The part of it that leaves pipes and sockets behind if it fails.
    fn begin(
        &self,
        instance: Instance,
        service: &Service,
        identity: &str,
        prepared: &Prepared,
        place: &Place,
        record: &Record,
    ) -> Result<(Process, NotifySocket), NotSpawned> {
        let system = |error: io::Error| NotSpawned::passing(format!("no process: {error}"));
        let [out, err] = place.make_pipes(prepared.account.as_ref()).map_err(system)?;
        let pipes = place.open_pipes().map_err(system)?;
        self.given.logs.attach(instance, &service.name, pipes, patterns(service));
        let notify = NotifySocket::bind(identity).map_err(system)?;
        // Found by its identity, should this process die just now.
        place.write(record).map_err(system)?;
        let bound = self.bound.get(&service.name).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = bound.iter().map(|it| listen::fd_name(it.asked())).collect();
        let listeners: Vec<_> =
            names.iter().map(String::as_str).zip(bound.iter().map(|it| it.as_fd())).collect();
        let process = spawn(&Launch {
            program: &prepared.program,
            arguments: &prepared.arguments,
            directory: &prepared.directory,
            environment: &prepared.environment,
            account: prepared.account.as_ref(),
            limits: &prepared.limits,
            mark: members::mark(identity),
            listeners: &listeners,
            stdout: out.as_fd(),
            stderr: err.as_fd(),
        })?;
        Ok((process, notify))
    }

    /// Binds what a service listens on, in its order, and lets go of what it does not any more. What
    /// is held by a process that goes on is taken from that.
    fn bind(&mut self, service: &Service, from: Option<&Process>) -> Result<(), String> {
        let mut before = self.bound.remove(&service.name).unwrap_or_default();
        let mut bound: Vec<Bound> = Vec::new();
        let mut failed = Ok(());
        for address in &service.listen {
            if let Some(at) = before.iter().position(|it| it.asked() == address) {
                bound.push(before.swap_remove(at));
                continue;
            }
            let taken = from.and_then(|process| Bound::take_from(process, address));
            match taken.map_or_else(|| Bound::bind(address), Ok) {
                Ok(socket) => bound.push(socket),
                Err(error) => {
                    failed = Err(format!("{address} cannot be listened on: {error}"));
                    break;
                }
            }
        }
        if failed.is_ok() {
            before.drain(..).for_each(Bound::remove);
        }
        bound.append(&mut before);
        self.bound.insert(service.name.clone(), bound);
        failed
    }

    /// Hears the end of a process and its words.
    fn listen_to(
        &mut self,
        instance: Instance,
        made: &mut Made,
        process: Option<Process>,
        notify: NotifySocket,
    ) {
        if let Some(process) = process {
            let process = Arc::new(process);
            made.leader = Some(Arc::clone(&process));
            let tell = self.tell.clone();
            made.ears.push(self.tasks.spawn(async move {
                if let Err(error) = process::ended(process).await {
                    tracing::error!(%error, "the end of a process cannot be awaited");
                    return;
                }
                let _ = tell.send(Event::Ended(instance)).await;
            }));
        }
        let tell = self.tell.clone();
        made.ears.push(self.tasks.spawn(async move {
            loop {
                match notify.receive().await {
                    Ok(message) => {
                        if tell.send(Event::Said(instance, message)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what a service says cannot be heard");
                        return;
                    }
                }
            }
        }));
    }

    /// Goes on with what a dead master has started.
    pub(super) fn adopt(
        &mut self,
        instance: Instance,
        service: Arc<Service>,
        orphan: Orphan,
    ) -> Option<Input> {
        let requests_before = self.requests.get(&service.name).map_or(0, |it| it.sum);
        let gone = |instance| Some(Input::Gone { instance });
        let Some((place, record)) = self.orphans.remove(&orphan.identity) else {
            return gone(instance);
        };
        let process = record.leader.and_then(|leader| Process::find(leader).ok().flatten());
        let mut made = Made {
            members: Members::new(record.identity.clone(), record.leader),
            place,
            record,
            leader: None,
            leads: if process.is_none() { Leads::Told } else { Leads::Still },
            living: Vec::new(),
            kill_until: None,
            ears: Vec::new(),
        };
        match made.place.open_pipes() {
            Ok(pipes) => self.given.logs.attach(instance, &service.name, pipes, patterns(&service)),
            Err(error) => {
                let service = &*service.name;
                tracing::warn!(service, %error, "what an adopted process prints is lost");
            }
        }
        // What it held goes on; an address that is not held is bound at the next start.
        if let Err(error) = self.bind(&service, process.as_ref()) {
            tracing::warn!(service = service.name, error, "an address is not the server's now");
        }
        let lost = process.is_none();
        match NotifySocket::bind(&made.record.identity) {
            Ok(notify) => self.listen_to(instance, &mut made, process, notify),
            Err(error) => {
                tracing::warn!(service = service.name, %error, "an adopted process is not heard");
                made.leader = process.map(Arc::new);
            }
        }
        let surroundings = match start::surroundings(&service, &self.inherited) {
            Ok((surroundings, _)) => surroundings,
            // Never as somebody else than the service.
            Err(_) => Surroundings {
                environment: Environment::new(),
                directory: service.directory.clone(),
                user: service.user.clone(),
            },
        };
        let held = Held {
            service,
            variant: made.record.variant(),
            surroundings: Arc::new(surroundings),
            life: Life::Made(Box::new(made)),
            requests_before,
        };
        self.instances.insert(instance, held);
        self.look_soon();
        lost.then_some(Input::Exited { instance, end: End::Unknown, lines: Vec::new() })
    }

    /// What a dead master has left and still runs.
    ///
    /// # Errors
    /// Those of the system; then nothing is known.
    pub(super) fn find_orphans(&mut self) -> io::Result<Vec<Orphan>> {
        let table = Table::read()?;
        let places = Place::all(&self.given.options.state_dir)?;
        let wall = unix_ms(self.given.clock.wall());
        let mut orphans = Vec::new();
        for (place, record) in places {
            let mut members = Members::new(record.identity.clone(), record.leader);
            let living = members.look(&table, &mut self.carriers);
            let Some(first) = living.first().filter(|_| record.of_this_boot()) else {
                place.remove();
                continue;
            };
            orphans.push(Orphan {
                service: record.service.clone(),
                variant: record.variant(),
                pid: record.leader.unwrap_or(*first).pid,
                identity: record.identity.clone(),
                fingerprint: record.fingerprint,
                age: Duration::from_millis(wall.saturating_sub(record.started_unix_ms)),
                ready: record.ready_unix_ms.is_some(),
            });
            self.orphans.insert(record.identity.clone(), (place, record));
        }
        Ok(orphans)
    }
}

/// A new name that nobody else has.
fn identity(serial: u64) -> String {
    let (one, other) = (getrandom::u64(), getrandom::u64());
    match (one, other) {
        (Ok(one), Ok(other)) => format!("{one:016x}{other:016x}"),
        // A system without chance: this is of one start of one process.
        _ => {
            let pid = std::process::id();
            let ticks = Process::number_key(pid).map_or(0, |it| it.ticks);
            format!("{pid:08x}{ticks:016x}{serial:08x}")
        }
    }
}

//! From `[services]` to what the crew is told.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use bowline_fleet::spec::{self, Checks, Interpreter, Probe, Probes, Run, User};

use crate::config::{Config, Service};

/// The services of a configuration, whose file is here.
pub(crate) fn specs(config: &Config, file: Option<&Path>) -> Vec<spec::Service> {
    let home = file.and_then(Path::parent);
    config.services.0.iter().map(|(name, service)| spec_of(name, service, home)).collect()
}

fn spec_of(name: &str, service: &Service, home: Option<&Path>) -> spec::Service {
    let checks = |probes: &[Probe]| Checks { match_: service.matching, probes: probes.to_vec() };
    let (user, group) = match service.user.as_deref().map(|user| user.split_once(':')) {
        None => (None, None),
        Some(None) => (service.user.clone(), None),
        Some(Some((user, group))) => (Some(user.to_owned()), Some(group.to_owned())),
    };
    let variables = service.environment.0.iter();
    spec::Service {
        // What has no language has been refused.
        interpreter: service.language().unwrap_or(Interpreter::None),
        directory: service.directory.clone().or_else(|| home.map(PathBuf::from)),
        environment: variables.map(|(name, value)| (name.into(), value.into())).collect(),
        environment_files: service.environment_files.clone(),
        user: user.map(|user| User { user, group }),
        needs: service.needs.clone(),
        listen: service.listen.clone(),
        probes: Probes {
            startup: checks(&service.startup),
            ready: checks(&service.ready),
            live: checks(&service.live),
        },
        restart: service.restart,
        backoff: service.backoff,
        crash_loop: service.crash_loop,
        overdue: service.start_deadline,
        startup_timeout: service.startup_timeout,
        stop: service.stop,
        limits: service.limits,
        recycle: service.recycle,
        overlap: service.overlap,
        logs: service.logs,
        on_orphan: service.on_orphan,
        ..spec::Service::new(name, run(service))
    }
}

fn run(service: &Service) -> Run {
    let args = || service.args.iter().map(OsString::from);
    if let Some(path) = &service.script {
        return Run::Script { path: path.clone(), args: args().collect() };
    }
    if let Some(name) = &service.module {
        return Run::Module { name: name.clone(), args: args().collect() };
    }
    let command = service.command.iter().flatten().map(OsString::from);
    Run::Command(command.chain(args()).collect())
}

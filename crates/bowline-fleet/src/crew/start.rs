//! Makes ready what a process of a service needs. It may take its time (a user database on the
//! network, an interpreter that is proved), so it is done on a thread of its own.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use rustix::process::Resource;

use crate::{
    interpreter,
    os::{
        environment::{self, Environment},
        notify::NotifySocket,
        program,
        spawn::NotSpawned,
        user::Account,
    },
    plan::Variant,
    probe::Surroundings,
    spec::{Check, Limits, Phase, Run, Service},
};

/// All that is to be known before the process is made.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) directory: PathBuf,
    pub(super) environment: Environment,
    pub(super) account: Option<Account>,
    pub(super) limits: Vec<(Resource, u64)>,
    /// What was chosen to run it and why.
    pub(super) interpreter: Option<String>,
    pub(super) warnings: Vec<String>,
    /// What its checks are made with.
    pub(super) surroundings: Surroundings,
}

/// What is the service's own around it: its environment, its directory, its user.
///
/// # Errors
/// In words: a file that cannot be read, a user that there is not.
pub(super) fn surroundings(
    service: &Service,
    inherited: &Environment,
) -> Result<(Surroundings, Option<Account>), String> {
    let account = service.user.as_ref().map(Account::of).transpose()?;
    let mut environment = inherited.clone();
    if let Some(account) = &account {
        for (name, value) in [
            ("USER", account.name.clone()),
            ("LOGNAME", account.name.clone()),
            ("HOME", account.home.clone().into()),
            ("SHELL", account.shell.clone().into()),
        ] {
            environment.insert(name.into(), value);
        }
    }
    for file in &service.environment_files {
        environment.extend(environment::read(file)?);
    }
    environment.extend(service.environment.clone());
    let (directory, user) = (service.directory.clone(), service.user.clone());
    Ok((Surroundings { environment, directory, user }, account))
}

/// Finds out what is to be executed, as whom and with what.
///
/// # Errors
/// When the service cannot be started as it is.
pub(super) fn prepare(
    service: &Service,
    identity: &str,
    variant: Variant,
    inherited: &Environment,
) -> Result<Prepared, NotSpawned> {
    let (surroundings, account) = surroundings(service, inherited).map_err(NotSpawned::lasting)?;
    let directory = directory(service).map_err(NotSpawned::lasting)?;
    let choice = interpreter::resolve(service, &surroundings)
        .map_err(|wrong| NotSpawned::lasting(wrong.to_string()))?;
    let mut environment = surroundings.environment.clone();
    let (arguments, interpreter, warnings) = match choice {
        Some(choice) => {
            let interpreter = choice.to_string();
            environment.extend(choice.environment);
            (choice.command, Some(interpreter), choice.warnings)
        }
        None => (plain(&service.run)?, None, Vec::new()),
    };
    let Some(first) = arguments.first() else {
        return Err(NotSpawned::lasting("the command is empty"));
    };
    let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let program = program::find(first, &directory, path).map_err(NotSpawned::lasting)?;
    for (name, value) in [
        ("BOWLINE_SERVICE", service.name.as_str()),
        ("BOWLINE_SERVICE_ID", identity),
        ("BOWLINE_SERVICE_VARIANT", variant.name()),
        ("NOTIFY_SOCKET", &NotifySocket::address(identity)),
    ] {
        environment.insert(name.into(), value.into());
    }
    if let Some(micros) = watchdog_micros(service) {
        environment.insert("WATCHDOG_USEC".into(), micros.to_string().into());
    }
    Ok(Prepared {
        program,
        arguments,
        directory,
        environment,
        account,
        limits: limits(&service.limits),
        interpreter,
        warnings,
        surroundings,
    })
}

fn directory(service: &Service) -> Result<PathBuf, String> {
    let here = std::env::current_dir()
        .map_err(|error| format!("the server's own directory is gone: {error}"))?;
    let directory = match &service.directory {
        Some(directory) => here.join(directory),
        None => here,
    };
    match directory.metadata() {
        Ok(found) if !found.is_dir() => Err(format!("{} is no directory", directory.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("the directory {} does not exist", directory.display()))
        }
        // Whether its user may go there is found out by going there.
        Ok(_) | Err(_) => Ok(directory),
    }
}

/// What is executed without an interpreter.
fn plain(run: &Run) -> Result<Vec<OsString>, NotSpawned> {
    match run {
        Run::Command(command) => Ok(command.clone()),
        Run::Script { path, args } => {
            // A name without a slash would be looked for in PATH.
            let path = Path::new(".").join(path);
            Ok([path.into_os_string()].into_iter().chain(args.iter().cloned()).collect())
        }
        Run::Module { name, .. } => {
            Err(NotSpawned::lasting(format!("no interpreter is named for the module {name}")))
        }
    }
}

fn limits(limits: &Limits) -> Vec<(Resource, u64)> {
    [
        (Resource::Nofile, limits.open_files),
        (Resource::As, limits.memory),
        (Resource::Nproc, limits.processes),
        (Resource::Core, limits.core),
    ]
    .into_iter()
    .filter_map(|(resource, value)| Some((resource, value?)))
    .collect()
}

/// How often the service is to say that it lives, if that is checked.
fn watchdog_micros(service: &Service) -> Option<u128> {
    let live = &service.probes.of(Phase::Live).probes;
    live.iter().find(|it| it.check == Check::Notify).map(|it| it.every.as_micros())
}

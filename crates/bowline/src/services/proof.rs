//! `config check --services`: whether the interpreters that services would be run with can run them.
//!
//! Only when it is asked for: it runs those interpreters, for some 50 ms each, in the directories of the
//! services and with their environment, and a check of a file should run nothing.

use std::env;

use bowline_fleet::{
    interpreter::{self, Choice},
    os::environment,
    probe::Surroundings,
    spec::Service,
};

/// Chooses the interpreter of a service as its start would, and proves it; `None` for one that needs none.
///
/// # Errors
/// In words, with what to do.
pub(crate) fn prove(service: &Service) -> Result<Option<Choice>, String> {
    let mut variables = environment::inherited(env::vars_os());
    for file in &service.environment_files {
        variables.extend(environment::read(file)?);
    }
    variables.extend(service.environment.clone());
    let surroundings = Surroundings {
        environment: variables,
        directory: service.directory.clone(),
        user: service.user.clone(),
    };
    interpreter::resolve(service, &surroundings).map_err(|wrong| wrong.to_string())
}

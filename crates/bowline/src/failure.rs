//! How the process says that it failed: what happened, who can mend it, how.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use bowline_names::{EnvVar, ErrorCode, Exit};

/// The end of a command that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    /// What happened, in this case.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Says it on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        let text = if colours() { self.painted() } else { self.plain() };
        // There is nobody left to tell if stderr is closed.
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.exit().code())
    }

    fn exit(&self) -> Exit {
        match self.code {
            ErrorCode::ConfigUnreadable
            | ErrorCode::ConfigInvalid
            | ErrorCode::CertificateUnusable
            | ErrorCode::AlertRulesUnreadable
            | ErrorCode::AlertRulesInvalid
            | ErrorCode::TokenKeysUnusable
            | ErrorCode::BackendUnusable
            | ErrorCode::ProviderUnusable
            | ErrorCode::LinkUnusable
            | ErrorCode::LinkNoVariables
            | ErrorCode::ServicesUnusable
            | ErrorCode::TelemetryUnusable
            | ErrorCode::KeyUnusable
            | ErrorCode::ConfigKeyUnknown => Exit::Usage,
            ErrorCode::AddressInUse
            | ErrorCode::AddressUnavailable
            | ErrorCode::AddressDenied
            | ErrorCode::ListenFailed => Exit::Unavailable,
            ErrorCode::InstanceDenied => Exit::Denied,
            ErrorCode::DiskFull | ErrorCode::InstanceFailed => Exit::DiskFull,
            ErrorCode::NotRunning => Exit::NotRunning,
            ErrorCode::StartLate | ErrorCode::StopLate | ErrorCode::ServiceLate => Exit::Late,
            ErrorCode::GatewayRestarting
            | ErrorCode::StartFailed
            | ErrorCode::ServeFailed
            | ErrorCode::InstanceHeld
            | ErrorCode::InstanceUnclear
            | ErrorCode::ControlSilent
            | ErrorCode::ControlRefused
            | ErrorCode::ServerUnreachable
            | ErrorCode::DiedStopping
            | ErrorCode::ManagedElsewhere
            | ErrorCode::LogMissing
            | ErrorCode::ServiceUnknown
            | ErrorCode::LinkUnknown
            | ErrorCode::LinkNotProved
            | ErrorCode::LinkUnprobed
            | ErrorCode::LinkMessageUnknown
            | ErrorCode::LinkKept
            | ErrorCode::ServiceNotReady
            | ErrorCode::BenchFailed => Exit::Failed,
            ErrorCode::AdminTokenUnreadable | ErrorCode::BenchInvalid => Exit::Usage,
            // Clients alone are told these, and the admin API alone says the rest.
            ErrorCode::BackendUnavailable
            | ErrorCode::BackendTimeout
            | ErrorCode::LinkNotSent
            | ErrorCode::LinkUnanswered
            | ErrorCode::LinkSecretWrong
            | ErrorCode::LinkRequestRefused
            | ErrorCode::LinkUnreachable
            | ErrorCode::LinkBusy
            | ErrorCode::LinkUnserved
            | ErrorCode::BackendBusy
            | ErrorCode::BackendInvalid
            | ErrorCode::AdminTokenMissing
            | ErrorCode::AdminTokenWrong
            | ErrorCode::TooManyFailures
            | ErrorCode::HostRefused
            | ErrorCode::OriginRefused
            | ErrorCode::NotJson
            | ErrorCode::RequestInvalid
            | ErrorCode::NotFound
            | ErrorCode::MethodRefused
            | ErrorCode::SocketUnknown
            | ErrorCode::AiRequestUnknown
            | ErrorCode::EmitIdReused
            | ErrorCode::TokenMissing
            | ErrorCode::TokenInvalid
            | ErrorCode::TokenUnverifiable
            | ErrorCode::SubjectFull
            | ErrorCode::ControlSocketOnly
            | ErrorCode::Busy
            | ErrorCode::TokenExpired => Exit::Failed,
        }
    }

    fn plain(&self) -> String {
        let Self { code, message } = self;
        let retry = if code.retry() { "may help later" } else { "will not help" };
        format!(
            "error[{}]: {message}\n  blame:  {}\n  retry:  {retry}\n  remedy: {}\n",
            code.name(),
            code.blame().name(),
            code.remedy(),
        )
    }

    fn painted(&self) -> String {
        let head = format!("error[{}]:", self.code.name());
        let mut text = self.plain().replacen(&head, &format!("\x1b[1;31m{head}\x1b[0m"), 1);
        for label in ["blame: ", "retry: ", "remedy:"] {
            text = text.replacen(&format!("\n  {label}"), &format!("\n  \x1b[2m{label}\x1b[0m"), 1);
        }
        text
    }
}

/// Whether stderr shows colours.
pub(crate) fn colours() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os(EnvVar::NoColor.name()).is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_guilty_the_retry_and_the_remedy() {
        let failure = Failure::new(ErrorCode::AddressInUse, "127.0.0.1:8000 is held by node");
        assert_eq!(
            failure.plain(),
            "error[address-in-use]: 127.0.0.1:8000 is held by node\n  \
             blame:  operator\n  retry:  may help later\n  \
             remedy: Stop that process or listen elsewhere. Port 0 takes any free port.\n"
        );
    }
}

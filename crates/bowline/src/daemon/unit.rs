//! `bowline service unit`: the text by which systemd or launchd looks after a server.

use std::{
    env,
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use bowline_names::Exit;

use super::{configuration, print};
use crate::{
    config::{Overrides, Service},
    failure::Failure,
};

/// The version of systemd from which on it knows `Type=notify-reload`. An older one takes the line
/// for a mistake and goes on as if nothing were said about notifications.
const NOTIFY_RELOAD_SINCE: u32 = 253;

/// How much longer than the drain a stop may take: the gateway is killed 10 s after it.
const STOP_SECONDS_BESIDE_DRAIN: u64 = 20;

/// What killing a service and all that it has started may take beyond its grace.
const KILL_SECONDS: u64 = 10;

/// Who shall look after the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supervisor {
    Systemd,
    Launchd,
}

/// What a unit says about this server.
struct Server<'a> {
    binary: &'a str,
    /// The flags, as `--name=value`.
    arguments: &'a [String],
    drain_seconds: u64,
    /// Whether an address has a port that only root may take.
    low_port: bool,
    services: Services,
}

/// What its services ask of a unit, which holds for them too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Services {
    any: bool,
    /// What they may take to end, one after the other.
    stop_seconds: u64,
    /// Whether one of them runs as somebody else.
    users: bool,
}

impl Services {
    fn of(services: &[(String, Service)]) -> Self {
        let stop = |service: &Service| service.stop.grace.as_secs() + KILL_SECONDS;
        Self {
            any: !services.is_empty(),
            stop_seconds: services.iter().map(|(_, service)| stop(service)).sum(),
            users: services.iter().any(|(_, service)| service.user.is_some()),
        }
    }
}

/// Prints the unit for a server with these flags.
///
/// # Errors
/// When the configuration has mistakes: the unit depends on it.
pub(crate) fn unit(
    supervisor: Supervisor,
    overrides: &Overrides,
    arguments: &[String],
) -> Result<Exit, Failure> {
    let (config, _) = configuration(overrides)?;
    let binary = env::current_exe().unwrap_or_else(|_| Path::new("/usr/local/bin/bowline").into());
    let listeners = config.server.listen.iter().chain([&config.admin.listen]);
    let server = Server {
        binary: &binary.display().to_string(),
        arguments,
        drain_seconds: config.server.drain.as_secs(),
        low_port: listeners.into_iter().any(|address| (1..1024).contains(&address.port())),
        services: Services::of(&config.services.0),
    };
    Ok(print(&match supervisor {
        Supervisor::Systemd => systemd(&server, installed_systemd()),
        Supervisor::Launchd => launchd(&server),
    }))
}

/// The version of the systemd of this machine, if it has one.
fn installed_systemd() -> Option<u32> {
    let output = Command::new("systemctl")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    version_of(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `systemd 252 (252.39-1~deb12u2)`.
fn version_of(text: &str) -> Option<u32> {
    let word = text.lines().next()?.strip_prefix("systemd ")?.split(' ').next()?;
    word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn systemd(server: &Server<'_>, version: Option<u32>) -> String {
    let words = |first: &str| {
        let words = [server.binary, first].into_iter();
        let words = words.chain(server.arguments.iter().map(String::as_str));
        words.map(escaped).collect::<Vec<_>>().join(" ")
    };
    // `reload` needs to know where the server is, not how it listens.
    let place = |argument: &&String| {
        argument.starts_with("--config=") || argument.starts_with("--state-dir=")
    };
    let reload = [server.binary, "reload"].into_iter();
    let reload = reload.chain(server.arguments.iter().filter(place).map(String::as_str));
    let reload = reload.map(escaped).collect::<Vec<_>>().join(" ");
    let reloading = if version.is_some_and(|version| version >= NOTIFY_RELOAD_SINCE) {
        "Type=notify-reload\n".to_owned()
    } else {
        format!("Type=notify\nExecReload={reload}\n")
    };
    let start = words("serve");
    let services = server.services;
    let stop = server.drain_seconds + STOP_SECONDS_BESIDE_DRAIN + services.stop_seconds;
    let capabilities = match (services.users, server.low_port) {
        (true, _) => {
            "# Services run as other users.\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_KILL \
             CAP_DAC_READ_SEARCH CAP_SYS_PTRACE\n"
        }
        (false, true) => {
            "# A port below 1024.\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
             AmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        }
        (false, false) => "CapabilityBoundingSet=\n",
    };
    let user = if services.users {
        "# Only root may start services as other users.\nUser=root\n"
    } else {
        "# A user made for as long as the service runs. For files that it must read, such as keys, name one\n\
         # that exists instead: User=bowline.\nDynamicUser=yes\n"
    };
    let home = if services.any {
        "# Services of [services] are restricted like the server. They may read home directories; what they\n\
         # write to beside /var/lib/bowline is named like this: ReadWritePaths=/srv/app\n\
         ProtectHome=read-only\n"
    } else {
        "ProtectHome=yes\n"
    };
    // Node and other engines write the code that they run.
    let memory = if services.any { "" } else { "MemoryDenyWriteExecute=yes\n" };
    format!(
        "\
# Written by `bowline service unit --systemd` {version}. Put it at
# /etc/systemd/system/bowline.service, then: systemctl daemon-reload, systemctl enable --now bowline

[Unit]
Description=Bowline realtime gateway
Wants=network-online.target
After=network-online.target
# Trying again goes on for ever, with the pause below.
StartLimitIntervalSec=0

[Service]
{reloading}ExecStart={start}
# Ready is said when a client has been answered and what is required has loaded; while it loads,
# the server asks for more time than this by itself.
TimeoutStartSec=90s
# The drain, and what it takes to kill what would not drain.
TimeoutStopSec={stop}s
# The main loop of the master says three times in this time that it turns.
WatchdogSec=30s
# The master passes the signal on; systemd kills what is left after it.
KillMode=mixed
Restart=on-failure
RestartSec=1s
# Wrong usage or configuration: starting again does not help.
RestartPreventExitStatus=2
LimitNOFILE=1048576

{user}RuntimeDirectory=bowline
StateDirectory=bowline
LogsDirectory=bowline
UMask=0077

{capabilities}NoNewPrivileges=yes
ProtectSystem=strict
{home}PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
{memory}SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A word of a command line as systemd reads it back.
fn escaped(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"");
    // `%` begins a specifier, `$` a variable.
    let word = word.replace('%', "%%").replace('$', "$$");
    if word.contains([' ', '\t', '\'', '"', ';']) { format!("\"{word}\"") } else { word }
}

/// launchd starts the program itself and keeps it running: the server stays in the foreground.
fn launchd(server: &Server<'_>) -> String {
    let mut words = String::new();
    let first = [server.binary, "serve"].into_iter();
    for word in first.chain(server.arguments.iter().map(String::as_str)) {
        // Writing to a string cannot fail.
        let _ = writeln!(words, "    <string>{}</string>", xml(word));
    }
    let stop = server.drain_seconds + STOP_SECONDS_BESIDE_DRAIN + server.services.stop_seconds;
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- Written by `bowline service unit` {version}. Put it at
     ~/Library/LaunchAgents/bowline.plist, then: launchctl bootstrap gui/$UID that file -->
<plist version=\"1.0\">
<dict>
  <key>Label</key>
  <string>bowline</string>
  <key>ProgramArguments</key>
  <array>
{words}  </array>
  <key>RunAtLoad</key>
  <true/>
  <!-- Started again when it fails, not when it was told to stop. -->
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <!-- The drain, and what it takes to kill what would not drain. -->
  <key>ExitTimeOut</key>
  <integer>{stop}</integer>
  <key>SoftResourceLimits</key>
  <dict>
    <key>NumberOfFiles</key>
    <integer>65536</integer>
  </dict>
  <key>StandardErrorPath</key>
  <string>/tmp/bowline.log</string>
</dict>
</plist>
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn xml(word: &str) -> String {
    word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: Option<u32>, low_port: bool) -> String {
        let arguments = ["--config=/etc/my file.toml".to_owned(), "--shards=2".to_owned()];
        let server = Server {
            binary: "/usr/bin/bowline",
            arguments: &arguments,
            drain_seconds: 30,
            low_port,
            services: Services::default(),
        };
        systemd(&server, version)
    }

    #[test]
    fn the_kind_of_service_depends_on_the_version_of_systemd() {
        for (version, known) in [(None, false), (Some(252), false), (Some(253), true)] {
            let text = text(version, false);
            assert_eq!(text.contains("\nType=notify-reload\n"), known, "{version:?}");
            let reload = "\nExecReload=/usr/bin/bowline reload \"--config=/etc/my file.toml\"\n";
            assert_eq!(text.contains("\nType=notify\n"), !known, "{version:?}");
            assert_eq!(text.contains(reload), !known, "{version:?}");
        }
    }

    #[test]
    fn the_unit_runs_what_was_asked_for_and_waits_for_the_drain() {
        let text = text(None, false);
        let start = "ExecStart=/usr/bin/bowline serve \"--config=/etc/my file.toml\" --shards=2\n";
        assert!(text.contains(start), "{text}");
        assert!(text.contains("\nTimeoutStopSec=50s\n"), "{text}");
        assert!(text.contains("\nCapabilityBoundingSet=\n"), "{text}");
    }

    #[test]
    fn the_unit_in_deploy_is_the_one_that_is_written() {
        let arguments = ["--config=/etc/bowline/bowline.toml".to_owned()];
        let server = Server {
            binary: "/usr/local/bin/bowline",
            arguments: &arguments,
            drain_seconds: 30,
            low_port: false,
            services: Services::default(),
        };
        assert_eq!(include_str!("../../../../deploy/bowline.service"), systemd(&server, None));
    }

    #[test]
    fn services_loosen_what_would_keep_them_from_running() {
        let service = Service { user: Some("www-data".to_owned()), ..Service::default() };
        let services =
            Services::of(&[("a".to_owned(), service), ("b".to_owned(), Service::default())]);
        assert_eq!(services, Services { any: true, stop_seconds: 40, users: true });
        let server = Server {
            binary: "bowline",
            arguments: &[],
            drain_seconds: 30,
            low_port: false,
            services,
        };
        let text = systemd(&server, None);
        assert!(text.contains("\nTimeoutStopSec=90s\n"), "{text}");
        assert!(text.contains("\nUser=root\n") && !text.contains("DynamicUser"), "{text}");
        assert!(text.contains("CAP_SETUID") && !text.contains("MemoryDenyWriteExecute"), "{text}");
    }

    #[test]
    fn a_low_port_brings_the_capability_for_it() {
        assert!(text(None, true).contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
    }

    #[test]
    fn the_version_of_systemd_is_read_from_what_it_prints() {
        assert_eq!(version_of("systemd 252 (252.39-1~deb12u2)\n+PAM"), Some(252));
        assert_eq!(version_of("systemd 257~rc1 (x)"), Some(257));
        assert_eq!(version_of("no such thing"), None);
    }

    #[test]
    fn words_survive_systemd() {
        assert_eq!(escaped("a b"), "\"a b\"");
        assert_eq!(escaped("50%$x"), "50%%$$x");
    }
}

//! `cargo xtask names`: writes `docs/names.md` from the tables in `bowline-names`.

use std::{fs, path::PathBuf, process::ExitCode};

use bowline_names::{
    DisconnectReason, EnvVar, ErrorCode, Exit, Header, Kind, LimitKey, Metric, RecoveryOutcome,
};

use crate::root;

pub(crate) fn run() -> ExitCode {
    match fs::write(path(), page()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}: {error}", path().display());
            ExitCode::FAILURE
        }
    }
}

/// Says so if the page is not what the tables say.
pub(crate) fn stale() -> Option<String> {
    let found = fs::read_to_string(path()).unwrap_or_default();
    (found != page()).then(|| "docs/names.md is stale: run `cargo xtask names`".to_owned())
}

fn path() -> PathBuf {
    root().join("docs/names.md")
}

fn page() -> String {
    let mut page = String::from(
        "# Names\n\nEvery name that an operator can search for. Written by `cargo xtask names` \
         from the tables in `bowline-names`;\n`cargo xtask tidy` fails when it is stale.\n",
    );
    table(&mut page, "Errors", "code | what happened | blame | retry | what to do", |rows| {
        for row in ErrorCode::ALL {
            let retry = if row.retry() { "may help" } else { "no" };
            rows.push(format!(
                "`{}` | {} | {} | {retry} | {}",
                row.name(),
                row.help(),
                row.blame().name(),
                row.remedy()
            ));
        }
    });
    table(&mut page, "Limits", "key | what is limited | whoever hits it", |rows| {
        for row in LimitKey::ALL {
            rows.push(format!("`{}` | {} | {}", row.path(), row.help(), row.on_hit().words()));
        }
    });
    table(&mut page, "Reasons of a disconnect", "reason | when", |rows| {
        for row in DisconnectReason::ALL {
            rows.push(format!("`{}` | {}", row.name(), row.help()));
        }
    });
    table(&mut page, "Outcomes of a recovery", "outcome | when", |rows| {
        for row in RecoveryOutcome::ALL {
            rows.push(format!("`{}` | {}", row.name(), row.help()));
        }
    });
    page.push_str(
        "\n## Metrics\n\nAt `/metrics` of the admin listener for Prometheus, and at `/api/v1/metrics` \
         as JSON ([api.md](api.md)).\n",
    );
    rows_of(&mut page, "name | what | kind | labels", |rows| {
        for row in Metric::ALL {
            let kind = match row.kind() {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> =
                row.labels().iter().map(|label| format!("`{label}`")).collect();
            let labels = labels.join(", ");
            rows.push(format!("`{}` | {} | {kind} | {labels}", row.name(), row.help()));
        }
    });
    table(&mut page, "Exit codes", "code | when", |rows| {
        for row in Exit::ALL {
            rows.push(format!("{} | {}", row.code(), row.help()));
        }
    });
    table(&mut page, "Environment", "variable | what it sets | flag", |rows| {
        for row in EnvVar::ALL {
            let flag = row.flag().map(|flag| format!("`{flag}`")).unwrap_or_default();
            rows.push(format!("`{}` | {} | {flag}", row.name(), row.help()));
        }
    });
    table(&mut page, "Headers", "header | what it means", |rows| {
        for row in Header::ALL {
            rows.push(format!("`{}` | {}", row.name(), row.help()));
        }
    });
    page
}

fn table(page: &mut String, title: &str, head: &str, fill: impl FnOnce(&mut Vec<String>)) {
    page.push_str(&format!("\n## {title}\n"));
    rows_of(page, head, fill);
}

fn rows_of(page: &mut String, head: &str, fill: impl FnOnce(&mut Vec<String>)) {
    let mut rows = Vec::new();
    fill(&mut rows);
    let rule = "---|".repeat(head.split('|').count());
    page.push_str(&format!("\n| {head} |\n|{rule}\n"));
    for row in rows {
        page.push_str(&format!("| {row} |\n"));
    }
}

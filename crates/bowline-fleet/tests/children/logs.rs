//! What a service prints, on its way through the crew.

use std::{path::Path, time::Duration};

use bowline_fleet::{
    crew::{Crew, Options},
    spec::{Restart, Run, Service},
};
use tokio::sync::broadcast::error::RecvError;

/// Run by the test below in a process of its own.
pub(crate) async fn follow(dir: &Path) {
    let script = "echo first; read line < $0/go; i=0; \
        while [ $i -lt 300 ]; do echo same; i=$((i+1)); done; echo last >&2; sleep 1000";
    let words = ["/bin/sh", "-c", script, dir.to_str().unwrap()];
    let mut service = Service::new("web", Run::Command(words.map(Into::into).into()));
    service.restart = Restart::Never;
    service.stop.grace = Duration::from_millis(100);
    let log_dir = dir.join("logs");
    let options = Options { state_dir: dir.to_owned(), log_dir, environment: Vec::new() };
    let handle = Crew::start(options, vec![service]).unwrap();
    assert!(handle.follow("none", 1).await.is_none());
    let before = loop {
        let before = handle.follow("web", 10).await.unwrap().before.read().unwrap();
        if before.iter().any(|line| line.ends_with(" out first")) {
            break before;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // A line that comes between the two is in one of them and not in both.
    let mut follow = handle.follow("web", 1).await.unwrap();
    assert_eq!(follow.before.read().unwrap(), before[before.len() - 1..]);
    std::fs::write(dir.join("go"), "go\n").unwrap();
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.ends_with(" err last")) {
        match follow.lines.recv().await {
            Ok(line) => lines.push(line.to_string()),
            Err(RecvError::Lagged(missed)) => panic!("{missed} lines are missing"),
            Err(RecvError::Closed) => panic!("the log has ended"),
        }
    }
    assert!(lines.iter().any(|line| line.ends_with(" out same")), "{lines:?}");
    let folded: u32 = lines
        .iter()
        .filter_map(|line| line.split_once("last line repeated ")?.1.split(' ').next())
        .map(|times| times.parse::<u32>().unwrap())
        .sum();
    assert_eq!(folded, 299, "{lines:?}");
    assert!(handle.stop().await.is_empty());
    println!("@@\"followed\"");
}

#[test]
fn a_log_is_followed_without_a_gap_and_repeated_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("go"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "supervisor::is_a_process_of_its_own"])
        .env("SCENARIO", "follow")
        .env("SCENARIO_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("@@\"followed\""), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

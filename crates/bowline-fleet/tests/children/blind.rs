//! A crew that cannot look for what an earlier server has left.

use std::{fs, path::Path, time::Duration};

use bowline_fleet::{
    crew::{Crew, Options},
    plan::{Command, Outcome},
    spec::{Run, Service},
};

/// Run by the test below in a process of its own.
pub(crate) async fn see(dir: &Path) {
    let state_dir = dir.join("state");
    fs::create_dir(&state_dir).unwrap();
    let places = state_dir.join("services");
    fs::write(&places, "in the way").unwrap();
    let words = ["/bin/sh", "-c", "echo x >> $0/starts; exec sleep 1000", dir.to_str().unwrap()];
    let mut service = Service::new("web", Run::Command(words.map(Into::into).into()));
    service.stop.grace = Duration::from_millis(100);
    let options = Options { state_dir, log_dir: dir.join("logs"), environment: Vec::new() };
    let handle = Crew::start(options, vec![service.clone()]).unwrap();
    let refused = handle.command("web", Command::Start).await;
    assert!(matches!(refused, Outcome::Failed(_)), "{refused:?}");
    handle.configure(vec![service]).await;
    assert!(!dir.join("starts").exists(), "it was started by a reload");
    fs::remove_file(&places).unwrap();
    while !dir.join("starts").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(handle.stop().await.is_empty());
    println!("@@\"seen\"");
}

#[test]
fn a_crew_that_cannot_look_for_orphans_starts_nothing_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "supervisor::is_a_process_of_its_own"])
        .env("SCENARIO", "blind")
        .env("SCENARIO_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("@@\"seen\""), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

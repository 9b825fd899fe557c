use std::time::Duration;

use confab_stack::{Error, Launch, Process, Service, free_port};

use crate::support::{TEST_TIMEOUT, comes_true, lives, shell, state, text};

#[tokio::test]
async fn process_id_is_own_and_kill_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(shell(folder.path(), "echo $$; exec sleep 600")).unwrap();
    let pid = process.id();
    assert!(comes_true(|| text(process.log()).trim() == pid.to_string()).await);
    process.kill().unwrap();
    assert!(!lives(pid));
    assert_eq!(
        process
            .ended()
            .unwrap()
            .and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status)),
        Some(9)
    );
    process.kill().unwrap();
}

#[tokio::test]
async fn stopping_is_orderly_and_forced_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1 & wait; done";
    let mut process = Process::spawn(shell(folder.path(), script)).unwrap();
    assert!(comes_true(|| text(process.log()).contains("up")).await);
    assert_eq!(process.stop(TEST_TIMEOUT).await.unwrap().code(), Some(3));
    assert!(text(process.log()).contains("bye"));

    let mut stubborn = Process::spawn(shell(
        folder.path(),
        "trap '' TERM; echo deaf; exec sleep 600",
    ))
    .unwrap();
    assert!(comes_true(|| text(stubborn.log()).contains("deaf")).await);
    let outcome = stubborn.stop(Duration::from_millis(50)).await;
    assert!(
        matches!(outcome, Err(Error::StillRuns { .. })),
        "{outcome:?}"
    );
    assert!(!lives(stubborn.id()));
}

#[tokio::test]
async fn paused_process_stands_still_until_resumed_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(shell(folder.path(), "exec sleep 600")).unwrap();
    let pid = process.id();
    process.pause().unwrap();
    assert!(comes_true(|| state(pid) == Some('T')).await);
    process.resume().unwrap();
    assert!(comes_true(|| state(pid) == Some('S')).await);
    process.pause().unwrap();
    drop(process);
    assert!(!lives(pid));
}

#[tokio::test]
async fn variables_are_set_and_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let env = vec![
        ("GREETING".to_owned(), Some("good day".to_owned())),
        ("PATH".to_owned(), None),
    ];
    let launch = Launch {
        env,
        ..shell(
            folder.path(),
            "echo \"$GREETING, ${HOME:+home}\"; /usr/bin/env | /bin/grep ^HOME=",
        )
    };
    let mut process = Process::spawn(launch).unwrap();
    process.wait(TEST_TIMEOUT).await.unwrap();
    assert!(
        text(process.log()).starts_with("good day, home\nHOME="),
        "{}",
        text(process.log())
    );
}

#[tokio::test]
async fn service_ending_before_ready_is_error_with_log() {
    let folder = tempfile::tempdir().unwrap();
    let launch = shell(folder.path(), "echo the database is missing; exit 7");
    let error = Service::start(launch, free_port().unwrap(), TEST_TIMEOUT)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(
        error.to_string().contains("the database is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn service_never_ready_is_error_at_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let launch = shell(folder.path(), "exec sleep 600");
    let error = Service::start(launch, free_port().unwrap(), Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
}

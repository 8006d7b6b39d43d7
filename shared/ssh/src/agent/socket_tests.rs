use chrono::Utc;

use super::super::running::RunningAgent;
use super::super::test_support::Cluster;
use super::*;

#[tokio::test]
async fn the_socket_lists_the_certificate_and_its_files_go_with_it() {
    let cluster = Cluster::new();
    let key = cluster.user_at(Utc::now(), &["root"]);
    let socket = AgentSocket::in_new_folder().unwrap();
    let path = socket.path().to_owned();
    let mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let stop = CancellationToken::new();
    let agent = SocketAgent::new(Arc::clone(&key), cluster.trusted(), false);
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { socket.run(agent, stop).await }
    });
    let mut client = RunningAgent::connect(&path).await.unwrap();
    let listed = client.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, key.blob());

    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(!path.exists() && !path.parent().unwrap().exists());
}

#[tokio::test]
async fn a_folder_others_can_enter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = AgentSocket::at(&dir.path().join("s")).unwrap_err();
    assert!(matches!(error, SocketError::Open { .. }), "{error}");
}

use opes_conform::{ConformError, Options, State, check};

use crate::server::{Does, PATIENCE, judge, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_the_sdk_pass() {
    for does in [
        Does::Nothing,
        Does::Edit,
        Does::Rewrite,
        Does::Prefix,
        Does::Copies,
    ] {
        let report = judge(&start(does, "127.0.0.1:0").await, PATIENCE).await;
        assert!(report.passed(), "{does:?}\n{}", report.table(true));
        assert_eq!(report.product, format!("{does:?}"));
        for row in &report.rows {
            let judged =
                !matches!(&row.state, State::NotTestable(why) if why.contains("another finding"));
            assert!(judged, "{}", row.id);
        }
    }
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let path = std::env::temp_dir().join(format!("opes-conform-{}", std::process::id()));
    let address = format!("unix:{}", path.display());
    let report = judge(&start(Does::Nothing, &address).await, PATIENCE).await;
    std::fs::remove_file(path).unwrap();
    assert!(report.passed(), "{}", report.table(true));
}

#[tokio::test]
async fn no_server_no_verdict() {
    // Bound and never listened on: nobody else gets the port meanwhile.
    let free = tokio::net::TcpSocket::new_v4().unwrap();
    free.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = free.local_addr().unwrap().to_string();
    let options = Options {
        patience: PATIENCE,
        ..Options::default()
    };
    let error = check(&address, &options).await.unwrap_err();
    assert!(matches!(error, ConformError::Unreachable { target, .. } if target == address));
}

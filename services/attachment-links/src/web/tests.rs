use super::*;
use crate::config::StoreConfig;

const BASE: &str = "https://files.example.com/a/b";
const NOW: u64 = 1_800_000_000;

struct Site {
    web: Web,
    key: Key,
    keys: Keys,
    folder: tempfile::TempDir,
}

async fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::Folder(folder.path().to_owned())).unwrap();
    let keys = Keys::own(&folder.path().join("link.key")).unwrap();
    let key = Key::random(NOW + 10).unwrap();
    let mut upload = store.begin(key).await.unwrap();
    upload.write(b"0123456789".to_vec()).await.unwrap();
    let about = About {
        name: "<b>\"\r\n.pdf".to_owned(),
        kind: "application/pdf\r\nx: y".to_owned(),
        size: 10,
        sha256: "abc".to_owned(),
    };
    upload.finish(key, &about).await.unwrap();
    let clock = Clock::Other(Arc::new(|| {
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW)
    }));
    let web = Web::new(store, keys.clone(), BASE, clock, Metrics::default());
    Site {
        web,
        key,
        keys,
        folder,
    }
}

impl Site {
    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        self.ask(Method::GET, path, fields).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (u16, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let response = self.web.respond(&method, path, &headers).await;
        let (parts, body) = response.into_parts();
        let octets = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(octets.to_vec()).unwrap();
        (parts.status.as_u16(), parts.headers, text)
    }

    fn path(&self, key: Key) -> String {
        format!("/a/b/{}", self.keys.sign(key))
    }
}

#[tokio::test]
async fn a_page_says_what_there_is_and_lets_nothing_through() {
    let site = site().await;
    let (status, headers, page) = site.get(&site.path(site.key), &[]).await;
    assert_eq!(status, 200);
    for said in [
        "&#60;b&#62;",
        "10 octets",
        "application/pdfx:y",
        "UTC",
        "abc",
    ] {
        let said = said.replace("&#60;b&#62;", "_b__.pdf");
        assert!(page.contains(&said), "{said}: {page}");
    }
    assert!(!page.contains("<b>") && !page.contains("<script"), "{page}");
    for (name, value) in [
        ("cache-control", "private, no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-robots-tag", "noindex, nofollow"),
    ] {
        assert_eq!(headers[name], value);
    }
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("sandbox"),
        "{policy}"
    );
}

#[tokio::test]
async fn a_file_is_for_saving_whole_or_in_part() {
    let site = site().await;
    let path = site.path(site.key) + "/file";
    let (status, headers, text) = site.get(&path, &[]).await;
    assert_eq!((status, text.as_str()), (200, "0123456789"));
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"_b__.pdf\""
    );
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-length"], "10");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    for (range, condition, status, text, content_range) in [
        ("bytes=2-3", etag.as_str(), 206, "23", Some("bytes 2-3/10")),
        ("bytes=-1", &etag, 206, "9", Some("bytes 9-9/10")),
        ("bytes=10-", &etag, 416, "", Some("bytes */10")),
        ("bytes=2-3", "\"other\"", 200, "0123456789", None),
    ] {
        let fields = [("range", range), ("if-range", condition)];
        let (found, headers, body) = site.get(&path, &fields).await;
        assert_eq!((found, body.as_str()), (status, text), "{range}");
        let found = headers
            .get("content-range")
            .map(|value| value.to_str().unwrap());
        assert_eq!(found, content_range, "{range}");
    }
    let (status, headers, text) = site.ask(Method::HEAD, &path, &[]).await;
    assert_eq!((status, text.as_str()), (200, ""));
    assert_eq!(headers["content-length"], "10");
    let (status, headers, _) = site.ask(Method::POST, &path, &[]).await;
    assert_eq!(
        (status, headers["allow"].to_str().unwrap()),
        (405, "GET, HEAD")
    );
}

#[tokio::test]
async fn what_is_not_signed_is_unknown_and_what_is_over_is_gone() {
    let site = site().await;
    let good = site.path(site.key);
    let over = Key {
        expires: NOW,
        ..site.key
    };
    let absent = Key::random(NOW + 10).unwrap();
    for (path, expected) in [
        (site.path(over), 410),
        (site.path(over) + "/file", 410),
        (site.path(absent), 404),
        (site.path(absent) + "/file", 404),
        (good.replace("/a/b/", "/a/"), 404),
        (good.clone() + "/", 404),
        (good.clone() + "/file/", 404),
        (good.clone() + "/../../link.key", 404),
        (good[..good.len() - 1].to_owned(), 404),
        ("/a/b/".to_owned(), 404),
        ("/".to_owned(), 404),
    ] {
        let (status, headers, page) = site.get(&path, &[]).await;
        assert_eq!(status, expected, "{path}");
        assert!(
            headers.contains_key("content-security-policy") && page.contains("<h1>"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be() {
    let site = site().await;
    // A file where the folder of the day was.
    let objects = site.folder.path().join("objects");
    std::fs::remove_dir_all(&objects).unwrap();
    std::fs::write(&objects, "").unwrap();
    let (status, headers, _) = site.get(&site.path(site.key), &[]).await;
    assert_eq!(
        (status, headers["retry-after"].to_str().unwrap()),
        (503, "30")
    );
}

#[tokio::test]
async fn a_download_under_way_is_finished_and_nothing_new_is_taken() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// More than fits the buffers of a connection.
    const SIZE: usize = 20 * 1024 * 1024;
    let site = site().await;
    let key = Key::random(NOW + 10).unwrap();
    let mut upload = site.web.0.store.begin(key).await.unwrap();
    upload.write(vec![7; SIZE]).await.unwrap();
    let about = About {
        name: String::new(),
        kind: String::new(),
        size: SIZE as u64,
        sha256: "abc".to_owned(),
    };
    upload.finish(key, &about).await.unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(site.web.clone().serve(listener, 10, stop.clone()));
    let mut reader = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {}/file HTTP/1.1\r\nHost: x\r\n\r\n", site.path(key));
    reader.write_all(request.as_bytes()).await.unwrap();
    reader.read_u8().await.unwrap();
    stop.cancel();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert!(
        rest.len() > SIZE && rest.ends_with(&[7; 100]),
        "{} octets",
        rest.len()
    );
    serving.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

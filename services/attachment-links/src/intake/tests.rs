use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::config::StoreConfig;

struct Place {
    depot: Depot,
    folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let depot = Depot {
        store: Store::open(&StoreConfig::Folder(folder.path().to_owned())).unwrap(),
        places: Arc::new(Semaphore::new(1)),
        metrics: Metrics::default(),
    };
    Place { depot, folder }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn settings(size_min: u64) -> Settings {
    Settings {
        size_min,
        ..Settings::default()
    }
}

async fn take(
    place: &Place,
    settings: &Settings,
    message: &[u8],
    chunk: usize,
) -> anyhow::Result<Taken> {
    let mut intake = Intake::new(&place.depot, settings, 0);
    for chunk in message.chunks(chunk.max(1)) {
        intake.push(chunk).await?;
    }
    intake.finish().await
}

async fn content(place: &Place, moved: &Moved) -> Vec<u8> {
    let mut all = Vec::new();
    while (all.len() as u64) < moved.about.size {
        let start = all.len() as u64;
        let end = moved.about.size.min(start + crate::store::READ_OCTETS_MAX);
        all.extend_from_slice(&place.depot.store.read(moved.key, start..end).await.unwrap());
    }
    all
}

/// Everything in the folder but its folders.
fn files(path: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let count = |entry: std::fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            1
        }
    };
    entries.map(count).sum()
}

fn message(encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\nhello\r\n--b\r\n\
         Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    );
    [
        head.as_bytes(),
        body,
        b"\r\n--b\r\n\r\nbye\r\n--b--\r\nepilogue",
    ]
    .concat()
}

fn base64_lines(content: &[u8]) -> Vec<u8> {
    let lines: Vec<String> = content
        .chunks(57)
        .map(|line| STANDARD.encode(line))
        .collect();
    lines.join("\r\n").into_bytes()
}

#[test]
fn a_part_is_stored_as_it_was_before_it_was_encoded_whatever_the_chunks() {
    let original: Vec<u8> = (0..700_001_u32)
        .map(|at| (at * 7 / 5).to_le_bytes()[0])
        .collect();
    let quoted = b"=00=01 a=\r\nb =\r\n\r\nc=3D";
    runtime().block_on(async {
        for (encoding, body, decoded) in [
            ("base64", base64_lines(&original), original.clone()),
            (
                "8bit",
                b"\x00\x01--b-\r\n--\r\n".to_vec(),
                b"\x00\x01--b-\r\n--\r\n".to_vec(),
            ),
            (
                "quoted-printable",
                quoted.to_vec(),
                b"\x00\x01 ab \r\nc=".to_vec(),
            ),
        ] {
            for chunk in [1_000_000, 65_536, 1000, 61] {
                let place = place();
                let taken = take(&place, &settings(5), &message(encoding, &body), chunk)
                    .await
                    .unwrap();
                let [moved] = taken.moved.as_slice() else {
                    panic!("{} parts moved", taken.moved.len());
                };
                assert_eq!(content(&place, moved).await, decoded, "{encoding} {chunk}");
                let sha256 = digest::digest(&digest::SHA256, &decoded);
                let hex = hex(sha256.as_ref());
                assert_eq!(
                    (moved.about.sha256.as_str(), moved.about.name.as_str()),
                    (hex.as_str(), "a.pdf")
                );
                let texts: Vec<_> = taken
                    .texts
                    .iter()
                    .map(|(index, text)| (*index, text.as_slice()))
                    .collect();
                assert_eq!(texts, [(1, &b"hello"[..]), (3, b"bye")]);
                assert_eq!(taken.structure, opes_mime::scan(&message(encoding, &body)));
            }
        }
    });
}

#[test]
fn small_large_and_too_many_parts_stay() {
    let body = base64_lines(&vec![7; 400_000]);
    runtime().block_on(async {
        for settings in [
            settings(400_001),
            Settings {
                size_max: 399_999,
                ..settings(1000)
            },
            Settings {
                count_max: 0,
                ..settings(1)
            },
        ] {
            let place = place();
            let taken = take(&place, &settings, &message("base64", &body), 10_000)
                .await
                .unwrap();
            assert!(taken.moved.is_empty());
            drop(taken);
            assert_eq!(files(place.folder.path()), 0, "something was left");
        }
    });
}

#[test]
fn what_a_failed_message_stored_is_removed_and_what_is_kept_stays() {
    let body = base64_lines(&vec![7; 400_000]);
    let message = message("base64", &body);
    let (half, _) = message.split_at(message.len() / 2);
    runtime().block_on(async {
        let place = place();
        let settings = settings(1);
        let mut intake = Intake::new(&place.depot, &settings, 0);
        intake.push(half).await.unwrap();
        intake
            .push(&message[half.len()..half.len() + 100_000])
            .await
            .unwrap();
        assert_eq!(
            files(place.folder.path()),
            1,
            "nothing was written while the part arrived"
        );
        drop(intake);
        assert_eq!(files(place.folder.path()), 0, "the draft is still there");

        let taken = take(&place, &settings, &message, 10_000).await.unwrap();
        assert_eq!(files(place.folder.path()), 2);
        drop(taken);
        while files(place.folder.path()) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let taken = take(&place, &settings, &message, 10_000).await.unwrap();
        taken.stored.keep();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(files(place.folder.path()), 2);
    });
}

#[test]
fn a_store_that_is_gone_fails_the_message() {
    let message = message("base64", &base64_lines(&[7; 1000]));
    runtime().block_on(async {
        let place = place();
        std::fs::remove_dir_all(place.folder.path()).unwrap();
        let error = take(&place, &settings(1), &message, 10_000)
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("was not stored"), "{error:#}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_message_is_taken_within_bounds(
        lines in proptest::collection::vec(prop_oneof![
            Just("--b".to_owned()), Just("--b--".to_owned()), Just("--c".to_owned()), Just(String::new()),
            Just("Content-Type: multipart/mixed; boundary=c".to_owned()),
            Just("Content-Type: application/pdf".to_owned()),
            Just("Content-Type: message/rfc822".to_owned()),
            Just("Content-Transfer-Encoding: base64".to_owned()),
            "[ -~]{0,80}",
        ], 0..60),
        octets in proptest::collection::vec(any::<u8>(), 0..100),
        chunk in 1..3000_usize,
    ) {
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        let mut message = format!("{head}{}", lines.join("\r\n")).into_bytes();
        message.extend_from_slice(&octets);
        runtime().block_on(async {
            let place = place();
            let taken = take(&place, &settings(1), &message, chunk).await.unwrap();
            let structure = opes_mime::scan(&message);
            assert_eq!(&taken.structure, &structure);
            for moved in &taken.moved {
                let part = &structure.parts[moved.index];
                let mut decoder = Decoder::new(part.encoding);
                let mut expected = Vec::new();
                decoder.push(part.body(&message), &mut expected);
                decoder.finish(&mut expected);
                assert_eq!(content(&place, moved).await, expected);
            }
        });
    }
}

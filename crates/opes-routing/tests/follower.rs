//! A follower and operators in one process, over mutual TLS: what is taken from whom, and what survives what.

#[path = "../../../tests/e2e/src/operator.rs"]
#[allow(dead_code, reason = "a part of it is for the end-to-end tests")]
pub mod operator;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use operator::{Authority, NAME, Operator};
use opes_routing::{
    ClientTls, Endpoints, Fault, Follower, FollowerConfig, News, Pool, PoolLoad, Source, Status,
    Table, Update,
};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// How the operator ends its runtime, here as in the end-to-end tests: when this returns, its sockets are closed.
fn end(runtime: tokio::runtime::Runtime) {
    // A thread of no runtime may wait, wherever the caller is.
    let ending = std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE));
    let _ended = ending.join();
}

/// Where certificates and caches are, and who makes the former.
struct Place {
    folder: TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new()?;
        Ok(Self { folder, authority })
    }

    fn operator(&self) -> Result<Operator> {
        let name = format!("operator-{}", fresh());
        Operator::start(self.issue(&name, NAME)?)
    }

    fn issue(&self, end: &str, name: &str) -> Result<opes_routing::MutualFiles> {
        let trusted = [&self.authority];
        self.authority
            .issue(self.folder.path(), end, name, &trusted)
    }

    fn config(&self, url: &str) -> Result<FollowerConfig> {
        let files = self.issue("edge", "edge.example.com")?;
        Ok(FollowerConfig::new(
            url.parse()?,
            "edge-1",
            ClientTls::client(files)?,
        ))
    }

    fn follower(&self, url: &str) -> Result<Follower> {
        Ok(Follower::start(self.config(url)?, Vec::new))
    }

    fn with_cache(&self, url: &str) -> Result<Follower> {
        let config = FollowerConfig {
            cache: Some(self.cache()),
            patience: Duration::from_millis(200),
            ..self.config(url)?
        };
        Ok(Follower::start(config, Vec::new))
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }
}

fn fresh() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A table with one rule for each text, and the pool of one service.
fn table(texts: &[&str]) -> Result<Table> {
    let rule = |(number, text): (usize, &&str)| {
        format!(
            r#"{{"apiVersion":"opes.dev/v1alpha1","kind":"OpesRule","metadata":{{"name":"r{number}"}},"spec":{{"at":["mailFrom"],"action":{{"reject":{{"text":"{text}"}}}}}}}}"#
        )
    };
    let objects: Vec<String> = texts.iter().enumerate().map(rule).collect();
    let parsed = objects
        .iter()
        .flat_map(|text| opes_rules::parse("", text).0);
    let compiled = opes_rules::compile(parsed.collect());
    let revision = compiled.ok().context("the test's rules")?.revision;
    Ok(Table {
        revision,
        objects,
        endpoints: Some(endpoints("https://192.0.2.1:9000")),
    })
}

fn endpoints(endpoint: &str) -> Endpoints {
    Endpoints {
        pools: vec![Pool {
            service: "default/scan".into(),
            endpoints: vec![endpoint.into()],
            server_name: "opes-scan.default.svc".into(),
        }],
    }
}

async fn news(follower: &mut Follower) -> Result<News> {
    let next = tokio::time::timeout(DEADLINE, follower.next());
    next.await.context("no news in time")
}

/// The next table, put in force.
async fn take(follower: &mut Follower) -> Result<Box<Update>> {
    loop {
        if let News::Table(update) = news(follower).await? {
            follower.in_force(&update.table.revision).await;
            return Ok(update);
        }
    }
}

async fn moved(follower: &mut Follower) -> Result<Endpoints> {
    match news(follower).await? {
        News::Endpoints(endpoints) => Ok(endpoints),
        News::Table(update) => bail!("a table: {}", update.table.revision),
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !holds() {
        ensure!(began.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// One stream to each; the first address was needed only to find them.
async fn by_their_own_addresses(follower: &Follower, a: &Operator, b: &Operator) -> Result<()> {
    let direct = |status: Status| {
        let name = status.followed.unwrap_or_default();
        status.connected == 2 && name.starts_with("https://127.0.0.1:")
    };
    eventually("a stream to each", || {
        direct(follower.status()) && (a.streams(), b.streams()) == (1, 1)
    })
    .await
}

/// Nothing for so long that it would have come.
async fn quiet(follower: &mut Follower) -> Result<()> {
    match tokio::time::timeout(Duration::from_millis(300), follower.next()).await {
        Err(_elapsed) => Ok(()),
        Ok(news) => bail!("{news:?}"),
    }
}

#[tokio::test]
async fn a_table_comes_is_acknowledged_and_replaced() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    operator.send_table(table(&["one"])?);
    let mut follower = place.follower(&operator.url())?;
    let update = take(&mut follower).await?;
    assert_eq!(update.table.rules.len(), 1);
    assert_eq!(update.source, Source::Stream);
    assert_eq!(update.endpoints, endpoints("https://192.0.2.1:9000"));
    let hello = ("edge-1".to_owned(), String::new());
    eventually("greeted", || operator.hellos() == [hello.clone()]).await?;
    let first = update.table.revision;
    eventually("acknowledged", || operator.acks() == [first.clone()]).await?;
    operator.send_endpoints(endpoints("https://192.0.2.2:9000"));
    assert_eq!(
        moved(&mut follower).await?,
        endpoints("https://192.0.2.2:9000")
    );
    operator.send_table(table(&["two"])?);
    let second = take(&mut follower).await?.table.revision;
    eventually("acknowledged", || {
        operator.acks() == [first.clone(), second.clone()]
    })
    .await?;
    let now = follower.status();
    assert_eq!((now.connected, now.revision, now.taken), (1, second, 2));
    assert_eq!(now.age, Some(Duration::ZERO));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_and_what_runs_stays() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    operator.send_table(table(&["one"])?);
    let mut follower = place.follower(&operator.url())?;
    let good = take(&mut follower).await?.table.revision;
    let mut broken = table(&["one", "two"])?;
    broken.objects[1] = broken.objects[1].replace("reject", "rejct");
    operator.send_table(broken);
    eventually("refused", || operator.nacks().len() == 1).await?;
    let fault = &operator.nacks()[0].faults[0];
    assert_eq!(
        (fault.kind.as_str(), fault.name.as_str()),
        ("OpesRule", "default/r1")
    );
    assert!(fault.message.contains("rejct"), "{fault:?}");
    let lie = Table {
        revision: "0123456789abcdef".into(),
        ..table(&["three"])?
    };
    operator.send_table(lie);
    eventually("refused", || operator.nacks().len() == 2).await?;
    assert!(
        operator.nacks()[1].faults[0]
            .message
            .starts_with("revision differs")
    );
    let garbage = Table {
        revision: String::new(),
        objects: vec!["\u{1}\u{2}{{{".into(), "[]".into(), "- x".into()],
        endpoints: None,
    };
    operator.send_table(garbage);
    eventually("refused", || operator.nacks().len() == 3).await?;
    // The owner has a say as well.
    operator.send_table(table(&["four"])?);
    let refused = loop {
        if let News::Table(update) = news(&mut follower).await? {
            break update.table.revision;
        }
    };
    let fault = Fault {
        message: "no certificate".into(),
        ..Fault::default()
    };
    follower.refuse(&refused, vec![fault]).await;
    eventually("refused", || operator.nacks().len() == 4).await?;
    let now = follower.status();
    assert_eq!((now.revision, now.refused), (good, 4));
    assert!(now.age.context("never confirmed")? > Duration::ZERO);
    Ok(())
}

#[tokio::test]
async fn an_operator_that_restarts_is_found_again() -> Result<()> {
    let place = Place::new()?;
    let files = place.issue("operator", NAME)?;
    let operator = Operator::start(files.clone())?;
    operator.send_table(table(&["one"])?);
    let mut follower = place.follower(&operator.url())?;
    let first = take(&mut follower).await?.table.revision;
    let address = operator.kill();
    let lost = |status: Status| status.connected == 0 && status.age > Some(Duration::ZERO);
    eventually("lost", || lost(follower.status())).await?;
    quiet(&mut follower).await?;
    let operator = Operator::start_at(address, files)?;
    operator.send_table(table(&["one"])?);
    eventually("found again", || operator.acks().contains(&first)).await?;
    assert_eq!(operator.hellos(), [("edge-1".to_owned(), first.clone())]);
    // Nothing to do: it is the same table.
    quiet(&mut follower).await?;
    assert_eq!(follower.status().age, Some(Duration::ZERO));
    operator.send_table(table(&["two"])?);
    assert_ne!(take(&mut follower).await?.table.revision, first);
    Ok(())
}

#[tokio::test]
async fn of_two_replicas_one_is_followed_and_both_are_told() -> Result<()> {
    let place = Place::new()?;
    let (a, b) = (place.operator()?, place.operator()?);
    for replica in [&a, &b] {
        replica.send_peers(&[&a, &b]);
        replica.send_table(table(&["one"])?);
    }
    let mut follower = place.follower(&a.url())?;
    let first = take(&mut follower).await?.table.revision;
    by_their_own_addresses(&follower, &a, &b).await?;
    let two = table(&["two"])?;
    for replica in [&a, &b] {
        replica.send_table(two.clone());
    }
    take(&mut follower).await?;
    for replica in [&a, &b] {
        eventually("acknowledged", || replica.acks().contains(&two.revision)).await?;
    }
    assert_ne!(first, two.revision);
    // Whoever is followed goes; the other one takes over, and nothing changes by that.
    let name = follower.status().followed.context("nobody is followed")?;
    let (gone, stays) = if name.ends_with(&a.address.to_string()) {
        (a, b)
    } else {
        (b, a)
    };
    gone.kill();
    let stays_at = stays.address.to_string();
    let over = |status: Status| {
        status
            .followed
            .is_some_and(|name| name.ends_with(&stays_at))
    };
    eventually("taken over", || over(follower.status())).await?;
    assert_eq!(follower.status().age, Some(Duration::ZERO));
    quiet(&mut follower).await?;
    stays.send_table(table(&["three"])?);
    take(&mut follower).await?;
    Ok(())
}

#[tokio::test]
async fn a_straggler_rolls_nothing_back() -> Result<()> {
    let place = Place::new()?;
    let (a, b) = (place.operator()?, place.operator()?);
    let (one, two) = (table(&["one"])?, table(&["two"])?);
    for replica in [&a, &b] {
        replica.send_peers(&[&a, &b]);
        replica.send_table(one.clone());
    }
    let mut follower = place.follower(&a.url())?;
    take(&mut follower).await?;
    by_their_own_addresses(&follower, &a, &b).await?;
    let name = follower.status().followed.context("nobody is followed")?;
    let (ahead, behind) = if name.ends_with(&a.address.to_string()) {
        (a, b)
    } else {
        (b, a)
    };
    ahead.send_table(two.clone());
    assert_eq!(take(&mut follower).await?.table.revision, two.revision);
    ahead.kill();
    let at = behind.address.to_string();
    let over = |status: Status| status.followed.is_some_and(|name| name.ends_with(&at));
    eventually("taken over", || over(follower.status())).await?;
    quiet(&mut follower).await?;
    assert_eq!(follower.status().revision, two.revision);
    behind.send_table(two.clone());
    eventually("confirmed", || {
        follower.status().age == Some(Duration::ZERO)
    })
    .await?;
    behind.send_table(table(&["three"])?);
    take(&mut follower).await?;
    Ok(())
}

#[tokio::test]
async fn without_an_operator_the_last_good_table_runs() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    let url = operator.url();
    operator.send_table(table(&["one"])?);
    let mut follower = place.with_cache(&url)?;
    let kept = take(&mut follower).await?.table.revision;
    let file = place.cache().join("routing-table");
    eventually("kept", || file.exists()).await?;
    drop(follower);
    operator.kill();
    let mut follower = place.with_cache(&url)?;
    let update = take(&mut follower).await?;
    assert_eq!(
        (update.table.revision, update.source),
        (kept.clone(), Source::Cache)
    );
    assert_eq!(update.endpoints, endpoints("https://192.0.2.1:9000"));
    // That nobody is there may take longer to find out than the patience.
    let known = |status: Status| {
        let from_disk = status.source == Some(Source::Cache) && status.age.is_some();
        from_disk && status.trouble.is_some()
    };
    eventually("seen", || known(follower.status())).await?;
    Ok(())
}

#[tokio::test]
async fn a_broken_file_is_no_table() -> Result<()> {
    let place = Place::new()?;
    std::fs::create_dir_all(place.cache())?;
    let file = place.cache().join("routing-table");
    std::fs::write(&file, b"OPESRT\x00\x01 not at all")?;
    let operator = place.operator()?;
    let mut follower = place.with_cache(&operator.url())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    quiet(&mut follower).await?;
    operator.send_table(table(&["one"])?);
    assert_eq!(take(&mut follower).await?.source, Source::Stream);
    eventually("replaced", || {
        std::fs::read(&file).is_ok_and(|octets| octets.len() > 100)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_first_table_does_not_keep_the_good_one_on_disk_from_running() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    operator.send_table(table(&["one"])?);
    let mut follower = place.with_cache(&operator.url())?;
    let kept = take(&mut follower).await?.table.revision;
    let file = place.cache().join("routing-table");
    eventually("kept", || file.exists()).await?;
    drop(follower);
    let lie = Table {
        revision: "0123456789abcdef".into(),
        ..table(&["two"])?
    };
    operator.send_table(lie);
    let mut follower = place.with_cache(&operator.url())?;
    let update = take(&mut follower).await?;
    assert_eq!(
        (update.table.revision, update.source),
        (kept, Source::Cache)
    );
    eventually("refused", || operator.nacks().len() == 1).await
}

#[tokio::test]
async fn a_huge_table_passes_and_one_beyond_the_limit_ends_the_stream_only() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    let texts: Vec<String> = (0..200)
        .map(|number| format!("{number} {}", "x".repeat(200)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut huge = table(&texts)?;
    // Objects are bounded one by one; the rest of it is endpoints.
    huge.endpoints = Some(Endpoints {
        pools: (0..20_000)
            .map(|number| Pool {
                service: format!("default/s{number:05}"),
                endpoints: vec!["https://192.0.2.1:9000".into(); 8],
                server_name: "opes-scan.default.svc".into(),
            })
            .collect(),
    });
    operator.send_table(huge);
    let mut follower = place.follower(&operator.url())?;
    let update = take(&mut follower).await?;
    assert_eq!(
        (update.table.rules.len(), update.endpoints.pools.len()),
        (200, 20_000)
    );
    let beyond = Table {
        objects: vec!["x".repeat(opes_routing::TABLE_OCTETS_MAX + 1)],
        ..Table::default()
    };
    operator.send_table(beyond);
    let broken = |status: Status| status.trouble.is_some_and(|why| why.contains("too large"));
    eventually("given up", || broken(follower.status())).await?;
    operator.send_table(table(&["one"])?);
    take(&mut follower).await?;
    Ok(())
}

#[tokio::test]
async fn who_cannot_prove_who_it_is_is_not_followed() -> Result<()> {
    let place = Place::new()?;
    let stranger = Authority::new()?;
    // Of another authority.
    let files = stranger.issue(place.folder.path(), "stranger", NAME, &[&place.authority])?;
    trouble(&place, files, "is not signed by").await?;
    // Ours, for another name: a callout service's.
    let files = place.issue("service", "opes-scan.default.svc")?;
    trouble(&place, files, "is not for name localhost").await?;
    // It does not know us.
    let files = place
        .authority
        .issue(place.folder.path(), "strict", NAME, &[&stranger])?;
    trouble(&place, files, "our certificate").await
}

async fn trouble(place: &Place, files: opes_routing::MutualFiles, why: &str) -> Result<()> {
    let operator = Operator::start(files)?;
    operator.send_table(table(&["one"])?);
    let follower = place.follower(&operator.url())?;
    let said = |status: Status| status.trouble.is_some_and(|trouble| trouble.contains(why));
    let heard = eventually(why, || said(follower.status())).await;
    heard.with_context(|| format!("{:?}", follower.status()))?;
    assert!(operator.hellos().is_empty());
    Ok(())
}

#[tokio::test]
async fn replaced_certificates_make_another_stream() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    operator.send_table(table(&["one"])?);
    let mut follower = place.follower(&operator.url())?;
    let first = take(&mut follower).await?.table.revision;
    place.issue("edge", "edge.example.com")?;
    eventually("another stream", || operator.hellos().len() == 2).await?;
    assert_eq!(operator.hellos()[1].1, first);
    quiet(&mut follower).await?;
    Ok(())
}

#[tokio::test]
async fn load_is_said_at_once_and_when_it_changes() -> Result<()> {
    let place = Place::new()?;
    let operator = place.operator()?;
    let busy = Arc::new(AtomicU32::new(1));
    let seen = Arc::clone(&busy);
    let loads = move || {
        vec![PoolLoad {
            service: "default/scan".into(),
            in_flight: seen.load(Ordering::Relaxed),
            queued: 0,
        }]
    };
    let _follower = Follower::start(place.config(&operator.url())?, loads);
    let last = || {
        operator
            .loads()
            .last()
            .and_then(|pools| pools.first().map(|pool| pool.in_flight))
    };
    eventually("said", || last() == Some(1)).await?;
    busy.store(7, Ordering::Relaxed);
    let changed = Instant::now();
    eventually("said again", || last() == Some(7)).await?;
    assert!(changed.elapsed() < Duration::from_secs(5));
    Ok(())
}

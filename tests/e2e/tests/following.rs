//! `opes edge` with `routing:` behind an operator of the test's own: what it runs, when, and what it says of it.
//!
//! Real processes, mutual TLS everywhere, callout services made with the SDK.

mod following {
    pub(crate) mod place;
}

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use following::place::{BOB, FROM, Place, marked, marked_within, pools, reject, stamp, table};
use opes_e2e::eventually;
use opes_e2e::operator::{Authority, Operator};
use opes_e2e::smtp::{Dialog, sample};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_table_opens_the_port() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let mut edge = place.edge(&operator.url())?;
    eventually("the operator is reached", || operator.hellos().len() == 1).await;
    let (ready, why) = edge.get("/readyz").await?;
    ensure!(
        !ready && why.contains("routing: no routing table yet"),
        "{why}"
    );
    ensure!(edge.get("/healthz").await?.0, "it lives");
    let said = edge.daemon.more();
    ensure!(!said.iter().any(|line| line.contains("smtp")), "{said:?}");
    operator.send_table(table(&[reject("one")], &[])?);
    edge.daemon.wait_for(|line| line == "ready")?;
    let (ready, why) = edge.get("/readyz").await?;
    ensure!(ready, "{why}");
    let reply = refusal(&mut edge.dialog().await?).await?;
    ensure!(reply == "550 5.7.1 one", "{reply}");
    eventually("acknowledged", || operator.acks().len() == 1).await;
    ensure!(edge.terminate()?.success(), "a clean end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_counts_from_the_next_transaction_on_and_none_mixes_two() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let tables = ["one", "two"].map(|name| table(&[reject(name), stamp(name)], &[]));
    let [one, two] = tables;
    let (one, two) = (one?, two?);
    operator.send_table(one.clone());
    let edge = place.ready_edge(&operator.url())?;
    let mut dialog = edge.dialog().await?;
    dialog.command(&format!("MAIL FROM:<{FROM}>")).await?;
    let reply = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(text_of(&reply).ends_with("one"), "{reply}");
    operator.send_table(two.clone());
    eventually("in force", || operator.acks().contains(&two.revision)).await;
    // The running transaction keeps the rules that it began with, to the header field at its end.
    let reply = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(text_of(&reply).ends_with("one"), "{reply}");
    dialog.command(&format!("RCPT TO:<{BOB}>")).await?;
    dialog.command("DATA").await?;
    dialog
        .send(&[sample("mixed", 500), b".\r\n".to_vec()].concat())
        .await?;
    let reply = dialog.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    ensure!(
        refusal(&mut dialog).await?.ends_with("two"),
        "the next transaction"
    );
    eventually("delivered", || place.sink.count() == 1).await;
    ensure!(place.stamps()? == ["one"], "{:?}", place.stamps()?);

    // And under load, while tables change all the time.
    let (stop, said) = (Arc::<AtomicBool>::default(), Said::default());
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, said) = (Arc::clone(&stop), Arc::clone(&said));
            tokio::spawn(consistent(edge.address(), client, stop, said))
        })
        .collect();
    let said = || said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let said_by = |name: &str| said().iter().any(|(_, text)| text == name);
    let began = Instant::now();
    for round in 0.. {
        operator.send_table(if round % 2 == 0 {
            one.clone()
        } else {
            two.clone()
        });
        tokio::time::sleep(Duration::from_millis(25)).await;
        if round >= 40 && said_by("one") && said_by("two") {
            break;
        }
        let ended = clients.iter().any(tokio::task::JoinHandle::is_finished);
        ensure!(
            began.elapsed() < opes_e2e::DEADLINE && !ended,
            "never both: {:?}",
            said()
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let said = said();
    eventually("delivered", || place.sink.count() == said.len() + 1).await;
    for (subject, text) in said {
        let stamp = place.stamp_of(&subject)?;
        ensure!(
            stamp == text,
            "{subject}: refused by {text}, stamped by {stamp}"
        );
    }
    Ok(())
}

/// Of transactions with one refused recipient each: subject, and what the refusal said.
type Said = Arc<Mutex<Vec<(String, String)>>>;

/// One such transaction after the other.
async fn consistent(
    edge: std::net::SocketAddr,
    client: usize,
    stop: Arc<AtomicBool>,
    said: Said,
) -> Result<()> {
    let mut dialog = Dialog::open(edge, false).await?;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        dialog.command(&format!("MAIL FROM:<{FROM}>")).await?;
        let refused = dialog.command("RCPT TO:<nobody@example.com>").await?;
        let text = text_of(&refused);
        let text = text.rsplit(' ').next().unwrap_or_default().to_owned();
        dialog.command(&format!("RCPT TO:<{BOB}>")).await?;
        dialog.command("DATA").await?;
        let subject = format!("client{client}-{number}");
        number += 1;
        dialog
            .send(&[sample(&subject, 300), b".\r\n".to_vec()].concat())
            .await?;
        let reply = dialog.reply().await?;
        ensure!(reply.starts_with("250"), "{reply}");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push((subject, text));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_move_without_another_table() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let (a, b) = (place.marker("a").await?, place.marker("b").await?);
    operator.send_table(table(&[marked()], &[&a])?);
    let edge = place.ready_edge(&operator.url())?;
    let mut dialog = edge.dialog().await?;
    accepted(&mut dialog, "first").await?;
    operator.send_endpoints(pools(&[&b]));
    let began = Instant::now();
    // Which connection is taken is the pool's business; in the end it is the other one.
    let mut sent = 1;
    while b.marked() == 0 {
        ensure!(began.elapsed() < opes_e2e::DEADLINE, "b gets nothing");
        accepted(&mut dialog, &format!("then-{sent}")).await?;
        sent += 1;
    }
    let before = a.marked();
    for number in 0..10 {
        accepted(&mut dialog, &format!("later-{number}")).await?;
    }
    ensure!(a.marked() == before, "a is still asked");
    ensure!(operator.acks().len() == 1, "{:?}", operator.acks());
    let metrics = edge.get("/metrics").await?.1;
    ensure!(
        metrics.contains("opes_edge_routing_tables_total{result=\"Taken\"} 1\n"),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_operator_mail_flows_and_a_restart_comes_up_from_disk() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let url = operator.url();
    let marker = place.marker("a").await?;
    operator.send_table(table(&[marked(), reject("one")], &[&marker])?);
    let edge = place.ready_edge(&url)?;
    accepted(&mut edge.dialog().await?, "before").await?;
    ensure!(
        edge.figure("opes_edge_routing_age_seconds").await? < 0.001,
        "followed"
    );
    eventually("kept on disk", || {
        place.path("cache/routing-table").exists()
    })
    .await;
    operator.kill();
    accepted(&mut edge.dialog().await?, "without").await?;
    edge.wait_for_figure("opes_edge_routing_operators", |open| open < 0.5)
        .await?;
    edge.wait_for_figure("opes_edge_routing_age_seconds", |age| age > 1.0)
        .await?;
    accepted(&mut edge.dialog().await?, "still").await?;
    let mut edge = edge;
    edge.daemon.kill();
    let edge = place.ready_edge(&url)?;
    let (ready, why) = edge.get("/readyz").await?;
    ensure!(ready, "{why}");
    accepted(&mut edge.dialog().await?, "restarted").await?;
    ensure!(
        refusal(&mut edge.dialog().await?).await? == "550 5.7.1 one",
        "its rules"
    );
    let metrics = edge.get("/metrics").await?.1;
    ensure!(metrics.contains("source=\"Cache\"} 1"), "{metrics}");
    ensure!(
        edge.figure("opes_edge_routing_age_seconds").await? > 1.0,
        "{metrics}"
    );
    ensure!(marker.marked() == 4, "{}", marker.marked());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_object_is_refused_and_the_last_good_table_stays_over_a_restart() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    operator.send_table(table(&[reject("good")], &[])?);
    let edge = place.ready_edge(&operator.url())?;
    eventually("kept on disk", || {
        place.path("cache/routing-table").exists()
    })
    .await;
    let mut broken = table(&[reject("bad"), stamp("fine")], &[])?;
    for object in &mut broken.objects {
        *object = object.replace("\"reject\":", "\"rejct\":");
    }
    operator.send_table(broken);
    eventually("refused", || operator.nacks().len() == 1).await;
    let fault = operator.nacks().remove(0).faults.remove(0);
    ensure!(
        fault.name == "default/reject" && fault.message.contains("rejct"),
        "{fault:?}"
    );
    ensure!(
        refusal(&mut edge.dialog().await?).await? == "550 5.7.1 good",
        "stays"
    );
    ensure!(edge.get("/readyz").await?.0, "ready");
    let mut edge = edge;
    edge.daemon.kill();
    // The operator still has nothing better.
    let edge = place.ready_edge(&operator.url())?;
    ensure!(
        refusal(&mut edge.dialog().await?).await? == "550 5.7.1 good",
        "from disk"
    );
    operator.send_table(table(&[reject("mended")], &[])?);
    eventually("in force", || operator.acks().len() == 3).await;
    ensure!(
        refusal(&mut edge.dialog().await?).await? == "550 5.7.1 mended",
        "mended"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over() -> Result<()> {
    let place = Place::new().await?;
    let (a, b) = (place.operator()?, place.operator()?);
    let first = table(&[reject("one")], &[])?;
    for replica in [&a, &b] {
        replica.send_peers(&[&a, &b]);
        replica.send_table(first.clone());
    }
    let edge = place.ready_edge(&a.url())?;
    let open = "opes_edge_routing_operators";
    edge.wait_for_figure(open, |open| open > 1.5).await?;
    eventually("a stream to each", || (a.streams(), b.streams()) == (1, 1)).await;
    for replica in [&a, &b] {
        replica.send_table(table(&[reject("two")], &[])?);
    }
    eventually("both are told", || a.acks().len() > 1 && b.acks().len() > 1).await;
    // Whichever is followed goes first or last: the one that stays is enough.
    a.kill();
    edge.wait_for_figure(open, |open| open < 1.5).await?;
    ensure!(
        refusal(&mut edge.dialog().await?).await?.ends_with("two"),
        "nothing changes"
    );
    let three = table(&[reject("three")], &[])?;
    b.send_table(three.clone());
    eventually("in force", || b.acks().contains(&three.revision)).await;
    ensure!(
        refusal(&mut edge.dialog().await?).await?.ends_with("three"),
        "the other one's"
    );
    ensure!(
        edge.figure("opes_edge_routing_age_seconds").await? < 0.001,
        "confirmed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_reported_also_of_a_pool_that_sleeps() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let marker = place.marker("a").await?;
    // Nobody is there yet.
    operator.send_table(table(&[marked_within("2s")], &[])?);
    let edge = place.ready_edge(&operator.url())?;
    let began = Instant::now();
    let reply = deliver(&mut edge.dialog().await?, "too early").await?;
    ensure!(reply.starts_with("451"), "{reply}");
    ensure!(
        began.elapsed() >= Duration::from_secs(1),
        "it waited a little"
    );
    let wanted = || last_load(&operator).is_some_and(|(_, queued)| queued > 0);
    eventually("the operator hears that it is wanted", wanted).await;
    // The next one waits, and an instance comes in time, also on a machine that has none.
    let patient = table(&[marked_within("60s")], &[])?;
    operator.send_table(patient.clone());
    eventually("in force", || operator.acks().contains(&patient.revision)).await;
    let mut dialog = edge.dialog().await?;
    let waiting = tokio::spawn(async move { deliver(&mut dialog, "in time").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    marker.hold();
    operator.send_endpoints(pools(&[&marker]));
    let busy = || last_load(&operator) == Some((1, 0));
    eventually("one transaction is open", busy).await;
    marker.release();
    let reply = waiting.await??;
    ensure!(reply.starts_with("250"), "{reply}");
    eventually("idle", || last_load(&operator) == Some((0, 0))).await;
    Ok(())
}

/// In flight and queued of the one service, as it was said last.
fn last_load(operator: &Operator) -> Option<(u32, u32)> {
    let loads = operator.loads();
    let pool = loads
        .last()?
        .iter()
        .find(|pool| pool.service == "default/marker")?;
    Some((pool.in_flight, pool.queued))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_without_a_failed_call() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    let marker = place.marker("a").await?;
    operator.send_table(table(&[marked()], &[&marker])?);
    let edge = place.ready_edge(&operator.url())?;
    let stop = Arc::<AtomicBool>::default();
    let flow = tokio::spawn(steadily(edge.dialog().await?, Arc::clone(&stop)));
    eventually("mail flows", || place.sink.count() > 3).await;
    let next = Authority::new()?;
    // Both are believed; then new certificates; then the new one alone.
    for step in 0..3 {
        let (hellos, taken) = (operator.hellos().len(), place.taken());
        let renewed = marker.renewed();
        place.rotate(&next, step)?;
        eventually("another stream", || {
            operator.hellos().len() > hellos || flow.is_finished()
        })
        .await;
        // Who goes on before both ends have this step's files tries another way than the page's.
        eventually("taken by edge and service", || {
            (place.taken() > taken && renewed.is_cancelled()) || flow.is_finished()
        })
        .await;
        let more = place.sink.count() + 10;
        eventually("mail goes on", || {
            place.sink.count() > more || flow.is_finished()
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let sent = flow.await??;
    eventually("all is delivered", || place.sink.count() == sent).await;
    ensure!(
        marker.marked() == sent,
        "{} of {sent} were marked",
        marker.marked()
    );
    Ok(())
}

/// How many were accepted, one after the other.
async fn steadily(mut dialog: Dialog, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        accepted(&mut dialog, &format!("steady-{sent}")).await?;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_drains_without_losing_what_is_under_way() -> Result<()> {
    let mut place = Place::new().await?;
    // Within this time a client still comes in, on a busy machine too.
    place.drain_delay = 15;
    let operator = place.operator()?;
    let marker = place.marker("a").await?;
    operator.send_table(table(&[marked()], &[&marker])?);
    let edge = place.ready_edge(&operator.url())?;
    let mut idle = edge.dialog().await?;
    let mut busy = edge.dialog().await?;
    busy.envelope(FROM, &[BOB]).await?;
    let address = edge.address();
    edge.daemon.tell_to_go()?;
    edge.wait_until_not_ready("draining").await?;
    // As before, until balancers have noticed.
    accepted(&mut Dialog::open(address, false).await?, "late").await?;
    let said = idle.reply().await?;
    ensure!(said.starts_with("421"), "{said}");
    // Pools still move for what runs.
    let other = place.marker("b").await?;
    operator.send_endpoints(pools(&[&other]));
    busy.send(&[sample("under way", 500), b".\r\n".to_vec()].concat())
        .await?;
    let reply = busy.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    ensure!(edge.daemon.wait()?.success(), "nothing was cut");
    // What it was not yet at work on is in the spool: the next edge has it.
    let _next = place.ready_edge(&operator.url())?;
    eventually("both have arrived", || place.sink.count() >= 2).await;
    ensure!(place.sink.count() == 2, "{}", place.sink.count());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_an_edge_is_emptied() -> Result<()> {
    let place = Place::new().await?;
    let operator = place.operator()?;
    operator.send_table(table(&[], &[])?);
    // Nobody takes mail on the other side.
    let away = place.with_next_hop("127.0.0.1:9");
    let edge = away.ready_edge(&operator.url())?;
    for number in 0..3 {
        accepted(&mut edge.dialog().await?, &format!("stranded-{number}")).await?;
    }
    ensure!(edge.terminate()?.success(), "the spool keeps them");
    let (status, said) = place.empty("127.0.0.1:9", "1s")?;
    ensure!(
        !status.success() && said.contains("left 3 messages"),
        "{status} {said}"
    );
    let (status, said) = place.empty(&place.sink.address.to_string(), "60s")?;
    ensure!(
        status.success() && said.contains("empty"),
        "{status} {said}"
    );
    // The sink notes a message when its 250 is out.
    eventually("all three have arrived", || place.sink.count() >= 3).await;
    ensure!(place.sink.count() == 3, "{}", place.sink.count());
    let (status, _) = place.empty("127.0.0.1:9", "60s")?;
    ensure!(status.success(), "nothing is left");
    Ok(())
}

async fn deliver(dialog: &mut Dialog, name: &str) -> Result<String> {
    dialog.message(FROM, &[BOB], &sample(name, 500)).await
}

async fn accepted(dialog: &mut Dialog, name: &str) -> Result<()> {
    let reply = deliver(dialog, name)
        .await
        .with_context(|| name.to_owned())?;
    ensure!(reply.starts_with("250"), "{name}: {reply}");
    Ok(())
}

/// What the rule of [`reject`] says to a recipient whom it refuses.
async fn refusal(dialog: &mut Dialog) -> Result<String> {
    dialog.command(&format!("MAIL FROM:<{FROM}>")).await?;
    let reply = dialog.command("RCPT TO:<nobody@example.com>").await?;
    dialog.command("RSET").await?;
    Ok(text_of(&reply).to_owned())
}

/// Without who says it, and where that can be looked up.
fn text_of(reply: &str) -> &str {
    reply.split(" (").next().unwrap_or_default().trim_end()
}

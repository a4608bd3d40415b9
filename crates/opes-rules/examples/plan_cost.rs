//! What planning costs: microseconds per plan over 100 rules, for a message that meets all of them,
//! some of them and none of them. `cargo run --release -p opes-rules --example plan_cost`

use opes_rules::{Facts, Point, Recipient, RoutingTable, Sender, load};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

const RULES: usize = 100;
const ROUNDS: u32 = 20_000;

fn main() {
    let structured =
        "match: { listener: [mx], recipientDomains: [example.com, example.org], sizeUnder: 30Mi }";
    let cel = r#"match: { cel: '!(client.ip in cidr("10.0.0.0/8")) && mail.parameters.exists(p, p == "BODY=8BITMIME") && mail.from.endsWith("example.net") && size < 100000' }"#;
    let per_recipient = r#"match: { cel: 'domain(rcpt) in ["example.com", "example.org"]' }"#;
    for (name, matching) in [
        ("structured", structured),
        ("cel", cel),
        ("cel on rcpt", per_recipient),
    ] {
        let table = table(matching);
        report(
            &format!("{name}, all match"),
            &table,
            "mx",
            "ann@example.com",
        );
        report(
            &format!("{name}, no recipient matches"),
            &table,
            "mx",
            "ann@example.invalid",
        );
    }
    report(
        "structured, other listener",
        &table(structured),
        "submission",
        "ann@example.com",
    );
    report(
        "no rules",
        &RoutingTable::default(),
        "mx",
        "ann@example.com",
    );
}

fn table(matching: &str) -> RoutingTable {
    let mut text = String::new();
    for number in 0..RULES {
        let _ = write!(
            text,
            "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: rule-{number} }}\n\
             spec:\n  at: [content]\n  {matching}\n  action: {{ continue: {{}} }}\n"
        );
    }
    match load([("generated", text.as_str())]) {
        Ok(table) => table,
        Err(diagnostics) => {
            for diagnostic in diagnostics {
                eprintln!("{diagnostic}");
            }
            std::process::exit(1);
        }
    }
}

fn report(name: &str, table: &RoutingTable, listener: &str, address: &str) {
    let parameters = ["SIZE=4096".to_owned(), "BODY=8BITMIME".to_owned()];
    let recipients = [Recipient {
        address,
        parameters: &[],
    }];
    let facts = Facts {
        dialog_id: "dialog",
        listener,
        client_ip: Some([192, 0, 2, 7].into()),
        mail_from: Some(Sender {
            address: "bounce@example.net",
            parameters: &parameters,
        }),
        recipients: &recipients,
        size: Some(4096),
        ..Facts::at(Point::Content)
    };
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(table.plan(black_box(&facts)));
    }
    let micros = started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!(
        "{micros:>8.2} µs per plan over {} rules: {name}",
        table.rules.len()
    );
}

//! How long an operator takes to make a table of many rules: `cargo run --release -p opes-rules --example isolate [RULES]`.

use opes_rules::Object;
use opes_rules::compile::{Candidate, compile_isolated};
use opes_rules::parse::object_from_json;
use std::time::{Duration, Instant};

/// How often it is measured.
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rules = std::env::args()
        .nth(1)
        .map_or(Ok(1_000), |text| text.parse())?;
    for (what, spec) in [
        ("calls", calls as fn(usize) -> String),
        ("calls with CEL", conditions),
        (
            "accept and reject at one priority, 100 domains each",
            actions,
        ),
        (
            "accept and reject at one priority, told apart by TLS",
            encrypted,
        ),
        ("calls of a service that is missing", bereft),
    ] {
        let texts: Vec<String> = (0..rules)
            .map(|number| rule(number, &spec(number)))
            .collect();
        measure(what, &texts)?;
    }
    Ok(())
}

fn measure(what: &str, texts: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    // As an operator does it: the table before is there until the new one is.
    let mut before = None;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let read: Vec<Object> = texts
            .iter()
            .map(|text| object_from_json("rule", text))
            .collect::<Result<_, _>>()
            .map_err(|found| format!("{found:?}"))?;
        let parsed = started.elapsed();
        let candidates: Vec<Candidate> = read
            .into_iter()
            .chain([object_from_json("service", SERVICE).map_err(|found| format!("{found:?}"))?])
            .zip(0..)
            .map(|(object, created)| Candidate::read(object, created))
            .collect();
        let started = Instant::now();
        let isolated = compile_isolated(&candidates);
        let compiled = started.elapsed();
        let started = Instant::now();
        let octets: usize = isolated
            .objects
            .iter()
            .map(|object| object.to_json().len())
            .sum();
        times.push((compiled, parsed, started.elapsed(), octets));
        before = Some(isolated);
    }
    let accepted = before.map_or(0, |isolated| isolated.table.rules.len());
    let cold = times.first().map(|times| times.0).unwrap_or_default();
    times.sort();
    let (compiled, parsed, written, octets) = times.get(ROUNDS / 2).copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{what}: {} rules, {accepted} run: read {:.1} ms, compile {:.1} ms (first {:.1}), write {:.1} ms ({octets} octets)",
        texts.len(),
        ms(parsed),
        ms(compiled),
        ms(cold),
        ms(written),
    );
    Ok(())
}

const SERVICE: &str = r#"{"apiVersion":"opes.dev/v1alpha1","kind":"CalloutService",
    "metadata":{"name":"filter"},"spec":{"class":"adapt","builtin":{"name":"normalizer"}}}"#;

fn rule(number: usize, spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"opes.dev/v1alpha1","kind":"OpesRule","metadata":{{"name":"r{number}"}},"spec":{{{spec}}}}}"#
    )
}

fn calls(number: usize) -> String {
    format!(
        r#""at":["content"],"match":{{"recipientDomains":["d{number}.example.com"]}},
        "callout":{{"serviceRef":{{"name":"filter"}},"allow":["header"]}}"#
    )
}

fn conditions(number: usize) -> String {
    format!(
        r#""at":["content"],"match":{{"cel":"domain(rcpt) == \"d{number}.example.com\" && size > 1000 && !(client.ip in cidr(\"192.0.2.0/24\"))"}},
        "callout":{{"serviceRef":{{"name":"filter"}},"allow":["header"]}}"#
    )
}

fn actions(number: usize) -> String {
    let domains: Vec<String> = (0..100)
        .map(|of| format!(r#""d{of}.u{number}.example.com""#))
        .collect();
    let action = if number.is_multiple_of(2) {
        "accept"
    } else {
        "reject"
    };
    format!(
        r#""at":["rcptTo","data"],"match":{{"recipientDomains":[{}]}},"action":{{"{action}":{{}}}}"#,
        domains.join(",")
    )
}

fn encrypted(number: usize) -> String {
    let even = number.is_multiple_of(2);
    let action = if even { "accept" } else { "reject" };
    format!(r#""at":["rcptTo"],"match":{{"tls":{even}}},"action":{{"{action}":{{}}}}"#)
}

fn bereft(number: usize) -> String {
    calls(number).replace("filter", "gone")
}

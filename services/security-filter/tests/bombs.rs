//! Bombs cost neither memory nor time. Alone in its process, because it measures it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use base64::Engine as _;
use opes_security_filter::Config;
use opes_security_filter::archive::Unseen;
use opes_security_filter::inspect::{Cause, inspect};
use samples::{deflated, gzip, overlapping, packed, zeros, zip};
use serde_json::json;

#[path = "samples/archives.rs"]
mod samples;

const GROWTH_MAX: u64 = 64 * 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(2);

/// Of all processors together for this process (proc(5)): on a busy machine, the clock on the wall also counts what others do.
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // utime and stime, in hundredths of a second.
    let hundredths = fields.split(' ').skip(11).take(2);
    let hundredths = hundredths.map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(hundredths.sum::<u64>() * 10)
}

/// Octets that this process has in memory now, and most so far (proc(5)).
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

fn message(content: &[u8]) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(content);
    let header = "Content-Disposition: attachment; filename=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    [header.as_bytes(), encoded.as_bytes()].concat()
}

/// Headers of files and of a directory, each with a name that goes on over those behind it.
fn many_names() -> Vec<u8> {
    let header = |signature: &[u8], octets: usize, name_at: usize| {
        let mut header = vec![b'x'; octets];
        header[..4].copy_from_slice(signature);
        header[name_at..name_at + 2].copy_from_slice(&[0xff, 0xff]);
        header[name_at + 2..name_at + 4].copy_from_slice(&[0, 0]);
        header
    };
    let local = header(b"PK\x03\x04", 30, 26).repeat(4000);
    let central = header(b"PK\x01\x02", 46, 28).repeat(4000);
    [local, central, vec![b'x'; 70_000]].concat()
}

#[test]
fn a_bomb_of_10_gb_stays_under_64_mib_and_2_s() {
    let config = Config::from_json(&json!({})).unwrap();
    let ten_gib = zeros(10 * 1024);
    let small = packed("z", zeros(8));
    // Five levels of sixteen archives, 1 GiB in each file at the bottom.
    let bottom = zip(&[packed("z", zeros(1024))]);
    let nested = (0..5).fold(bottom, |inner, _| {
        let inner = deflated("", &inner);
        let names = (0..16).map(|n| format!("{n}.zip"));
        zip(&names
            .map(|name| packed(&name, inner.packed.clone()))
            .collect::<Vec<_>>())
    });
    let spread: Vec<_> = (0..1300)
        .map(|n| packed(&n.to_string(), small.packed.clone()))
        .collect();
    // Its checksum is wrong, but nobody comes that far.
    let gz = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &zeros(1024), &[0; 8]].concat();
    for (bomb, what) in [
        (zip(&[packed("z", ten_gib)]), "one file of 10 GiB"),
        (nested, "nested"),
        (overlapping(1000, &zeros(10)), "overlapping files"),
        (zip(&spread), "many files, each small enough"),
        (gzip(&gzip(&gz)), "gzip in gzip in gzip"),
        (many_names(), "names that share octets"),
    ] {
        let message = message(&bomb);
        drop(bomb);
        // Forgets the peak of making it.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (before, start) = (resident("VmRSS"), worked());
        let findings = inspect(&message, &config);
        let (took, grown) = (
            worked().saturating_sub(start),
            resident("VmHWM").saturating_sub(before),
        );
        println!(
            "{what}: {} octets of mail, {took:?}, {} KiB",
            message.len(),
            grown / 1024
        );
        assert!(
            matches!(findings.as_slice(), [finding] if matches!(finding.cause, Cause::Unseen(why) if why != Unseen::Corrupt)),
            "{what}: {findings:?}"
        );
        assert!(took < TIME_MAX, "{what}: {took:?}");
        assert!(grown < GROWTH_MAX, "{what}: {} KiB", grown / 1024);
    }
}

//! SPF (RFC 7208): may this client send for the domain of the reverse-path, or of HELO where that is empty?
//!
//! Owns the limit of void look-ups (§4.6.4), which the library does not have; the limit of ten look-ups is the library's.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI32, Ordering};

use mail_auth::common::to_a_label;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{Parameters, ResolverCache, SpfOutput, SpfResult};
use tokio::time::Instant;

use super::dns::Dns;
use super::score::Symbol;

/// Names without records that one evaluation may ask for (RFC 7208 §4.6.4).
const VOID_LOOKUPS_MAX: i32 = 2;

/// Who says that it sends, as SPF wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) client: IpAddr,
    pub(crate) helo: &'a str,
    /// Empty: the null reverse-path.
    pub(crate) mail_from: &'a str,
    /// Of the host that asks.
    pub(crate) host: &'a str,
}

impl Sender<'_> {
    /// Whose record counts.
    pub(crate) fn domain(&self) -> &str {
        let domain = self.mail_from.rsplit_once('@');
        domain.map_or(self.helo, |(_, domain)| domain)
    }
}

/// The result, `None` for what is not asked: address literals have no records.
pub(crate) async fn check(dns: &Dns, sender: Sender<'_>, until: Instant) -> SpfOutput {
    let domain = to_a_label(sender.domain());
    let nothing = SpfOutput::new(domain.to_string());
    if domain.starts_with('[') {
        return nothing;
    }
    let (helo, host) = (sender.helo, sender.host);
    let local = sender.mail_from.rsplit_once('@').map(|(local, _)| local);
    let full = local.map(|local| format!("{local}@{domain}"));
    let parameters = match &full {
        Some(full) => SpfParameters::verify_mail_from(sender.client, helo, host, full),
        None => SpfParameters::verify_ehlo(sender.client, &domain, host),
    };
    let voids = Voids::default();
    let (own, other) = (voids.family(1), voids.family(-1));
    let (v4, v6) = match sender.client {
        IpAddr::V4(_) => (&own, &other),
        IpAddr::V6(_) => (&other, &own),
    };
    let parameters = Parameters::new(parameters)
        .with_mx_cache(&own)
        .with_ptr_cache(&own)
        .with_ipv4_cache(v4)
        .with_ipv6_cache(v6);
    let asked = dns.check(until, Box::pin(dns.resolver().verify_spf(parameters)));
    match asked.await {
        Err(_) => nothing.with_result(SpfResult::TempError),
        Ok(output) if voids.count() > VOID_LOOKUPS_MAX => {
            SpfOutput::new(output.domain().to_owned()).with_result(SpfResult::PermError)
        }
        Ok(output) => output,
    }
}

/// As RFC 8601 §2.7.2 has it, and as we do.
pub(crate) fn words(result: SpfResult) -> (&'static str, Symbol) {
    match result {
        SpfResult::Pass => ("pass", Symbol::SpfPass),
        SpfResult::Fail => ("fail", Symbol::SpfFail),
        SpfResult::SoftFail => ("softfail", Symbol::SpfSoftFail),
        SpfResult::Neutral => ("neutral", Symbol::SpfNeutral),
        SpfResult::TempError => ("temperror", Symbol::SpfTempError),
        SpfResult::PermError => ("permerror", Symbol::SpfPermError),
        SpfResult::None => ("none", Symbol::SpfNone),
    }
}

/// Counts look-ups that find nothing, from the place of a cache that never has anything: the library asks the cache before each look-up, and
/// hands it what it found. `exists` asks the caches of both families and hands over nothing, so it is not counted: the other family takes back
/// what its own counted. Ten `exists` are the most there can be.
#[derive(Debug, Default)]
struct Voids(AtomicI32);

impl Voids {
    fn family(&self, step: i32) -> Family<'_> {
        Family { voids: self, step }
    }

    fn count(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Family<'a> {
    voids: &'a Voids,
    step: i32,
}

impl<K, V> ResolverCache<K, V> for Family<'_> {
    fn get<Q>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.voids.0.fetch_add(self.step, Ordering::Relaxed);
        None
    }

    fn remove<Q>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: K, _: V, _: std::time::Instant) {
        self.voids.0.fetch_sub(self.step, Ordering::Relaxed);
    }
}

//! Durations, quantities and networks as people write them: `30s`, `30Mi`, `10.0.0.0/8`.

use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A duration: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// A number of octets: a whole number, optionally with `k M G T` (powers of 1,000) or
/// `Ki Mi Gi Ti` (powers of 1,024), as in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub u64);

/// A network in CIDR notation, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub IpNet);

/// An amount of a resource as Kubernetes writes it: `500m`, `2`, `1.5`, `256Mi`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceAmount(String);

/// Suffixes of a [`ResourceAmount`].
const AMOUNT_UNITS: [&str; 16] = [
    "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
];
/// Longest [`ResourceAmount`] in octets.
const AMOUNT_OCTETS_MAX: usize = 32;

const QUANTITY_UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Splits `30Mi` into its number and unit and multiplies; `None` if it is not one.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

// === impl HumanDuration ===

impl HumanDuration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, &DURATION_UNITS)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a duration; write a whole number and ms, s, m or h, as in 30s"
                )
            })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1_000) {
            write!(f, "{}s", ms / 1_000)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

// === impl Quantity ===

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, &QUANTITY_UNITS).map(Self).ok_or_else(|| {
            format!("`{text}` is not a number of octets; write a whole number, as in 512Ki or 30Mi")
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

// === impl ResourceAmount ===

impl ResourceAmount {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceAmount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.strip_prefix(number).unwrap_or_default();
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let is_number = match number.split_once('.') {
            Some((whole, fraction)) => digits(whole) && digits(fraction),
            None => digits(number),
        };
        if is_number && AMOUNT_UNITS.contains(&unit) && text.len() <= AMOUNT_OCTETS_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is not an amount of a resource; write 500m or 2 for CPU, 256Mi for memory"
        ))
    }
}

impl fmt::Display for ResourceAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Network ===

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let net: IpNet = text.parse().map_err(|_| {
            format!("`{text}` is not a network; write CIDR notation, as in 192.0.2.0/24")
        })?;
        if net.trunc() == net {
            Ok(Self(net))
        } else {
            Err(format!(
                "`{text}` has bits set after its prefix; write {}",
                net.trunc()
            ))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === serde ===

struct TextVisitor<T> {
    expecting: &'static str,
    marker: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of octets, as in 512Ki or 30Mi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, octets: u64) -> Result<Quantity, E> {
        Ok(Quantity(octets))
    }

    fn visit_i64<E: de::Error>(self, octets: i64) -> Result<Quantity, E> {
        u64::try_from(octets)
            .map(Quantity)
            .map_err(|_| E::custom(format!("{octets} octets are fewer than none")))
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = ResourceAmount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of a resource, as in 500m or 256Mi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ResourceAmount, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, whole: u64) -> Result<ResourceAmount, E> {
        Ok(ResourceAmount(whole.to_string()))
    }

    fn visit_i64<E: de::Error>(self, whole: i64) -> Result<ResourceAmount, E> {
        whole.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<ResourceAmount, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for ResourceAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl Serialize for ResourceAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "a duration, as in 500ms, 30s or 5m";
        deserializer.deserialize_str(TextVisitor {
            expecting,
            marker: std::marker::PhantomData::<Self>,
        })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "a network, as in 192.0.2.0/24";
        deserializer.deserialize_str(TextVisitor {
            expecting,
            marker: std::marker::PhantomData::<Self>,
        })
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        let parsed = |text: &str| text.parse::<HumanDuration>().map(|d| d.0.as_millis());
        assert_eq!(parsed("500ms"), Ok(500));
        assert_eq!(parsed("30s"), Ok(30_000));
        assert_eq!(parsed("5m"), Ok(300_000));
        for wrong in [
            "",
            "s",
            "30",
            "-1s",
            "1.5s",
            "30 s",
            "99999999999999999999s",
            "30sec",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantities_know_both_families_of_units() {
        let parsed = |text: &str| text.parse::<Quantity>().map(|q| q.0);
        assert_eq!(parsed("30Mi"), Ok(30 << 20));
        assert_eq!(parsed("30M"), Ok(30_000_000));
        assert_eq!(parsed("7"), Ok(7));
        for wrong in ["", "Mi", "30MB", "1e3", "18446744073709551615Ki"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_of_resources_are_kept_as_written() {
        for right in ["500m", "2", "1.5", "256Mi", "1G", "0"] {
            assert_eq!(right.parse::<ResourceAmount>().unwrap().as_str(), right);
        }
        for wrong in ["", "Mi", "-1", "1.", ".5", "1 Gi", "1GB", "ten", "1e3"] {
            assert!(wrong.parse::<ResourceAmount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_the_right_one() {
        let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert!(error.ends_with("write 10.0.0.0/8"), "{error}");
        assert_eq!(
            "2001:db8::1".parse::<Network>().unwrap().to_string(),
            "2001:db8::1/128"
        );
    }
}

//! Figures of this process from `/proc/self`, read when metrics are asked for.
//!
//! Where `/proc` is missing or looks different, the figure is left out.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks per second in `/proc/*/stat`: `USER_HZ`, fixed at 100 in Linux's interface to user space.
const TICKS_PER_SECOND: u32 = 100;

/// Shows `process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

// === impl ProcessCollector ===

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            let gauge = ConstGauge::new(bytes);
            let help = "Memory in RAM";
            gauge.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                help,
                None,
                gauge.metric_type(),
            )?)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "CPU time, user and system";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        if let Some(files) = open_files() {
            let gauge = ConstGauge::new(files);
            let help = "Open file descriptors";
            gauge.encode(encoder.encode_descriptor(
                "process_open_fds",
                help,
                None,
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<i64> {
    resident_from_status(&fs::read_to_string("/proc/self/status").ok()?)
}

fn cpu_seconds() -> Option<f64> {
    cpu_from_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

fn resident_from_status(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Fields 14 and 15 of proc(5) `stat`; counted after the name, which may hold spaces and parentheses.
fn cpu_from_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / f64::from(TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_formats() {
        let status = "Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_from_status(status), Some(2_097_152));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 1";
        assert_eq!(cpu_from_stat(stat), Some(2.0));
    }

    #[test]
    fn foreign_formats_give_nothing() {
        assert_eq!(resident_from_status("VmSize: 1 kB"), None);
        assert_eq!(cpu_from_stat("7 (x) S 1 2"), None);
        assert_eq!(cpu_from_stat(""), None);
    }
}

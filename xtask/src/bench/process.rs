//! CPU and memory of processes, from /proc.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};

/// Clock ticks a second; fixed at 100 for user space on every Linux architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Of children that ended and were waited for.
    children_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces; the fields begin after the last bracket.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        own_ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
    })
}

/// `root` and everything below it.
fn tree(root: u32) -> Vec<(u32, Stat)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: HashMap<u32, Stat> = pids
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
        .collect();
    let below = |pid: &u32| {
        let mut at = *pid;
        while at != root {
            match all.get(&at) {
                Some(stat) if stat.parent != 0 => at = stat.parent,
                _ => return false,
            }
        }
        true
    };
    let members: Vec<u32> = all.keys().copied().filter(below).collect();
    let mut all = all;
    members
        .into_iter()
        .filter_map(|pid| Some((pid, all.remove(&pid)?)))
        .collect()
}

/// CPU seconds of a process, its living descendants, and those that have ended.
#[allow(clippy::cast_precision_loss, reason = "ticks far below 2^52")]
pub(crate) fn cpu_seconds(root: u32) -> Result<f64> {
    let tree = tree(root);
    tree.iter()
        .find(|(pid, _)| *pid == root)
        .with_context(|| format!("process {root} is gone"))?;
    let ticks: u64 = tree
        .iter()
        .map(|(_, stat)| stat.own_ticks + stat.children_ticks)
        .sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Sum of the peak resident sets of a process and its living descendants, in octets. Shared pages count once a process.
pub(crate) fn peak_rss_octets(root: u32) -> u64 {
    tree(root).iter().filter_map(|(pid, _)| peak(*pid)).sum()
}

fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

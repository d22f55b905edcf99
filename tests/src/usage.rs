//! What a process uses: memory, CPU time, descriptors.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::cgroup;

/// Resident memory in bytes (VmRSS).
///
/// # Errors
/// The process is gone.
pub fn rss(pid: i32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory so far in bytes (VmHWM), or since [`reset_peak`].
///
/// # Errors
/// The process is gone.
pub fn peak_rss(pid: i32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// Begins the measurement of [`peak_rss`] again (proc_pid_clear_refs(5), value 5).
///
/// # Errors
/// The process is gone.
pub fn reset_peak(pid: i32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("process {pid}"))
}

/// CPU time so far, in user and kernel mode, of all its threads. In steps of 10 ms.
///
/// # Errors
/// The process is gone.
pub fn cpu(pid: i32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid}"))?;
    // The name in parentheses may contain anything; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let rate = sysconf(SysconfVar::CLK_TCK)?.and_then(|rate| u64::try_from(rate).ok());
    Ok(Duration::from_millis(ticks * 1000 / rate.unwrap_or(100)))
}

/// CPU time so far, in user and kernel mode, of all processes that are or were in this process's
/// cgroup (v2) and below: `usage_usec` of cpu.stat, which counts microseconds and loses no process
/// that has ended.
///
/// # Errors
/// The process is gone, or no cgroup v2 is mounted.
pub fn cpu_of_cgroup(pid: i32) -> Result<Duration> {
    let file = cgroup::of(pid)?.join("cpu.stat");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let usage = usage.and_then(|usage| usage.parse().ok());
    Ok(Duration::from_micros(usage.with_context(|| format!("no usage in {}", file.display()))?))
}

/// Resident memory in bytes of all processes in this process's cgroup (v2) and below.
///
/// # Errors
/// As [`cpu_of_cgroup`].
pub fn rss_of_cgroup(pid: i32) -> Result<u64> {
    // One that ends meanwhile has no memory.
    Ok(cgroup::pids(&cgroup::of(pid)?).into_iter().filter_map(|pid| rss(pid).ok()).sum())
}

/// Memory in bytes that all processes in this process's cgroup (v2) and below take: what is their
/// own (RssAnon, RssShmem), and the pages of files (the program itself above all) of the one that
/// has most of them, since processes of one program share these.
///
/// # Errors
/// As [`cpu_of_cgroup`].
pub fn memory_of_cgroup(pid: i32) -> Result<u64> {
    let (mut own, mut files) = (0, 0);
    for pid in cgroup::pids(&cgroup::of(pid)?) {
        // One that ends meanwhile has no memory.
        let part = |field| status(pid, field).unwrap_or_default();
        own += part("RssAnon:") + part("RssShmem:");
        files = files.max(part("RssFile:"));
    }
    Ok(own + files)
}

/// The most resident memory of each process in this process's cgroup (v2), summed up.
///
/// # Errors
/// As [`cpu_of_cgroup`].
pub fn peak_rss_of_cgroup(pid: i32) -> Result<u64> {
    Ok(cgroup::pids(&cgroup::of(pid)?).into_iter().filter_map(|pid| peak_rss(pid).ok()).sum())
}

/// Begins the measurement of [`peak_rss_of_cgroup`] again.
///
/// # Errors
/// As [`cpu_of_cgroup`].
pub fn reset_peak_of_cgroup(pid: i32) -> Result<()> {
    cgroup::pids(&cgroup::of(pid)?).into_iter().try_for_each(reset_peak)
}

/// How many descriptors it has open.
///
/// # Errors
/// The process is gone.
pub fn descriptors(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("process {pid}"))?.count())
}

fn status(pid: i32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 =
        kib.and_then(|kib| kib.parse().ok()).with_context(|| format!("{field} {path}"))?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_of_this_process_grow() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = (rss(pid).unwrap(), cpu(pid).unwrap());
        let mut held = vec![0_u8; 64 << 20];
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            held.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        assert!(rss(pid).unwrap() >= before.0 + (60 << 20));
        assert!(peak_rss(pid).unwrap() >= rss(pid).unwrap());
        let used = cpu(pid).unwrap() - before.1;
        assert!(used >= Duration::from_millis(20) && used <= Duration::from_secs(5), "{used:?}");
        assert!(descriptors(pid).unwrap() >= 3);
        drop(held);
    }
}

//! Figures of the process from the operating system, under the names that Prometheus client libraries use.

use super::exposition::Exposition;

/// Adds what can be read; on systems without `/proc` nothing.
pub fn collect(out: &mut Exposition) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    // The second field is the name in parentheses and may hold spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, r)| r)
        .split_whitespace()
        .collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, fixed by the Linux ABI
    const PAGE_BYTES: f64 = 4096.0;
    let started = field(19) / TICKS_PER_SECOND;
    out.labelled(
        "process_cpu_seconds_total",
        trilith_model::MetricType::Counter,
        "Total user and system CPU time spent in seconds.",
        [(vec![], (field(11) + field(12)) / TICKS_PER_SECOND)],
    );
    out.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        field(21) * PAGE_BYTES,
    );
    out.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        field(20),
    );
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        out.gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            fds.count() as f64,
        );
    }
    if let Some(boot) = boot_time() {
        out.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot + started,
        );
    }
}

fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
}

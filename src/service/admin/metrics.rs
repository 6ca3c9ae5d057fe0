//! Metrics as text: the format of Prometheus, version 0.0.4, or OpenMetrics 1.0.0. `docs/monitoring.md` lists them all.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::process::Facts;
use super::request::Format;
use super::response::Status;
use crate::server::{ErrnoName, Reason, Stage, Statistics, TurnTimes};

/// The source of the metrics.
pub(super) struct Sources<'a> {
    pub(super) statistics: &'a Statistics,
    /// Answers of the endpoint, by status.
    pub(super) responses: &'a [u64; Status::ALL.len()],
    /// None without proc(5).
    pub(super) process: Option<Facts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Returns all metrics.
pub(super) fn render(format: Format, sources: &Sources<'_>) -> String {
    let mut page = Page { format, name: "", text: String::with_capacity(8 * 1024) };
    service(&mut page, sources.statistics);
    page.family("edgecho_admin_responses", Kind::Counter, "", "Answers of this endpoint, by status code.");
    for (&status, &count) in Status::ALL.iter().zip(sources.responses) {
        page.sample("_total", &[("code", &status.line().0)], count);
    }
    if let Some(facts) = sources.process {
        process(&mut page, facts);
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn service(page: &mut Page, statistics: &Statistics) {
    page.family("edgecho_build", Kind::Info, "", "The version of edgecho.");
    page.sample("_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("edgecho_stage", Kind::Gauge, "", "1 for the stage of the server: serving, or a stage of the drain.");
    for stage in Stage::ALL {
        page.sample("", &[("stage", &stage.name())], u8::from(*stage == statistics.stage));
    }
    page.gauge(
        "edgecho_connections_open",
        "",
        "Open connections, without connections that wait for a PROXY header.",
        statistics.open,
    );
    page.counter(
        "edgecho_connections_accepted",
        "",
        "Accepted connections, without connections that wait for a PROXY header.",
        statistics.accepted,
    );
    page.family("edgecho_connections_closed", Kind::Counter, "", "Closed connections, by reason.");
    for &reason in Reason::ALL {
        page.sample("_total", &[("reason", &reason.name())], statistics.closed_for(reason));
    }
    page.family("edgecho_proxy_headers", Kind::Counter, "", "Good headers of the PROXY protocol: v1, v2, or v2 with LOCAL.");
    for (kind, count) in [("v1", statistics.proxy_v1), ("v2", statistics.proxy_v2), ("local", statistics.proxy_local)] {
        page.sample("_total", &[("kind", &kind)], count);
    }
    page.gauge("edgecho_proxy_waiting", "", "Connections that wait for a PROXY header.", statistics.proxy_waiting);
    page.family("edgecho_accept_errors", Kind::Counter, "", "Errors of accept4(2), by errno.");
    // An alert on an increase sees the first error only if there was a 0 before.
    let usual = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].map(|errno| (errno, 0));
    let mut accept_errors = BTreeMap::from(usual);
    accept_errors.extend(&statistics.accept_errors);
    for (errno, count) in accept_errors {
        page.sample("_total", &[("errno", &ErrnoName(errno))], count);
    }
    page.counter("edgecho_received_bytes", "bytes", "Bytes read from peers.", statistics.received_bytes);
    page.counter("edgecho_sent_bytes", "bytes", "Bytes that the kernel has taken for peers.", statistics.sent_bytes);
    page.gauge("edgecho_pending_bytes", "bytes", "Bytes in memory for all connections together.", statistics.pending_bytes);
    page.gauge(
        "edgecho_pending_peak_bytes",
        "bytes",
        "The highest value of edgecho_pending_bytes since the start.",
        statistics.most_pending_bytes,
    );
    page.counter(
        "edgecho_skipped_messages",
        "",
        "Statuses, heartbeats and messages of other connections that were not sent because the outbox limit was reached.",
        statistics.skipped,
    );
    page.counter("edgecho_events", "", "Events that epoll has reported.", statistics.events);
    page.counter("edgecho_turns", "", "Turns of the event loop.", statistics.turns);
    if let Some(times) = &statistics.turn_times {
        turn_times(page, times);
    }
    let longest = statistics.longest_turn.as_secs_f64();
    page.gauge("edgecho_turn_longest_seconds", "seconds", "The longest turn of the event loop since the start.", longest);
}

fn turn_times(page: &mut Page, times: &TurnTimes) {
    let help = "Time of a turn of the event loop, without the wait for events.";
    page.family("edgecho_turn_duration_seconds", Kind::Histogram, "seconds", help);
    let mut count = 0;
    for (bound, in_bucket) in TurnTimes::BOUNDS.iter().zip(times.counts()) {
        count += in_bucket;
        page.sample("_bucket", &[("le", &Float(bound.as_secs_f64()))], count);
    }
    let all: u64 = times.counts().iter().sum();
    page.sample("_bucket", &[("le", &"+Inf")], all);
    page.sample("_sum", &[], times.sum().as_secs_f64());
    page.sample("_count", &[], all);
}

fn process(page: &mut Page, facts: Facts) {
    page.counter(
        "process_cpu_seconds",
        "seconds",
        "CPU time of the process, in user space and in the kernel.",
        facts.cpu_seconds,
    );
    page.gauge("process_start_time_seconds", "seconds", "Start of the process, since 1970 (UTC).", facts.start_time_seconds);
    page.gauge("process_resident_memory_bytes", "bytes", "Resident memory of the process.", facts.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "bytes", "Address space of the process.", facts.virtual_bytes);
    if let Some(count) = facts.open_fds {
        page.gauge(
            "process_open_fds",
            "",
            "Open descriptors of the process, without the descriptors of this endpoint.",
            count,
        );
    }
    if let Some(limit) = facts.max_fds {
        page.gauge("process_max_fds", "", "The limit on open descriptors.", limit);
    }
}

/// A number with a decimal point, as OpenMetrics wants a bound.
struct Float(f64);

impl Display for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.fract() == 0.0 { write!(f, "{:.1}", self.0) } else { write!(f, "{}", self.0) }
    }
}

struct Page {
    format: Format,
    /// The family of the samples that follow.
    name: &'static str,
    text: String,
}

impl Page {
    /// Begins a family of metrics. Its name has neither `_total` nor `_info`.
    fn family(&mut self, name: &'static str, kind: Kind, unit: &str, help: &str) {
        let is_open = self.format == Format::OpenMetrics;
        let (suffix, kind) = match kind {
            Kind::Counter if is_open => ("", "counter"),
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
            Kind::Info if is_open => ("", "info"),
            Kind::Info => ("_info", "gauge"),
        };
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP {name}{suffix} {help}"); // a string takes everything
        let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        if is_open && !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        self.name = name;
    }

    /// Adds a sample to the family. No value of a label needs an escape.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let text = &mut self.text;
        let _ = write!(text, "{}{suffix}", self.name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn counter(&mut self, name: &'static str, unit: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, unit, help);
        self.sample("_total", &[], value);
    }

    fn gauge(&mut self, name: &'static str, unit: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, unit, help);
        self.sample("", &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(format: Format) -> String {
        let mut statistics = Statistics::default();
        (statistics.received_bytes, statistics.turn_times) = (7, Some(Box::default()));
        statistics.accept_errors.extend([(libc::EMFILE, 2), (524, 1), (525, 1)]); // the last two have no names
        let process = Some(Facts { open_fds: Some(9), max_fds: Some(1024), ..Facts::default() });
        render(format, &Sources { statistics: &statistics, responses: &[0; Status::ALL.len()], process })
    }

    #[test]
    fn the_two_formats_differ_in_comments_and_in_nothing_else() {
        let samples =
            |format| all(format).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(Format::Text), samples(Format::OpenMetrics));
        let (text, open) = (all(Format::Text), all(Format::OpenMetrics));
        assert!(text.contains("# TYPE edgecho_received_bytes_total counter\nedgecho_received_bytes_total 7\n"), "{text}");
        assert!(open.contains("# TYPE edgecho_received_bytes counter\n# UNIT edgecho_received_bytes bytes\n"), "{open}");
        assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"));
        assert!(text.contains("edgecho_accept_errors_total{errno=\"EMFILE\"} 2\n"), "{text}");
        assert!(text.contains("edgecho_accept_errors_total{errno=\"ENFILE\"} 0\n"), "{text}");
        assert!(text.contains("edgecho_stage{stage=\"serving\"} 1\nedgecho_stage{stage=\"leaving\"} 0\n"), "{text}");
        assert!(text.contains("_bucket{le=\"0.00001\"} 0\n") && text.contains("_bucket{le=\"1.0\"} 0\n"), "{text}");
    }

    #[test]
    fn no_sample_comes_twice() {
        let text = all(Format::Text);
        let mut names: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
        names.retain(|name| !name.starts_with('#'));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{text}");
        assert!(text.contains("{errno=\"524\"} 1\n"), "{text}");
    }

    #[test]
    fn the_page_of_the_documentation_lists_every_metric_with_its_type_and_no_other() {
        let mut documented: Vec<String> = Vec::new();
        for row in include_str!("../../../docs/monitoring.md")
            .lines()
            .filter(|line| line.starts_with("| `edgecho_") || line.starts_with("| `process_"))
        {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap_or_default().trim_matches('`').split('{').next().unwrap_or_default();
            documented.push(format!("# TYPE {name} {}", cells.next().unwrap_or_default()));
        }
        let text = all(Format::Text);
        let mut real: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        real.sort_unstable();
        documented.sort_unstable();
        assert_eq!(real, documented);
    }
}

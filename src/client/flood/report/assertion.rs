//! Assertions about the outcome of a flood, such as `p99<5ms` or `loss==0`.

use std::fmt;
use std::str::FromStr;

use crate::client::flood::outcome::Outcome;

/// A figure of the outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// The latency at a quantile, in nanoseconds.
    Quantile(f64),
    Min,
    Mean,
    Max,
    /// The time of connect(2) at a quantile, in nanoseconds.
    Connect(f64),
    /// The number of lost messages; this and the next six are counts.
    Loss,
    Corrupt,
    Late,
    Failed,
    EndedByPeer,
    Unsent,
    Errors,
    /// Messages per second.
    Rate,
    /// Connections per second.
    Churn,
    /// Bytes per second.
    Throughput,
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Nanoseconds,
    Count,
    BytesPerSecond,
}

impl Metric {
    fn read(name: &str) -> Option<Self> {
        let quantile = |digits: &str| {
            let percent: f64 = digits.parse().ok()?;
            (digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && percent <= 100.0).then_some(percent / 100.0)
        };
        Some(match name {
            "min" => Self::Min,
            "mean" => Self::Mean,
            "max" => Self::Max,
            "loss" => Self::Loss,
            "corrupt" => Self::Corrupt,
            "late" => Self::Late,
            "failed" => Self::Failed,
            "ended" => Self::EndedByPeer,
            "unsent" => Self::Unsent,
            "errors" => Self::Errors,
            "rate" => Self::Rate,
            "churn" => Self::Churn,
            "throughput" => Self::Throughput,
            _ => match name.strip_prefix("connect-p") {
                Some(digits) => Self::Connect(quantile(digits)?),
                None => Self::Quantile(quantile(name.strip_prefix('p')?)?),
            },
        })
    }

    fn unit(self) -> Unit {
        match self {
            Self::Quantile(_) | Self::Min | Self::Mean | Self::Max | Self::Connect(_) => Unit::Nanoseconds,
            Self::Throughput => Unit::BytesPerSecond,
            _ => Unit::Count,
        }
    }

    /// Returns the value; `None` for a latency if nothing came back.
    fn of(self, outcome: &Outcome) -> Option<f64> {
        let counts = &outcome.counts;
        let latency = Some(&outcome.latency).filter(|latency| !latency.is_empty());
        Some(match self {
            Self::Quantile(quantile) => latency?.value_at_quantile(quantile) as f64,
            Self::Min => latency?.min() as f64,
            Self::Mean => latency?.mean(),
            Self::Max => latency?.max() as f64,
            Self::Connect(quantile) => {
                Some(&outcome.connect).filter(|times| !times.is_empty())?.value_at_quantile(quantile) as f64
            }
            Self::Loss => counts.lost as f64,
            Self::Corrupt => counts.corrupt as f64,
            Self::Late => counts.late as f64,
            Self::Failed => counts.failed as f64,
            Self::EndedByPeer => counts.ended_by_peer as f64,
            Self::Unsent => counts.unsent as f64,
            Self::Errors => (counts.lost + counts.corrupt + counts.failed + counts.ended_by_peer) as f64,
            Self::Rate => outcome.messages_per_second(),
            Self::Churn => outcome.connections_per_second(),
            Self::Throughput => outcome.bytes_per_second(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::GreaterOrEqual => left >= right,
            Self::Greater => left > right,
        }
    }
}

/// A condition on the outcome of a flood, read from `METRIC OPERATOR VALUE`.
///
/// ```
/// use edgecho::client::flood::report::Assertion;
///
/// let assertion: Assertion = "p99.9 < 5ms".parse()?;
/// assert!("p99 < 5".parse::<Assertion>().is_err(), "5 of what?");
/// # let _ = assertion;
/// # Ok::<(), edgecho::client::flood::report::AssertionError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    text: String,
    metric: Metric,
    comparison: Comparison,
    bound: f64,
}

/// The reason why a text is no assertion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AssertionError(String);

/// The verdict on an assertion.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The assertion as it was written.
    pub text: String,
    /// The assertion holds. One about a latency does not if nothing came back.
    pub holds: bool,
    /// The value with its unit.
    pub value: String,
}

impl Assertion {
    /// Returns whether the assertion is about `metric`: `ended`, `failed` or `unsent`. A single case then is not a failure by itself.
    /// `errors` counts `ended` and `failed`.
    #[must_use]
    pub fn bounds(&self, metric: &str) -> bool {
        match self.metric {
            Metric::Errors => matches!(metric, "ended" | "failed"),
            own => Metric::read(metric) == Some(own),
        }
    }

    /// Checks the assertion against an outcome.
    #[must_use]
    pub fn check(&self, outcome: &Outcome) -> Verdict {
        let value = self.metric.of(outcome);
        Verdict {
            text: self.text.clone(),
            holds: value.is_some_and(|value| self.comparison.holds(value, self.bound)),
            value: match (value, self.metric.unit()) {
                (None, _) => "not measured, as nothing came back".to_owned(),
                (Some(value), Unit::Nanoseconds) => format!("{:.3} ms", value / 1e6),
                (Some(value), Unit::BytesPerSecond) => format!("{:.1} MB/s", value / 1e6),
                (Some(value), Unit::Count) if value.fract() == 0.0 => format!("{value}"),
                (Some(value), Unit::Count) => format!("{value:.1}"),
            },
        }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Assertion {
    type Err = AssertionError;

    /// Reads `METRIC OPERATOR VALUE`.
    fn from_str(text: &str) -> Result<Self, AssertionError> {
        const OPERATORS: [(&str, Comparison); 7] = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
            ("=", Comparison::Equal),
        ];
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| {
            AssertionError("expected METRIC OPERATOR VALUE, such as 'p99<5ms', 'loss==0' or 'rate>=100000'".to_owned())
        })?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let metric = Metric::read(name).ok_or_else(|| {
            AssertionError(format!(
                "'{name}' is not a metric; the metrics are p50, p99.9 and the like, min, mean, max, connect-p99, loss, corrupt, late, failed, \
                 ended, unsent, errors, rate, churn and throughput"
            ))
        })?;
        let found = OPERATORS.iter().find_map(|&(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?.trim())));
        let (comparison, value) =
            found.ok_or_else(|| AssertionError("expected one of < <= == != >= > after the metric".to_owned()))?;
        let wrong = |expected: &str| AssertionError(format!("'{value}' is not a value of {name}; expected {expected}"));
        let bound = match metric.unit() {
            Unit::Nanoseconds => {
                humantime::parse_duration(value).map_err(|_| wrong("a duration such as 5ms"))?.as_nanos() as f64
            }
            Unit::Count => value.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| wrong("a number"))?,
            Unit::BytesPerSecond => {
                let size: bytesize::ByteSize = value.parse().map_err(|_| wrong("bytes per second, such as 100MB"))?;
                size.as_u64() as f64
            }
        };
        Ok(Self { text: text.to_owned(), metric, comparison, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn metrics_operators_and_units_are_read() {
        for (text, metric, comparison, bound) in [
            ("p99<5ms", Metric::Quantile(0.99), Comparison::Less, 5e6),
            ("p99.9 <= 1s", Metric::Quantile(99.9 / 100.0), Comparison::LessOrEqual, 1e9),
            ("connect-p50 > 10us", Metric::Connect(0.5), Comparison::Greater, 1e4),
            ("loss==0", Metric::Loss, Comparison::Equal, 0.0),
            ("rate>=100000", Metric::Rate, Comparison::GreaterOrEqual, 1e5),
            ("throughput>100MB", Metric::Throughput, Comparison::Greater, 1e8),
            ("errors != 3", Metric::Errors, Comparison::NotEqual, 3.0),
        ] {
            let assertion: Assertion = text.parse().expect(text);
            assert_eq!((assertion.metric, assertion.comparison, assertion.bound), (metric, comparison, bound), "{text}");
        }
    }

    #[test]
    fn an_assertion_bounds_what_it_asks_about() {
        let bounds = |text: &str, metric| text.parse::<Assertion>().expect(text).bounds(metric);
        assert!(bounds("ended<5", "ended") && bounds("errors<5", "ended") && bounds("errors<5", "failed"));
        assert!(!bounds("ended<5", "failed") && !bounds("errors<5", "unsent") && !bounds("p99<5ms", "ended"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (text, word) in [
            ("p99", "METRIC OPERATOR VALUE"),
            ("speed>1", "not a metric"),
            ("p101<1ms", "not a metric"),
            ("p99<5", "a duration such as"),
            ("loss==none", "a number"),
            ("rate>NaN", "a number"),
            ("loss!0", "one of"),
        ] {
            let error = text.parse::<Assertion>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(p|loss|rate|max|\\PC{0,5})[0-9.]{0,5}[<>=!]{0,3}\\PC{0,8}") {
            let _ = text.parse::<Assertion>();
        }
    }
}

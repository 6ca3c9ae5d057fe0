//! The metrics of the admin endpoint, read by Prometheus itself.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::scratch::Scratch;
use crate::support::client::free_address;
use crate::support::http::{Answer, exchange, get};
use crate::support::{Process, Program, edgecho, eventually, run, skip, wait_until};
use crate::tools::tool;

/// The page of the documentation.
const PAGE: &str = include_str!("../../docs/monitoring.md");

/// Returns the text of the blocks of YAML on the page that begin with a word.
fn yaml(first: &str) -> String {
    let blocks = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with(first)).collect()
}

/// Runs a checker, such as promtool, with an input. Returns its status and all that it prints.
fn promtool(path: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(path);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the checker starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics_and_accepts_the_rules_of_the_documentation() {
    let Some(path) = tool("promtool", "promtool") else { return };
    let (server, admin) = Process::with_admin(&[]);
    let metrics = get(admin, "/metrics").body;
    assert_eq!(promtool(&path, &["check", "metrics"], &metrics), (true, String::new()));
    // It does find faults.
    let (is_good, said) = promtool(&path, &["check", "metrics"], "# TYPE edgecho_things counter\nedgecho_things 1\n");
    assert!(!is_good && said.contains("_total"), "{said}");
    server.terminate();

    let folder = Scratch::new();
    let (rules, configuration) = (folder.file("rules.yml"), folder.file("prometheus.yml"));
    std::fs::write(&rules, yaml("groups:")).expect("a file");
    std::fs::write(&configuration, yaml("scrape_configs:")).expect("a file");
    for (kind, file) in [("rules", &rules), ("config", &configuration)] {
        let (is_good, said) = promtool(&path, &["check", kind, file], "");
        assert!(is_good && said.contains("SUCCESS"), "{said}");
    }
    assert!(std::fs::read_to_string(&rules).expect("a file").matches("alert:").count() >= 5);
}

#[test]
fn another_parser_reads_the_same_samples_from_both_formats() {
    const TEST: &str = "another_parser_reads_the_same_samples_from_both_formats";
    let path = Path::new("/usr/bin/python3"); // the one that Debian's packages of modules are for
    // The parsers of Prometheus's client library for Python: a page in one format from stdin, its samples to stdout.
    let script = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as text\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics\n\
        for family in {'text': text, 'openmetrics': openmetrics}[sys.argv[1]](sys.stdin.read()):\n\
        \x20for sample in family.samples: print(sample.name, sorted(sample.labels.items()), sample.value)\n";
    let parse = |format: &str, page: &str| promtool(path, &["-c", script, format], page);
    if !path.exists() || !parse("text", "").0 {
        return skip(TEST, "python3-prometheus-client is not installed");
    }
    let (server, admin) = Process::with_admin(&[]);
    let text = get(admin, "/metrics").body;
    let request = "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    let answer = Answer::read(&exchange(admin, request.as_bytes())[..], false);
    assert!(answer.head.contains("application/openmetrics-text; version=1.0.0"), "{answer:?}");
    let names = |format: &str, page: &str| {
        let (is_good, said) = parse(format, page);
        assert!(is_good, "{said}");
        // Without the value, which the requests themselves change.
        said.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    let (first, second) = (names("text", &text), names("openmetrics", &answer.body));
    assert!(first == second && first.len() > 60, "{first:?} {second:?}");
    // It does find faults.
    for fault in [answer.body.replace("# EOF\n", ""), answer.body.replace("le=\"1.0\"", "le=\"0.0\"")] {
        assert!(!parse("openmetrics", &fault).0, "{fault}");
    }
    server.terminate();
}

/// A running Prometheus that scrapes one target each second. It is killed, by its process id, when it goes out of scope.
struct Prometheus {
    program: Program,
    address: SocketAddr,
    _folder: Scratch,
}

impl Prometheus {
    fn start(path: &Path, target: SocketAddr) -> Self {
        let (folder, address) = (Scratch::new(), free_address());
        let (file, data) = (folder.file("prometheus.yml"), folder.file("data"));
        let job = format!("{{job_name: edgecho, static_configs: [{{targets: ['{target}']}}]}}");
        let text = format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs: [{job}]\n");
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(path);
        command.args([
            format!("--config.file={file}"),
            format!("--storage.tsdb.path={data}"),
            format!("--web.listen-address={address}"),
            "--log.level=warn".to_owned(),
        ]);
        let mut program = Program::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_until("Prometheus is ready", || {
            assert!(program.status().is_none(), "Prometheus has ended");
            TcpStream::connect(address).is_ok() && get(address, "/-/ready").status == 200
        });
        Self { program, address, _folder: folder }
    }

    /// Returns the data of a call of the HTTP API.
    fn ask(&self, path: &str) -> Value {
        let answer = get(self.address, &format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        answer["data"].clone()
    }

    /// Returns the value of an expression that has one, and that has no character to be escaped but these.
    fn value(&self, expression: &str) -> Option<f64> {
        let escaped =
            expression.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace('[', "%5B").replace(']', "%5D");
        self.ask(&format!("query?query={escaped}"))["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

#[test]
fn the_counters_that_prometheus_scrapes_during_a_flood_equal_the_floods_bytes_and_connections() {
    let Some(path) = tool("prometheus", "prometheus") else { return };
    let (server, admin) = Process::with_admin(&[]);
    let prometheus = Prometheus::start(&path, admin);
    wait_until("the first scrape", || prometheus.value("up").is_some_and(|up| up == 1.0));
    let target = server.address.to_string();
    // Two loads, one after the other: long messages of all sizes, and short connections. Flood itself counts what it sends.
    let (mut bytes, mut connections) = (0, 0);
    for load in [["-c", "20", "-d", "4s", "-s", "10B-20KiB"].as_slice(), &["-c", "5", "-n", "500", "--churn"]] {
        let (status, stdout, stderr) = run(edgecho(&["flood", &target, "--json", "-"]).args(load));
        assert!(status.success(), "{stderr}");
        let report: Value = serde_json::from_str(&stdout).expect("JSON");
        let count = |part: &str, name: &str| report[part][name].as_u64().expect("a number");
        assert_eq!(count("bytes", "received"), count("bytes", "sent"));
        bytes += count("bytes", "sent") + count("bytes", "handshakes");
        connections += count("connections", "opened");
    }
    let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    wait_until("a scrape after the flood", || {
        prometheus.value("timestamp(edgecho_received_bytes_total)").is_some_and(|at| at > end)
            && prometheus.value("edgecho_connections_open") == Some(0.0)
    });
    let value = |expression: &str| eventually("a sample", || prometheus.value(expression));
    assert_eq!(value("edgecho_received_bytes_total"), bytes as f64);
    assert_eq!(value("edgecho_sent_bytes_total"), bytes as f64);
    assert_eq!(value("edgecho_connections_accepted_total"), connections as f64);
    assert_eq!(value("edgecho_connections_closed_total{reason=\"peer\"}"), connections as f64);
    assert_eq!(value("max_over_time(edgecho_connections_open[1m])"), 20.0, "a scrape saw the first load");
    assert!(value("changes(edgecho_received_bytes_total[1m])") >= 3.0, "there were scrapes during the loads");
    // It has chosen OpenMetrics: only that has units.
    assert_eq!(prometheus.ask("metadata?metric=edgecho_received_bytes")["edgecho_received_bytes"][0]["unit"], "bytes");
    assert_eq!(prometheus.ask("targets")["activeTargets"][0]["lastError"], "");
    drop(prometheus);
    server.terminate();
}

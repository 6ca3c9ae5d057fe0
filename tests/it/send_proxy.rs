//! `--send-proxy` against a service that does not accept the PROXY protocol. `tests/host` has HAProxy.

use crate::support::{Process, edgecho, run};

const DIAGNOSIS: &str = "the far end echoed the PROXY header: it does not accept the PROXY protocol";

#[test]
fn a_plain_echo_service_that_is_sent_a_proxy_header_is_diagnosed() {
    let server = Process::rust(&[]);
    let target = server.address.to_string();
    for version in ["v1", "v2"] {
        for arguments in [
            &["ping", "-c", "1"] as &[&str],
            &["flood", "--messages", "10"],
            &["flood", "--messages", "10", "--churn"],
            &["send"],
        ] {
            let (status, stdout, stderr) = run(edgecho(arguments).args(["--send-proxy", version, &target]));
            assert_eq!(status.code(), Some(2), "{arguments:?}: {stdout}{stderr}");
            assert!(!stdout.contains("PROXY TCP4") && !stdout.contains("QUIT"), "{arguments:?}: {stdout}");
            assert!(stderr.contains(DIAGNOSIS) && stderr.contains("leave out --send-proxy"), "{arguments:?}: {stderr}");
        }
    }
}

/// Without a handshake, the header comes back in front of the first message. `flood` does not open such connections again and again.
#[test]
fn a_proxy_header_that_comes_back_without_a_handshake_is_no_mere_corruption() {
    let server = Process::rust(&[]);
    let target = server.address.to_string();
    let flood = ["flood", "--messages", "10", "--connections", "5"];
    for version in ["v1", "v2"] {
        for arguments in [&["ping", "-c", "1", "--size", "1"] as &[&str], &["ping", "-c", "1"], &flood] {
            let more = ["--no-handshake", "--send-proxy", version, &target];
            let (status, stdout, stderr) = run(edgecho(arguments).args(more));
            assert_eq!(status.code(), Some(1), "{arguments:?}: {stdout}{stderr}");
            assert!(stdout.contains(DIAGNOSIS), "{arguments:?}: {stdout}{stderr}");
        }
    }
}

#[test]
fn a_far_end_that_requires_a_header_is_diagnosed() {
    let server = Process::rust(&["--proxy-protocol", "require", "--proxy-from", "127.0.0.1"]);
    let target = server.address.to_string();
    for arguments in [&["ping", "-c", "1"] as &[&str], &["flood", "--messages", "10"]] {
        let (status, stdout, stderr) = run(edgecho(arguments).arg(&target));
        assert_eq!(status.code(), Some(2), "{arguments:?}: {stdout}{stderr}");
        assert!(
            stderr.contains("during the handshake (see --send-proxy, if the far end requires the PROXY protocol)"),
            "{stderr}"
        );
    }
}

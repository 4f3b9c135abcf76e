//! Steps against a server that does what a service may do: refuse, be slow, hang up, say too much.
use super::testing::{Certificate, Part, Server, answer};
use crate::testing::{Bench, step, try_step, with};
use serde_json::{Value as Json, json};
use std::{sync::Arc, time::Duration as StdDuration};
use windlass_engine::{
    step::{Cause, Certainty, Effect, Failure, Fidelity, Probed, Redo, UndoSupport},
    value::{Duration, SecretPart, SecretText, Value},
};

fn get(output: &Value, key: &str) -> Value {
    output.get(key).cloned().unwrap_or_default()
}

/// Text with the secret `pw` after it.
fn secret(before: &str) -> Json {
    let parts = vec![
        SecretPart::Text(before.to_owned()),
        SecretPart::Secret("pw".to_owned()),
    ];
    serde_json::to_value(Value::Secret(Arc::new(SecretText { parts }))).unwrap()
}

async fn run(bench: &Bench, params: Json) -> Result<Value, Failure> {
    bench.execute("http", with(params)).await
}

async fn fails(bench: &Bench, params: Json) -> Failure {
    run(bench, params).await.expect_err("it should fail")
}

#[tokio::test]
async fn a_request_goes_as_it_is_written() {
    let server = Server::start(answer(
        "201 Created",
        &[
            "Content-Type: application/json",
            "X-A: 1",
            "X-A: 2",
            "Set-Cookie: s=abc",
        ],
        br#"{"state": "ready", "n": 18446744073709551615}"#,
    ))
    .await;
    let bench = Bench::new("");
    let output = run(
        &bench,
        json!({
            "method": "PUT",
            "url": server.url("/a b"),
            "query": {"q": "x&y", "tag": ["1", "2"]},
            "headers": {"Authorization": secret("Bearer "), "X-Run": "7"},
            "json": {"host": "db2", "deep": [{"password": secret("")}]},
            "expect": {"status": [200, 201], "body": "json.state == 'ready' && headers['x-a'] == '1, 2'"},
        }),
    )
    .await
    .unwrap();
    let request = &server.requests()[0];
    assert!(
        request.starts_with("PUT /a%20b?q=x%26y&tag=1&tag=2 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer s3cr3t-canary\r\n"),
        "{request}"
    );
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(r#"{"host":"db2","deep":[{"password":"s3cr3t-canary"}]}"#),
        "{request}"
    );
    assert_eq!(get(&output, "status"), Value::Int(201));
    assert_eq!(
        get(&get(&output, "json"), "n").to_string(),
        "18446744073709551615"
    );
    assert_eq!(
        get(&get(&output, "headers"), "set-cookie"),
        Value::from("(not kept)")
    );
    assert_eq!(get(&output, "truncated"), Value::Bool(false));
    assert!(matches!(get(&output, "duration"), Value::Duration(_)));
    // What it writes down holds the reference and not the content.
    let marks = bench.host.marks.lock().unwrap();
    let evidence = bench.host.evidence.lock().unwrap();
    assert_eq!((marks.len(), evidence.len()), (1, 1));
    let written = format!("{marks:?} {evidence:?} {output:?}");
    assert!(!written.contains("canary"), "{written}");
    assert!(!written.contains("abc"), "a cookie is kept: {written}");
}

#[tokio::test]
async fn a_request_that_reads_marks_nothing() {
    let server = Server::start(answer("200 OK", &[], b"fine")).await;
    let bench = Bench::new("");
    let output = run(&bench, json!({"url": server.url("/"), "effect": "reads"}))
        .await
        .unwrap();
    assert_eq!(get(&output, "body"), Value::from("fine"));
    assert_eq!(get(&output, "json"), Value::Null);
    assert!(bench.host.marks.lock().unwrap().is_empty());
}

/// Nothing goes out unless the mark is durable.
#[tokio::test]
async fn a_refused_mark_sends_nothing() {
    let server = Server::start(answer("200 OK", &[], b"")).await;
    let bench = Bench::new("");
    *bench.host.on_mark.lock().unwrap() =
        Some(Box::new(|| Err(Failure::new("journal.refused", "no"))));
    let failure = fails(&bench, json!({"url": server.url("/"), "method": "POST"})).await;
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("journal.refused", Certainty::NoEffect)
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_refused_connection_did_nothing() {
    let server = Server::start(vec![]).await;
    let url = server.url("/");
    drop(server);
    // The task that held the port ends at the next turn.
    tokio::time::sleep(StdDuration::from_millis(20)).await;
    let failure = fails(&Bench::new(""), json!({"url": url, "method": "POST"})).await;
    assert_eq!(failure.code, "http.connect", "{failure:?}");
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::ConnectionLost, Certainty::NoEffect)
    );
    assert!(failure.message.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn an_unknown_host_did_nothing() {
    let failure = fails(
        &Bench::new(""),
        json!({"url": "http://no-such-host.invalid/", "method": "POST"}),
    )
    .await;
    assert_eq!(failure.code, "http.unknown_host", "{failure:?}");
    assert_eq!(failure.certainty, Certainty::NoEffect);
}

/// A listener whose queue is full takes no connection and refuses none.
#[tokio::test]
async fn a_connection_that_is_not_taken_did_nothing() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fill = Vec::new();
    for _ in 0..8 {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(StdDuration::from_millis(100), connect).await {
            Ok(stream) => fill.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let mut bench = Bench::new("");
    let url = format!("http://{address}/");
    let failure = fails(
        &bench,
        json!({"url": url, "method": "POST", "connect_timeout": "100ms"}),
    )
    .await;
    assert_eq!(failure.code, "http.connect", "{failure:?}");
    assert_eq!(failure.certainty, Certainty::NoEffect);
    // The whole time is shorter than that of a connection: it is still told which it was.
    bench.timeout = Some(Duration::from_millis(300));
    let failure = fails(&bench, json!({"url": url, "method": "POST"})).await;
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("http.connect", Certainty::NoEffect)
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_unknown() {
    let server = Server::start(vec![Part::Pause(StdDuration::from_secs(60))]).await;
    let mut bench = Bench::new("");
    bench.timeout = Some(Duration::from_millis(200));
    let failure = fails(&bench, json!({"url": server.url("/"), "method": "POST"})).await;
    assert_eq!(failure.code, "http.timeout", "{failure:?}");
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::Timeout, Certainty::Unknown)
    );
    assert_eq!(server.requests().len(), 1);
    let failure = fails(&bench, json!({"url": server.url("/"), "effect": "reads"})).await;
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::Timeout, Certainty::NoEffect)
    );
}

#[tokio::test]
async fn a_slow_body_ends_at_the_deadline_and_is_kept_so_far() {
    let mut parts = vec![Part::Bytes(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec(),
    )];
    for _ in 0..100 {
        parts.push(Part::Bytes(b"x".to_vec()));
        parts.push(Part::Pause(StdDuration::from_millis(100)));
    }
    let server = Server::start(parts).await;
    let mut bench = Bench::new("");
    bench.timeout = Some(Duration::from_millis(500));
    let failure = fails(&bench, json!({"url": server.url("/"), "method": "POST"})).await;
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("http.timeout", Certainty::Unknown)
    );
    assert!(failure.message.contains("status 200"), "{failure:?}");
    assert!(
        get(&failure.output, "body")
            .as_str()
            .unwrap()
            .starts_with('x')
    );
    assert!(bench.host.evidence.lock().unwrap()[0].truncated);
}

#[tokio::test]
async fn a_cut_connection_is_unknown() {
    let bench = Bench::new("");
    for (parts, status) in [
        (vec![], false),
        // Something else listens there.
        (
            vec![Part::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())],
            false,
        ),
        (
            vec![Part::Bytes(
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
            )],
            true,
        ),
        (
            vec![Part::Bytes(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec(),
            )],
            true,
        ),
    ] {
        let server = Server::start(parts).await;
        let params = json!({"url": server.url("/"), "method": "POST"});
        let failure = fails(&bench, params).await;
        assert_eq!(failure.code, "http.cut", "{failure:?}");
        assert_eq!(
            (failure.cause, failure.certainty),
            (Cause::ConnectionLost, Certainty::Unknown)
        );
        assert_eq!(
            failure.message.contains("status 200"),
            status,
            "{failure:?}"
        );
        // It went once: no layer below tries again.
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_cancelled_step_ends_at_once() {
    let server = Server::start(vec![Part::Pause(StdDuration::from_secs(60))]).await;
    let bench = Bench::new("");
    let params = json!({"url": server.url("/"), "method": "POST"});
    let cancel = bench.cancel.clone();
    let (failure, ()) = tokio::join!(fails(&bench, params.clone()), async {
        tokio::time::sleep(StdDuration::from_millis(200)).await;
        cancel.cancel();
    });
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("http.cancelled", Certainty::Unknown)
    );
    // Cancelled before it was sent: nothing goes.
    let failure = fails(&bench, params).await;
    assert_eq!(
        (failure.code.as_str(), failure.certainty),
        ("http.cancelled", Certainty::NoEffect)
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn more_than_the_cap_is_not_fetched() {
    let size = 64 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\nä");
    let server = Server::start(vec![Part::Bytes(head.into_bytes()), Part::Flood(size - 2)]).await;
    let bench = Bench::new("");
    let url = server.url("/");
    let output = run(
        &bench,
        json!({"url": url, "effect": "reads", "max_body": "10KiB"}),
    )
    .await
    .unwrap();
    assert_eq!(get(&output, "truncated"), Value::Bool(true));
    assert_eq!(get(&output, "body").as_str().unwrap().len(), 10 * 1024);
    tokio::time::sleep(StdDuration::from_millis(100)).await;
    assert!(
        server.sent() < size / 2,
        "{} bytes were fetched",
        server.sent()
    );
    let evidence = bench.host.evidence.lock().unwrap().pop().unwrap();
    assert_eq!((evidence.size, evidence.truncated), (size as u64, true));
    // The cap falls into the middle of a character: it is left out, and the body stays text.
    let output = run(
        &bench,
        json!({"url": url, "effect": "reads", "max_body": "1B"}),
    )
    .await
    .unwrap();
    assert_eq!(get(&output, "body"), Value::from(""));
}

#[tokio::test]
async fn a_body_that_is_not_text_stays_whole() {
    let server = Server::start(answer("200 OK", &[], &[b'a', 0xff, 0])).await;
    let bench = Bench::new("");
    let output = run(&bench, json!({"url": server.url("/"), "effect": "reads"}))
        .await
        .unwrap();
    assert_eq!(
        get(&output, "body"),
        Value::Bytes(vec![b'a', 0xff, 0].into())
    );
    assert_eq!(get(&output, "json"), Value::Null);
}

#[tokio::test]
async fn refusals_say_what_they_mean() {
    let bench = Bench::new("");
    let server = Server::start(answer(
        "429 Too Many Requests",
        &["Retry-After: 30"],
        b"slow down",
    ))
    .await;
    let failure = fails(&bench, json!({"url": server.url("/"), "method": "POST"})).await;
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::Throttled, Certainty::NoEffect)
    );
    assert!(
        failure.message.contains("429 Too Many Requests"),
        "{failure:?}"
    );
    assert!(failure.message.ends_with("slow down"), "{failure:?}");
    assert!(failure.help.unwrap().contains("asks for 30s"));
    assert_eq!(get(&failure.output, "status"), Value::Int(429));
    let server = Server::start(answer("502 Bad Gateway", &[], b"<html>")).await;
    let failure = fails(&bench, json!({"url": server.url("/"), "method": "POST"})).await;
    assert_eq!(
        (failure.cause, failure.certainty),
        (Cause::ConnectionLost, Certainty::Unknown)
    );
    assert!(!failure.message.contains("html"), "{failure:?}");
    let failure = fails(&bench, json!({"url": server.url("/"), "effect": "reads"})).await;
    assert_eq!(failure.certainty, Certainty::NoEffect);
}

#[tokio::test]
async fn a_body_that_is_not_as_expected_fails() {
    let server = Server::start(answer("200 OK", &[], br#"{"lag": 12}"#)).await;
    let bench = Bench::new("");
    let expect =
        |body: &str| json!({"url": server.url("/"), "method": "POST", "expect": {"body": body}});
    run(&bench, expect("json.lag < 20 && status == 200"))
        .await
        .unwrap();
    for (body, said) in [
        ("json.lag < 10", "does not hold"),
        ("json.lag", "gives a integer"),
        ("json.nothing == 1", "fails:"),
        ("json.lag < '20'", "fails:"),
    ] {
        let failure = fails(&bench, expect(body)).await;
        assert_eq!(failure.code, "http.expect");
        assert_eq!(
            (failure.cause, failure.certainty),
            (Cause::Refused, Certainty::Partial)
        );
        assert!(failure.message.contains(said), "{failure:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_only_where_asked_and_never_elsewhere() {
    let elsewhere = Server::start(answer("200 OK", &[], b"elsewhere")).await;
    let away = format!("Location: {}", elsewhere.url("/"));
    let server = Server::by_request(move |first| match first.split(' ').nth(1).unwrap() {
        "/a" => answer("302 Found", &["Location: /b"], b""),
        "/b" => answer("302 Found", &["Location: /c"], b""),
        "/away" => answer("302 Found", &[&away], b""),
        _ => answer("200 OK", &[], b"here"),
    })
    .await;
    let bench = Bench::new("");
    let reads = |path: &str, follow: u32| {
        json!({"url": server.url(path), "effect": "reads", "follow_redirects": follow,
               "headers": {"X-Token": secret("")}})
    };
    let failure = fails(&bench, reads("/a", 0)).await;
    assert!(failure.message.contains("302 Found"), "{failure:?}");
    assert!(failure.help.unwrap().contains("/b"));
    assert!(
        fails(&bench, reads("/a", 1))
            .await
            .message
            .contains("302 Found")
    );
    assert_eq!(
        get(&run(&bench, reads("/a", 2)).await.unwrap(), "body"),
        Value::from("here")
    );
    assert!(
        fails(&bench, reads("/away", 5))
            .await
            .message
            .contains("302 Found")
    );
    assert!(
        elsewhere.requests().is_empty(),
        "a secret header went elsewhere"
    );
    let post = json!({"url": server.url("/a"), "method": "POST", "follow_redirects": 1});
    assert_eq!(
        try_step("http", &with(post)).err().unwrap()[0].path,
        "follow_redirects"
    );
}

#[tokio::test]
async fn tls_is_verified() {
    let bench = Bench::new("");
    let trusted = Certificate::new(bench.folder.path(), "trusted");
    let other = Certificate::new(bench.folder.path(), "other");
    let server = Server::tls(answer("200 OK", &[], b"safe"), &trusted).await;
    let port = server.address.port();
    let params = |host: &str, ca_file: &str| json!({"url": format!("https://{host}:{port}/"), "method": "POST", "ca_file": ca_file});
    let output = run(&bench, params("127.0.0.1", &trusted.path()))
        .await
        .unwrap();
    assert_eq!(get(&output, "body"), Value::from("safe"));
    // Another authority, and another name than the certificate's.
    for params in [
        params("127.0.0.1", &other.path()),
        params("localhost", &trusted.path()),
    ] {
        let failure = fails(&bench, params).await;
        assert_eq!(failure.code, "http.tls", "{failure:?}");
        assert_eq!(
            (failure.cause, failure.certainty),
            (Cause::Permanent, Certainty::NoEffect)
        );
    }
    let url = format!("https://127.0.0.1:{port}/");
    let failure = fails(&bench, json!({"url": url, "method": "POST"})).await;
    assert!(
        ["http.tls", "http.client"].contains(&failure.code.as_str()),
        "{failure:?}"
    );
    assert_eq!(failure.certainty, Certainty::NoEffect);
    assert_eq!(server.requests().len(), 1);
    let missing = fails(&bench, params("127.0.0.1", "/no/such/file")).await;
    assert_eq!(missing.code, "http.ca_file");
}

#[tokio::test]
async fn no_failure_holds_a_secret() {
    let bench = Bench::new("");
    let server = Server::start(vec![]).await;
    for params in [
        json!({"url": secret("not a url "), "method": "POST"}),
        json!({"url": secret("http://127.0.0.1:1/"), "method": "POST"}),
        json!({"url": secret(&server.url("/"))}),
        json!({"url": server.url("/"), "headers": {"A": secret("\n")}}),
        json!({"url": secret("http://u:p@no-such-host.invalid/")}),
    ] {
        let failure = fails(&bench, params).await;
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_plan_makes_requests_that_read_and_no_others() {
    let server = Server::start(answer("200 OK", &[], b"{\"role\": \"primary\"}")).await;
    let bench = Bench::new("");
    let writes = json!({
        "url": server.url("/x"), "method": "POST", "headers": {"Authorization": secret("Bearer ")},
        "json": {"a": 1},
    });
    let preview = bench.preview("http", with(writes)).await.unwrap();
    assert_eq!(preview.fidelity, Fidelity::Simulated);
    assert_eq!(preview.secrets, ["pw"]);
    assert!(server.requests().is_empty());
    let lines = format!("{:?}", preview.lines);
    assert!(
        lines.contains("Bearer secret(pw)") && lines.contains("in the clear"),
        "{lines}"
    );
    let reads = json!({"url": server.url("/x"), "effect": "reads"});
    let preview = bench.preview("http", with(reads)).await.unwrap();
    assert_eq!(preview.fidelity, Fidelity::Executed);
    assert_eq!(
        get(&get(&preview.output.unwrap(), "json"), "role"),
        Value::from("primary")
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn traits_follow_from_effect_and_idempotent() {
    let traits = |params: Json| (crate::registry().kind("http").unwrap().traits_of)(&with(params));
    let writes = traits(json!({}));
    assert_eq!(
        (writes.effect, writes.redo, writes.marks),
        (Effect::Writes, Redo::AskOperator, true)
    );
    assert_eq!(writes.undo, UndoSupport::Impossible);
    assert_eq!(traits(json!({"idempotent": true})).redo, Redo::Repeatable);
    let reads = traits(json!({"effect": "reads"}));
    assert_eq!(
        (reads.effect, reads.undo, reads.marks),
        (Effect::ReadOnly, UndoSupport::None, false)
    );
    assert_eq!(reads.fidelity, Fidelity::Executed);
}

#[tokio::test]
async fn a_crash_after_sending_is_in_doubt() {
    let server = Server::start(answer("200 OK", &[], b"")).await;
    let bench = Bench::new("");
    let params = json!({"url": server.url("/"), "method": "POST"});
    run(&bench, params.clone()).await.unwrap();
    match bench.probe("http", with(params)).await.unwrap() {
        Probed::InDoubt(why) => assert!(why.contains("was sent at 2"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.requests().len(), 1, "a probe sends nothing");
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (params, path) in [
        (json!({"url": "example.com"}), "url"),
        (json!({"url": "ftp://example.com"}), "url"),
        (json!({"url": "https://u:p@example.com"}), "url"),
        (json!({"url": "http://a", "method": "post"}), "method"),
        (json!({"url": "http://a", "body": "x", "json": 1}), "json"),
        (json!({"url": "http://a", "body": {"a": 1}}), "body"),
        (
            json!({"url": "http://a", "headers": {"A B": "x"}}),
            "headers.A B",
        ),
        (
            json!({"url": "http://a", "headers": {"Content-Length": "3"}}),
            "headers.Content-Length",
        ),
        (
            json!({"url": "http://a", "query": {"q": {"a": 1}}}),
            "query.q",
        ),
        (
            json!({"url": "http://a", "expect": {"status": "2x"}}),
            "expect.status",
        ),
        (json!({"url": "http://a", "max_body": "0B"}), "max_body"),
        (
            json!({"url": "http://a", "connect_timeout": "0s"}),
            "connect_timeout",
        ),
    ] {
        let errors = try_step("http", &with(params.clone())).err().unwrap();
        assert_eq!(errors[0].path, path, "{params} {errors:?}");
    }
}

#[tokio::test]
async fn slack_gets_text_and_blocks() {
    let server = Server::start(answer("200 OK", &[], b"ok")).await;
    let bench = Bench::new("");
    let hook = secret(&server.url("/services/"));
    let params = json!({"webhook": hook, "text": "done", "blocks": [{"type": "divider"}]});
    let preview = bench
        .preview("notify.slack", with(params.clone()))
        .await
        .unwrap();
    assert!(server.requests().is_empty());
    assert_eq!(preview.secrets, ["pw"]);
    let output = bench.execute("notify.slack", with(params)).await.unwrap();
    assert_eq!(get(&output, "status"), Value::Int(200));
    let request = &server.requests()[0];
    assert!(
        request.starts_with("POST /services/s3cr3t-canary HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(r#"{"text":"done","blocks":[{"type":"divider"}]}"#),
        "{request}"
    );
    assert!(bench.host.marks.lock().unwrap().is_empty());

    let server = Server::start(answer("404 Not Found", &[], b"no_service")).await;
    let params = json!({"webhook": secret(&server.url("/")), "text": "done"});
    let failure = bench
        .execute("notify.slack", with(params))
        .await
        .unwrap_err();
    assert!(failure.message.ends_with("no_service"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    for (params, path) in [
        (
            json!({"webhook": "https://hooks.slack.com/services/T/B/x", "text": "a"}),
            "webhook",
        ),
        (json!({"webhook": "http://a"}), ""),
        (json!({"webhook": "http://a", "blocks": []}), "blocks"),
    ] {
        assert_eq!(
            try_step("notify.slack", &with(params)).err().unwrap()[0].path,
            path
        );
    }
}

#[tokio::test]
async fn a_webhook_gets_a_payload_and_a_dead_one_does_not_hang() {
    let server = Server::start(answer("204 No Content", &[], b"")).await;
    let bench = Bench::new("");
    let url = server.url("/hook");
    let hook = json!({"url": url, "payload": {"at": "now"}, "headers": {"X-Key": secret("")}});
    bench.execute("notify.webhook", with(hook)).await.unwrap();
    bench
        .execute("notify.webhook", with(json!({"url": url, "text": "t"})))
        .await
        .unwrap();
    let requests = server.requests();
    assert!(
        requests[0].contains("x-key: s3cr3t-canary") && requests[0].ends_with(r#"{"at":"now"}"#)
    );
    assert!(requests[1].ends_with(r#"{"text":"t"}"#));
    let both = json!({"url": url, "payload": 1, "text": "t"});
    assert_eq!(
        try_step("notify.webhook", &with(both)).err().unwrap()[0].path,
        "text"
    );

    assert_eq!(super::webhook::TIME, Duration::from_secs(10));
    let server = Server::start(vec![Part::Pause(StdDuration::from_secs(60))]).await;
    let mut bench = Bench::new("");
    bench.timeout = Some(Duration::from_millis(200));
    let hook = json!({"url": server.url("/"), "text": "t"});
    let failure = bench
        .execute("notify.webhook", with(hook.clone()))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "http.timeout");
    // After a crash it goes again, and there is nothing to undo.
    let traits = (crate::registry().kind("notify.webhook").unwrap().traits_of)(&with(hook.clone()));
    assert_eq!(
        (traits.redo, traits.undo),
        (Redo::Repeatable, UndoSupport::None)
    );
    drop(step("notify.webhook", with(hook)));
}

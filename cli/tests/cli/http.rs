//! Requests by the real binary.
use crate::common::Lab;
use nix::sys::signal::Signal;
use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

fn playbook(proxy: &str) -> String {
    format!(
        "\
playbook: ask
steps:
  - id: ask
    uses: http
    with:
      url: http://orders.invalid/health
      effect: reads
      proxy: {proxy}
      expect: {{ body: body == 'fine' }}
outputs:
  status: ${{{{ steps.ask.output.status }}}}
"
    )
}

/// A proxy of the environment is used only where the playbook says so.
#[test]
fn a_proxy_is_asked_for() {
    let lab = Lab::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let run = |mode: &str, no_proxy: &str| -> Output {
        lab.write("ask.yaml", &playbook(mode));
        let mut command = lab.command("ana", &["run", "ask.yaml"]);
        command.env("HTTP_PROXY", &proxy).env("NO_PROXY", no_proxy);
        command.output().unwrap()
    };
    let failed = run("none", "");
    assert_eq!(failed.status.code(), Some(1));
    let failed = run("environment", "orders.invalid");
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(said.contains("the host is not known"), "{said}");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4_096];
        let count = stream.read(&mut bytes).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
            .unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    });
    let done = run("environment", "");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    let request = answering.join().unwrap();
    assert!(
        request.starts_with("GET http://orders.invalid/health HTTP/1.1\r\n"),
        "{request}"
    );
}

/// A request that writes and gets no answer leaves the run to a person; `plan` sends nothing.
#[test]
fn a_request_without_an_answer_is_in_doubt() {
    let lab = Lab::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    lab.write(
        "post.yaml",
        &format!(
            "\
playbook: post
steps:
  - id: post
    uses: http
    with:
      method: POST
      url: http://{address}/promote
      json: {{ host: db2 }}
"
        ),
    );
    let counting = std::thread::spawn(move || {
        let mut requests = 0;
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4_096];
            let count = stream.read(&mut bytes).unwrap();
            if bytes[..count].starts_with(b"GET /stop") {
                return requests;
            }
            requests += 1;
        }
    });
    lab.run(&["plan", "post.yaml"])
        .exits(0)
        .says("would send a request");
    lab.run(&["run", "post.yaml"]).exits(3).says("in doubt");
    assert_eq!(lab.step("post")["state"], "in_doubt");
    lab.run(&["resume", "last"]).exits(3);
    let mut stop = std::net::TcpStream::connect(address).unwrap();
    stop.write_all(b"GET /stop").unwrap();
    assert_eq!(counting.join().unwrap(), 1, "it went once");
    lab.run(&[
        "resolve", "last", "post", "--done", "--because", "the service has it", "--output",
        r#"{"status": 200, "headers": {}, "body": "", "json": null, "truncated": false, "duration": "1s"}"#,
    ])
    .says("post");
    lab.run(&["resume", "last"]);
    assert_eq!(lab.state(), "succeeded");
}

/// A server that takes requests and answers only those after the first.
fn forgetful() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    // It ends with the test.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4_096];
            if stream.read(&mut bytes).unwrap_or(0) == 0 {
                continue;
            }
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                held.push(stream);
            } else {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
        }
    });
    (url, requests)
}

/// The engine is killed while a request is under way.
#[test]
fn a_kill_after_sending_asks_a_person_unless_it_may_go_again() {
    for idempotent in [false, true] {
        let lab = Lab::new();
        let (url, requests) = forgetful();
        lab.write(
            "post.yaml",
            &format!(
                "\
playbook: post
steps:
  - id: post
    uses: http
    with:
      method: POST
      url: {url}
      idempotent: {idempotent}
"
            ),
        );
        let run = lab.spawn("ana", &["run", "post.yaml"]);
        let start = Instant::now();
        while requests.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "nothing came");
            std::thread::sleep(Duration::from_millis(5));
        }
        run.signal(Signal::SIGKILL);
        run.wait();
        let resumed = lab.run(&["resume", "last"]);
        if idempotent {
            resumed.exits(0);
            assert_eq!(requests.load(Ordering::SeqCst), 2);
        } else {
            resumed.exits(3).says("was sent at");
            assert_eq!(lab.step("post")["state"], "in_doubt");
            assert_eq!(requests.load(Ordering::SeqCst), 1);
        }
    }
}

/// The answer to a request is lost, and another request tells that it took effect.
#[test]
fn a_probe_by_http_settles_a_doubt() {
    for (promoted, state) in [("true", "succeeded"), ("false", "failed")] {
        let lab = Lab::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 4_096];
                let count = stream.read(&mut bytes).unwrap_or(0);
                if bytes[..count].starts_with(b"GET") {
                    let body = format!("{{\"promoted\": {promoted}}}");
                    let length = body.len();
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
                    )
                    .unwrap();
                }
            }
        });
        lab.write(
            "promote.yaml",
            &format!(
                "\
playbook: promote
policy: {{ on_failure: stop }}
steps:
  - id: promote
    uses: http
    on_failure: stop
    with:
      method: POST
      url: http://{address}/promote
    probe:
      uses: http
      with:
        url: http://{address}/state
        effect: reads
      done: json.promoted
"
            ),
        );
        lab.run(&["run", "promote.yaml"]);
        assert_eq!(lab.step("promote")["state"], state, "{:#}", lab.show());
    }
}

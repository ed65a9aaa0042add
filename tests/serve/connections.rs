//! Clients that are slow or many, signals, and ports that others have.

use crate::served::{Answered, Served};
use crate::{folder, poster, serve};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Begins a request and leaves it before the last byte of its body.
fn begin(served: &Served) -> TcpStream {
    let (mut stream, jpeg) = (served.connect(), poster("1.jpg"));
    let (host, length) = (served.address, jpeg.len());
    let head = format!("POST /answers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: image/jpeg\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(&jpeg[..length - 1]).unwrap();
    stream
}

/// Sends the last byte.
fn complete(mut stream: TcpStream) -> Answered {
    stream.write_all(&poster("1.jpg")[poster("1.jpg").len() - 1..]).unwrap();
    Answered::read(stream)
}

/// Asks until the answer has this status.
fn until(served: &Served, status: u16) -> Answered {
    let began = Instant::now();
    loop {
        let answered = served.post("/answers", "image/jpeg", &poster("1.jpg"));
        if answered.status == status {
            return answered;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{answered:?}");
    }
}

#[test]
fn one_request_too_many_is_told_to_come_again() {
    let served = serve("--max-waiting 2");
    let slow = [begin(&served), begin(&served)];
    let full = until(&served, 503);
    assert!(full.problem(503).contains("2 requests are in work"));
    assert_eq!(full.headers["retry-after"], "1");
    // Other addresses answer all the same.
    assert_eq!(served.get("/health").status, 200);
    for stream in slow {
        assert_eq!(complete(stream).status, 200);
    }
    until(&served, 200);
    // Who goes away leaves his place.
    drop([begin(&served), begin(&served)]);
    until(&served, 200);
}

#[test]
fn a_client_that_is_too_slow_is_not_waited_for() {
    let served = serve("--max-waiting 1 --max-seconds 1");
    let mut silent = served.connect();
    silent.write_all(b"GET /hea").unwrap();
    let told = Answered::read(begin(&served)).problem(408);
    assert!(told.contains("not all there after 1 seconds"), "{told}");
    assert_eq!(served.post("/answers", "image/jpeg", &poster("1.jpg")).status, 200);
    // A connection on which no request comes to its end is closed.
    let mut answered = Vec::new();
    silent.read_to_end(&mut answered).unwrap();
    assert!(answered.is_empty() || answered.starts_with(b"HTTP/1.1 408"), "{answered:?}");
}

#[test]
fn a_signal_ends_it_after_what_is_in_work() {
    for signal in ["INT", "TERM", "HUP"] {
        let mut served = serve("");
        let (idle, slow) = (served.connect(), begin(&served));
        // It is in work once another is answered behind it.
        assert_eq!(served.get("/health").status, 200);
        served.signal(signal);
        // Nobody new is taken.
        let began = Instant::now();
        while TcpStream::connect(served.address).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(30));
        }
        assert_eq!(complete(slow).status, 200);
        let (code, said) = served.end();
        assert_eq!((code, said.lines().last()), (Some(0), Some("stopped; what was in work is answered")), "{signal}");
        drop(idle);
    }
    // A second Ctrl-C does not wait.
    let mut served = serve("");
    let slow = begin(&served);
    assert_eq!(served.get("/health").status, 200);
    served.signal("INT");
    while TcpStream::connect(served.address).is_ok() {}
    served.signal("INT");
    assert_eq!(served.end().0, Some(130));
    drop(slow);
}

#[test]
fn addresses_and_ports_that_cannot_be_had_are_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (words, code, expected) in [
        (
            format!("--port {port}"),
            1,
            format!("error: another program listens on 127.0.0.1:{port}; choose another --port"),
        ),
        ("--port 0 --address 192.0.2.1".into(), 2, "error: 192.0.2.1 is no address of this machine".into()),
        ("--port 0 --address there".into(), 2, "error: invalid value 'there' for '--address".into()),
        ("--port 0 --max-waiting 0".into(), 2, "error: invalid value '0' for '--max-waiting".into()),
        ("--port 0 --calibrated".into(), 2, "error: model.safetensors has no temperature".into()),
    ] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("onesheet"));
        let command = command.current_dir(folder()).args(["serve", "--model", "model.safetensors", "--device", "cpu"]);
        let output = command.args(words.split(' ')).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(said.contains(&expected), "{words}: {said}");
    }
}

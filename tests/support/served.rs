//! `onesheet serve` in the background, and a client that sends it what it likes, byte by byte.

#![allow(dead_code, reason = "each test file takes what it needs")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// A server, killed with the test if nobody stops it.
pub struct Served {
    pub child: Child,
    pub address: SocketAddr,
    stderr: BufReader<ChildStderr>,
    /// What it has said so far.
    pub said: String,
}

impl Served {
    /// Starts it in `folder` with these words behind `onesheet serve`, and waits until it listens.
    pub fn start(folder: &Path, words: &str) -> Served {
        // Whoever runs these tests may have been started by nohup, and hands on that a hang-up is ignored.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP").arg(assert_cmd::cargo::cargo_bin("onesheet"));
        let command = command.current_dir(folder).arg("serve").args(words.split_whitespace());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let read = stderr.read_line(&mut said).unwrap();
            assert!(read > 0, "it has ended: {said}");
            let url = said.lines().last().unwrap().strip_prefix("listening on http://");
            if let Some(address) = url.and_then(|url| url.split('/').next()?.parse().ok()) {
                break address;
            }
        };
        Served { child, address, stderr, said }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let mut said = std::mem::take(&mut self.said);
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (self.child.wait().unwrap().code(), said)
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    pub fn get(&self, path: &str) -> Answered {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address), b"")
    }

    /// Posts `body` as what it is said to be.
    pub fn post(&self, path: &str, kind: &str, body: &[u8]) -> Answered {
        let (host, length) = (self.address, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(&head, body)
    }

    /// Sends bytes as they are, and reads what is answered.
    pub fn send(&self, head: &str, body: &[u8]) -> Answered {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Answered::read(stream)
    }

    /// Posts a form of posters: their names and bytes.
    pub fn post_form(&self, path: &str, posters: &[(&str, &[u8])]) -> Answered {
        self.post(path, FORM, &form("poster", posters))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects, also to a server that is only just beginning.
pub fn connect(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(why) => assert!(began.elapsed() < Duration::from_secs(60), "{why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// The kind of what [`form`] makes.
pub const FORM: &str = "multipart/form-data; boundary=between";

/// A form whose fields are all called `field`.
pub fn form(field: &str, posters: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in posters {
        let head = format!("Content-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"");
        body.extend(format!("--between\r\n{head}\r\nContent-Type: image/png\r\n\r\n").bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--between--\r\n");
    body
}

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answered {
    /// Reads an answer to its end, which is that of the connection.
    pub fn read(mut stream: TcpStream) -> Answered {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("{bytes:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        let length = headers.get("content-length").map(|length| length.parse::<usize>().unwrap());
        assert!(length.is_none_or(|length| length == body.len() || body.is_empty()), "{headers:?}");
        Answered { status, headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What is wrong, of an answer that says so with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(
            (self.status, self.headers["content-type"].as_str()),
            (status, "application/problem+json"),
            "{text}"
        );
        let json = self.json();
        assert_eq!(json["status"], status);
        json["detail"].as_str().unwrap().to_owned()
    }
}

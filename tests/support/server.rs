//! A server of posters on this machine.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server in the background until the test ends.
pub struct Server {
    pub port: u16,
    /// How often each path was asked for.
    pub hits: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    /// `answer` gets the connection, the path and how often that path was asked for before.
    pub fn start(
        answer: impl Fn(&mut TcpStream, &str, usize) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let hits: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (answer, counted) = (Arc::new(answer), hits.clone());
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (answer, counted) = (answer.clone(), counted.clone());
                thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
                    let path =
                        lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
                    lines.take_while(|line| !line.is_empty()).for_each(drop);
                    let before = {
                        let mut counted = counted.lock().unwrap();
                        let hits = counted.entry(path.clone()).or_default();
                        *hits += 1;
                        *hits - 1
                    };
                    // Clients hang up on such a server, so its writes fail.
                    let _ = answer(&mut connection, &path, before);
                });
            }
        });
        Server { port, hits }
    }
}

/// An answer with a body and `more` headers.
pub fn reply(to: &mut TcpStream, status: &str, more: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(to, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n")?;
    to.write_all(body)
}

//! A server on this machine, for tests of what is fetched.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use image::{ImageFormat, RgbImage};

/// A server on this machine, in the background until the test ends.
pub struct Server {
    pub port: u16,
    /// How often each path was asked for.
    hits: Arc<Mutex<HashMap<String, usize>>>,
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

    pub fn hits(&self, path: &str) -> usize {
        self.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

/// A small poster.
pub fn poster(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(20, 30, image::Rgb([9, 99, 199])).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An answer with a body and `more` headers.
pub fn reply(to: &mut TcpStream, status: &str, more: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(to, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n")?;
    to.write_all(body)
}

//! Downloads against a server with the manners of the internet: each poster ends in time, stays small and stays honest.
#![cfg(feature = "fetch")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::io::{Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use image::{ImageFormat, RgbImage};
use onesheet::data::download::{DownloadError, Downloader};
use onesheet::data::films::{Film, FilmId};
use onesheet::data::posters::Links;
use server::{Server, poster, reply};

/// An answer that is over when the server hangs up.
fn reply_without_length(to: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    to.write_all(body)
}

fn large_poster() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(4097, 1).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn redirect(to: &mut TcpStream, location: &str) -> std::io::Result<()> {
    reply(to, "302 Found", &format!("Location: {location}\r\n"), b"")
}

/// A gzip file of a few ten kB that unpacks to 64 MB: one zero byte, then 258 more of it again and again.
fn gzip_bomb() -> Vec<u8> {
    let mut bits: Vec<u8> = vec![1, 1, 0]; // the last block, with the fixed code
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]); // the byte 0
    for _ in 0..(64 << 20) / 258 {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1]); // a copy of 258 bytes
        bits.extend([0, 0, 0, 0, 0]); // from one byte back
    }
    bits.extend([0; 7]); // the end
    let bytes = bits
        .chunks(8)
        .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit) << (8 - bits.len()) >> (8 - bits.len()));
    b"\x1f\x8b\x08\0\0\0\0\0\0\xff".iter().copied().chain(bytes).collect()
}

fn misbehave(to: &mut TcpStream, path: &str, before: usize, other_port: u16) -> std::io::Result<()> {
    let jpeg = poster(ImageFormat::Jpeg);
    let dribble = |to: &mut TcpStream, byte: u8| loop {
        to.write_all(&[byte])?;
        thread::sleep(Duration::from_millis(100));
    };
    match path {
        "/ok" | "/present" => reply(to, "200 OK", "Content-Type: text/html\r\n", &jpeg),
        "/png" => reply(to, "200 OK", "", &poster(ImageFormat::Png)),
        "/webp" => reply(to, "200 OK", "", &poster(ImageFormat::WebP)),
        "/moved" => redirect(to, "/ok"),
        "/moved-aside?a=b" => redirect(to, "ok#top"),
        "/busy" if before < 2 => reply(to, "429 Too Many Requests", "Retry-After: 0\r\n", b""),
        "/shaky" if before < 1 => Ok(()), // hangs up
        "/torn" if before < 1 => {
            write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")?;
            to.write_all(&jpeg[..100])
        }
        "/busy" | "/shaky" | "/torn" => reply(to, "200 OK", "", &jpeg),
        "/torn-unseen" if before < 1 => reply_without_length(to, &jpeg[..jpeg.len() - 9]),
        "/torn-unseen" => reply_without_length(to, &jpeg),
        "/always-torn" => reply_without_length(to, &jpeg[..jpeg.len() - 9]),
        "/too-short" => {
            write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", jpeg.len() + 1)?;
            to.write_all(&jpeg)
        }
        "/too-large" => reply(to, "200 OK", "", &large_poster()),

        "/404" => reply(to, "404 Not Found", "", &jpeg),
        "/503" => reply(to, "503 Service Unavailable", "Retry-After: 0\r\n", b""),
        "/later" => reply(to, "429 Too Many Requests", "Retry-After: 18446744073709551615\r\n", b""),
        "/much-later" => reply(to, "429 Too Many Requests", "Retry-After: 4000000000\r\n", b""),
        "/html" => reply(to, "200 OK", "Content-Type: image/jpeg\r\n", b"<html>no such poster</html>"),
        "/gif" => reply(to, "200 OK", "Content-Type: image/gif\r\n", b"GIF89a\x01\0\x01\0"),
        "/empty" => reply(to, "200 OK", "", b""),
        "/nowhere" => reply(to, "302 Found", "", b""),
        "/loop" => redirect(to, "/loop"),
        "/file" => redirect(to, "file:///etc/passwd"),
        "/ftp" => redirect(to, "ftp://127.0.0.1/ok"),
        "/neighbour" => redirect(to, &format!("http://127.0.0.1:{other_port}/secret")),
        "/neighbour-by-name" => redirect(to, &format!("http://localhost:{other_port}/secret")),
        "/neighbour-in-six" => redirect(to, &format!("http://[::ffff:127.0.0.1]:{other_port}/secret")),
        "/neighbour-in-one-figure" => redirect(to, &format!("http://2130706433:{other_port}/secret")),
        "/cloud" => redirect(to, "http://169.254.169.254/latest/meta-data"),
        "/slow-head" => {
            write!(to, "HTTP/1.1 200 OK\r\nX-Filler: ")?;
            dribble(to, b'x')
        }
        "/slow" => {
            write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            to.write_all(&jpeg[..100])?;
            dribble(to, 0)
        }
        "/silent" => {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        "/endless" => {
            write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            to.write_all(&jpeg)?;
            loop {
                to.write_all(&[0; 65536])?;
            }
        }
        "/endless-head" => {
            write!(to, "HTTP/1.1 200 OK\r\n")?;
            loop {
                write!(to, "X-Filler: {}\r\n", "x".repeat(1000))?;
            }
        }
        "/huge" => {
            write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
            to.write_all(&jpeg)?;
            loop {
                to.write_all(&[0; 65536])?;
            }
        }
        "/bomb" => reply(to, "200 OK", "Content-Encoding: gzip\r\n", &gzip_bomb()),
        "/garbage" => to.write_all(b"\0\xff\xfe not HTTP at all\r\n\r\n"),
        _ => unreachable!("the test asks for {path}"),
    }
}

/// A film whose poster is at `url`; its id is made from `number`.
fn film(number: usize, url: String) -> Film {
    let id = FilmId::parse(&number.to_string()).unwrap();
    Film { line: number as u64, id, genres: vec!["Drama".to_owned()], poster_url: Some(url) }
}

/// What is in `folder`, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_manner_ends_in_time_and_in_the_right_words() {
    let neighbour = Server::start(|to, _, _| reply(to, "200 OK", "", &poster(ImageFormat::Jpeg)));
    let other_port = neighbour.port;
    let server = Server::start(move |to, path, before| misbehave(to, path, before, other_port));
    // What is asked for, and what is said about it; an empty text where the poster arrives.
    let manners = [
        ("/ok", ""),
        ("/png", ""),
        ("/webp", ""),
        ("/moved", ""),
        ("/moved-aside?a=b", ""),
        ("/busy", ""),
        ("/shaky", ""),
        ("/torn", ""),
        ("/torn-unseen", ""),
        ("/404", "the server answered 404"),
        ("/always-torn", "what came is damaged: it is cut off"),
        ("/too-short", "download failed"),
        ("/too-large", "what came is too large: 4097×1 pixels"),
        ("/503", "the server answered 503"),
        ("/later", "the server answered 429"),
        ("/much-later", "the server answered 429"),
        ("/html", "no JPEG, PNG or WebP"),
        ("/gif", "no JPEG, PNG or WebP"),
        ("/empty", "no JPEG, PNG or WebP"),
        ("/nowhere", "the server answered 302"),
        ("/loop", "more than 5 redirects"),
        ("/file", "`file:///etc/passwd` is no http or https address"),
        ("/ftp", "no http or https address"),
        ("/neighbour", "127.0.0.1, which is in a private network"),
        ("/neighbour-by-name", "localhost, which is in a private network"),
        ("/neighbour-in-six", "[::ffff:127.0.0.1], which is in a private network"),
        ("/neighbour-in-one-figure", "2130706433, which is in a private network"),
        ("/cloud", "169.254.169.254, which is in a private network"),
        ("/slow-head", "timeout"),
        ("/slow", "timeout"),
        ("/silent", "timeout"),
        ("/endless", "more than 20 MB"),
        ("/endless-head", "header"),
        ("/huge", "more than 20 MB"),
        ("/bomb", "more than 20 MB"),
        ("/garbage", "download failed"),
    ];
    let mut films: Vec<Film> = (1..)
        .zip(manners)
        .map(|(number, (path, _))| film(number, format!("http://127.0.0.1:{}{path}", server.port)))
        .collect();
    films.push(film(900, "file:///etc/passwd".to_owned()));
    films.push(film(901, "not an address".to_owned()));
    films.push(film(902, format!("http://127.0.0.1:{}/present", server.port)));
    films.push(films[0].clone()); // a repeated row
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("902.jpg"), "fetched before").unwrap();

    let downloader = Downloader { connections: 40, attempts: 3, deadline: Duration::from_secs(6) };
    let start = Instant::now();
    let mut heard = Vec::new();
    let wanted: Vec<&Film> = films.iter().collect();
    let failures = downloader
        .fetch_missing(&wanted, folder.path(), Links::Inside, &mut |done, of| {
            heard.push((done, of));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(start.elapsed() <= Duration::from_secs(12), "{:?}", start.elapsed());
    assert_eq!(heard, (1..=38).map(|done| (done, 38)).collect::<Vec<_>>());

    let mut expected_files = vec!["902.jpg".to_owned()];
    for (film, (path, words)) in films.iter().zip(manners) {
        let failure = failures.get(&film.id).map(String::as_str);
        if words.is_empty() {
            assert_eq!(failure, None, "{path}");
            let extension = path.trim_start_matches('/');
            let extension = if ["png", "webp"].contains(&extension) { extension } else { "jpg" };
            let format = ImageFormat::from_extension(extension).unwrap();
            let name = format!("{}.{extension}", film.id);
            assert!(fs::read(folder.path().join(&name)).unwrap() == poster(format), "{path}");
            expected_files.push(name);
        } else {
            let failure = failure.unwrap_or_else(|| panic!("{path} should fail"));
            assert!(failure.contains(words), "{path}: {failure}");
        }
    }
    assert!(failures[&films[36].id].contains("`file:///etc/passwd` is no http"));
    assert!(failures[&films[37].id].contains("`not an address` is no http"));
    expected_files.sort();
    assert_eq!(names(folder.path()), expected_files, "nothing half fetched stays");
    assert_eq!(neighbour.hits("/secret"), 0, "the neighbour was asked");
    assert_eq!([server.hits("/404"), server.hits("/503"), server.hits("/html")], [1, 3, 1]);
    assert_eq!([server.hits("/present"), server.hits("/loop")], [0, 6]);
    // Nobody comes back before the time that the server names; what is no time is none.
    assert_eq!([server.hits("/much-later"), server.hits("/later")], [1, 3]);
    // The film itself, and the two redirects to it; the repeated row asks for nothing.
    assert_eq!(server.hits("/ok"), 3);

    // Again: only what failed is asked for.
    let failed: Vec<&Film> = films.iter().take(10).collect();
    let failures = downloader.fetch_missing(&failed, folder.path(), Links::Inside, &mut on).unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!([server.hits("/ok"), server.hits("/404")], [3, 2]);
}

/// Nobody stops it.
fn on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn what_was_fetched_before_somebody_stops_it_is_kept() {
    let server = Server::start(|to, _, _| reply(to, "200 OK", "", &poster(ImageFormat::Jpeg)));
    let films: Vec<Film> = (0..50).map(|number| film(number, format!("http://127.0.0.1:{}/", server.port))).collect();
    let wanted: Vec<&Film> = films.iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let one_by_one = Downloader { connections: 1, ..Downloader::default() };
    let mut until_ten = |done, _| if done == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = one_by_one.fetch_missing(&wanted, folder.path(), Links::Inside, &mut until_ten).unwrap_err();
    assert!(matches!(error, DownloadError::Stopped), "{error}");
    let kept = names(folder.path()).len();
    assert!((10..50).contains(&kept), "{kept}");
    one_by_one.fetch_missing(&wanted, folder.path(), Links::Inside, &mut on).unwrap();
    assert_eq!((names(folder.path()).len(), server.hits("/")), (50, 50));
}

#[test]
fn a_dead_network_ends_the_run() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let films: Vec<Film> = (0..5000).map(|number| film(number, format!("http://127.0.0.1:{closed}/"))).collect();
    let folder = tempfile::tempdir().unwrap();
    let downloader = Downloader { attempts: 1, ..Downloader::default() };
    let mut asked = 0;
    let wanted: Vec<&Film> = films.iter().collect();
    let mut count = |done, _| {
        asked = done;
        ControlFlow::Continue(())
    };
    let error = downloader.fetch_missing(&wanted, folder.path(), Links::Inside, &mut count).unwrap_err();
    assert!(matches!(error, DownloadError::Unreachable { .. }), "{error}");
    assert_eq!(asked, 99);

    // A hundred in a row, and not in all: one that arrives between them shows that the network lives.
    let server = Server::start(|to, _, _| reply(to, "200 OK", "", &poster(ImageFormat::Jpeg)));
    let mut films: Vec<Film> = films.into_iter().take(121).collect();
    films[60].poster_url = Some(format!("http://127.0.0.1:{}/", server.port));
    let (one_by_one, wanted) = (Downloader { connections: 1, ..downloader }, films.iter().collect::<Vec<_>>());
    let failures = one_by_one.fetch_missing(&wanted, folder.path(), Links::Inside, &mut on).unwrap();
    assert_eq!((failures.len(), server.hits("/")), (120, 1));
}

#[test]
fn no_addresses_and_no_folder_are_said() {
    let mut one = film(1, "http://127.0.0.1:1/".to_owned());
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Downloader::default().fetch_missing(&[&one], file.path(), Links::Inside, &mut on).unwrap_err();
    assert!(matches!(error, DownloadError::Folder { .. }), "{error}");
    one.poster_url = None;
    let error = Downloader::default().fetch_missing(&[&one], Path::new("unused"), Links::Inside, &mut on).unwrap_err();
    assert!(error.to_string().contains("MovieGenre.csv"), "{error}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_it_fetches_says_what_is_kept_and_how_to_go_on() {
    let server = Server::start(|to, _, _| {
        thread::sleep(Duration::from_millis(20));
        reply(to, "200 OK", "", &poster(ImageFormat::Jpeg))
    });
    let folder = tempfile::tempdir().unwrap();
    let row = |film: usize| format!("{film},Drama,http://127.0.0.1:{}/\n", server.port);
    let rows: String = (1..=2000).map(row).collect();
    fs::write(folder.path().join("MovieGenre.csv"), format!("imdbId,Genre,Poster\n{rows}")).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_onesheet"))
        .current_dir(folder.path())
        .args("prepare --labels MovieGenre.csv --download fetched --genres Drama --no-other --image-size 8".split(' '))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while server.hits("/") < 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended of itself");
        thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let told = "interrupted: nothing was written to posters.safetensors; the posters that came are kept";
    assert!(stderr.contains(told), "{stderr}");
    let kept = names(&folder.path().join("fetched"));
    assert!((9..2000).contains(&kept.len()) && kept.iter().all(|name| name.ends_with(".jpg")), "{kept:?}");
    assert_eq!(names(folder.path()), ["MovieGenre.csv", "fetched"]);
}

#[test]
fn the_tool_fetches_and_prepares_in_one_go() {
    let server = Server::start(|to, path, _| match path {
        "/gone" => reply(to, "404 Not Found", "", b""),
        _ => reply(to, "200 OK", "", &poster(ImageFormat::Jpeg)),
    });
    let folder = tempfile::tempdir().unwrap();
    let at = format!("http://127.0.0.1:{}", server.port);
    let table = format!("imdbId,Genre,Poster\n1,Drama,{at}/1\n2,War,{at}/2\n3,Drama|War,{at}/gone\n4,Drama,\n");
    fs::write(folder.path().join("MovieGenre.csv"), table).unwrap();
    let arguments = "prepare --labels MovieGenre.csv --download fetched --genres Drama --image-size 8 --connections 2";
    let run = || {
        let mut command = Command::cargo_bin("onesheet").unwrap();
        command.current_dir(folder.path()).args(arguments.split(' ')).assert().success();
    };
    run();
    assert_eq!(names(&folder.path().join("fetched")), ["tt0000001.jpg", "tt0000002.jpg"]);
    let skipped = fs::read_to_string(folder.path().join("posters.skipped.csv")).unwrap();
    let expected = "line,id,reason,detail\n4,tt0000003,no poster,download failed: the server answered 404\n5,tt0000004,no poster,\n";
    assert_eq!(skipped, expected);
    // Why it could not be fetched is more to the point than what lies there under its name.
    fs::write(folder.path().join("fetched/3.gif"), "GIF89a").unwrap();
    run();
    assert_eq!(fs::read_to_string(folder.path().join("posters.skipped.csv")).unwrap(), expected);
    assert_eq!([server.hits("/1"), server.hits("/2"), server.hits("/gone")], [1, 1, 2]);

    // One that is there by a link need not be fetched either, if links are followed.
    #[cfg(unix)]
    {
        fs::write(folder.path().join("linked.csv"), format!("imdbId,Genre,Poster\n1,Drama,{at}/1\n5,War,{at}/5\n"))
            .unwrap();
        fs::write(folder.path().join("outside.jpg"), poster(ImageFormat::Jpeg)).unwrap();
        std::os::unix::fs::symlink("../outside.jpg", folder.path().join("fetched/5.jpg")).unwrap();
        let arguments =
            "prepare --labels linked.csv --download fetched --genres Drama --out linked.safetensors --follow-links";
        Command::cargo_bin("onesheet")
            .unwrap()
            .current_dir(folder.path())
            .args(arguments.split(' '))
            .assert()
            .success();
        assert_eq!((server.hits("/1"), server.hits("/5")), (1, 0));
    }

    // Not one arrives: the list says why.
    fs::write(folder.path().join("gone.csv"), format!("imdbId,Genre,Poster\n3,Drama,{at}/gone\n4,War,{at}/gone\n"))
        .unwrap();
    let arguments = "prepare --labels gone.csv --download none --genres Drama --out none.safetensors";
    let mut command = Command::cargo_bin("onesheet").unwrap();
    let output = command.current_dir(folder.path()).args(arguments.split(' ')).assert().code(3);
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("listed with their reasons in none.skipped.csv"), "{stderr}");
    let skipped = fs::read_to_string(folder.path().join("none.skipped.csv")).unwrap();
    assert_eq!(skipped.matches("no poster,download failed: the server answered 404").count(), 2, "{skipped}");
}

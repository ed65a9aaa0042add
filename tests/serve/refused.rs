//! What is not answered: too much, damaged, of another kind, not for this server. The server goes on after each.

use crate::served::{FORM, Served, form};
use crate::{poster, serve};

/// It still answers.
#[track_caller]
fn goes_on(served: &Served) {
    assert_eq!(served.post("/answers", "image/jpeg", &poster("1.jpg")).status, 200);
}

#[test]
fn what_is_no_poster_is_named_with_what_to_do() {
    let served = serve("");
    let jpeg = poster("1.jpg");
    let refused = |kind: &str, body: &[u8], status: u16, words: &[&str]| {
        let told = served.post("/answers", kind, body).problem(status);
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    };
    refused("image/jpeg", &jpeg[..jpeg.len() - 40], 400, &["damaged: it is cut off"]);
    let png = poster("3.png");
    refused("image/png", &png[..png.len() / 2], 400, &["damaged"]);
    refused("image/png", b"", 400, &["not a JPEG, PNG or WebP image"]);
    refused("image/png", b"some text", 400, &["not a JPEG, PNG or WebP image"]);
    refused("image/png", b"GIF89a\x01\0\x01\0\0\0\0;", 415, &["a GIF image; convert it to PNG"]);
    refused("text/plain", &jpeg, 415, &["`text/plain`", "image/jpeg", "multipart/form-data"]);
    refused("multipart/form-data", &jpeg, 400, &["boundary"]);
    refused(FORM, b"no form", 400, &["cannot be read"]);
    refused(FORM, b"--between--\r\n", 400, &["no poster", "`poster`"]);
    refused(FORM, &form("film", &[("a.png", &png)]), 400, &["`film`", "`poster`"]);
    let whole = form("poster", &[("a.png", &png)]);
    refused(FORM, &whole[..whole.len() - 20], 400, &["cannot be read"]);
    // One of several is named, and none is answered.
    refused(FORM, &form("poster", &[("a.png", &png), ("b.png", b"text")]), 400, &["poster 2, b.png: not a JPEG"]);
    refused(FORM, &form("poster", &vec![("a", &png[..]); 65]), 413, &["more than 64 posters"]);
    let told = served.send(
        &format!(
            "POST /answers HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            served.address
        ),
        b"",
    );
    assert!(told.problem(415).contains("says nothing"));
    for (query, words) in [
        ("top=0", "nonzero"),
        ("top=-1", "invalid digit"),
        ("top=4294967296", "too large"),
        ("top=2&top=3", "duplicate field `top`"),
        ("explain=yes", "true"),
        ("explian=true", "unknown field `explian`"),
    ] {
        let told = served.post(&format!("/answers?{query}"), "image/jpeg", &jpeg).problem(422);
        assert!(told.contains(words) && told.ends_with("explain=true and top=3 are what can be asked for"), "{told}");
    }
    assert!(served.get("/nothing").problem(404).contains("there is nothing at /nothing; /openapi.json"));
    let other = served.get("/answers");
    assert!(other.problem(405).contains("/answers takes no GET; /openapi.json"));
    assert_eq!(other.headers["allow"], "POST");
    assert_eq!(served.post("/model", "image/png", &png).headers["allow"], "GET,HEAD");
    goes_on(&served);
}

/// The bytes of a PNG file whose header says another size than its pixels have.
fn lying(width: u32, height: u32) -> Vec<u8> {
    let mut png = poster("3.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

#[test]
fn what_is_larger_than_the_limits_is_refused_before_it_takes_memory() {
    let jpeg = poster("1.jpg");
    let least = jpeg.len();
    let served = serve(&format!("--max-bytes {least}"));
    goes_on(&served);
    let host = served.address;
    let told = served.post("/answers", "image/jpeg", &[&jpeg[..], b"0"].concat()).problem(413);
    assert!(told.contains(&format!("more than {least} bytes")), "{told}");
    // Also a body that is much larger, and one that does not say how long it is.
    served.post("/answers", "image/jpeg", &vec![0; 30 << 20]).problem(413);
    let head = format!(
        "POST /answers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: KIND\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunked = |body: &[u8]| [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    let jpeg_head = head.replace("KIND", "image/jpeg");
    assert_eq!(served.send(&jpeg_head, &chunked(&jpeg)).status, 200);
    served.send(&jpeg_head, &chunked(&vec![0; least + 1])).problem(413);
    served.send(&head.replace("KIND", FORM), &chunked(&form("poster", &[("a", &vec![0; least])]))).problem(413);
    // A client that waits to be told to send is told not to.
    let head = format!("POST /answers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: image/jpeg\r\n");
    served.send(&format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", least + 1), b"").problem(413);

    goes_on(&served);

    // Pixels as the header says, whatever it says. Where these are fewer than the limit, it is still a lie.
    let served = serve("--max-pixels 20000");
    let told = served.post("/answers", "image/png", &lying(200, 101)).problem(413);
    assert!(told.contains("200×101 are more than 20000 pixels"), "{told}");
    served.post("/answers", "image/png", &lying(4_000_000_000, 4_000_000_000)).problem(413);
    let told = served.post("/answers", "image/png", &lying(200, 100)).problem(400);
    assert!(told.starts_with("damaged"), "{told}");
    served.post("/answers", "image/png", &lying(1, 20_000)).problem(413);
    goes_on(&served);
}

#[test]
fn only_who_means_this_server_is_answered() {
    let served = serve("");
    let port = served.address.port();
    let get = |headers: &str| served.send(&format!("GET /model HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"), b"");
    for host in [
        &format!("127.0.0.1:{port}"),
        &format!("localhost:{port}"),
        "LocalHost",
        "localhost:9000",
        "[::1]:80",
        "127.1.2.3",
    ] {
        assert_eq!(get(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in ["films.example", "localhost.example:8080", "192.168.0.1", "a@localhost", "", "127.0.0.1.example"] {
        let told = get(&format!("Host: {host}\r\n")).problem(421);
        assert!(told.contains(&format!("not as `{host}`")), "{told}");
    }
    get("").problem(421);
    assert_eq!(get("Host: localhost\r\nOrigin: http://localhost\r\n").status, 200);
    for origin in ["https://films.example", "null", "http://localhost:81"] {
        let told = get(&format!("Host: localhost\r\nOrigin: {origin}\r\n")).problem(403);
        assert!(told.contains(origin), "{told}");
    }
    // For everybody who reaches it, it has whatever name they know.
    let served = serve("--address 0.0.0.0");
    assert!(served.said.contains("\nanyone who reaches this machine can use it\nlistening on http://0.0.0.0:"));
    let head = "GET /model HTTP/1.1\r\nHost: films.example\r\nConnection: close\r\n";
    assert_eq!(served.send(&format!("{head}\r\n"), b"").status, 200);
    served.send(&format!("{head}Origin: http://other.example\r\n\r\n"), b"").problem(403);
}

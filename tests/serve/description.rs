//! What the server says of itself: the page and its parts, the model, and the description in OpenAPI. That requests are answered as the
//! description says is tested by `.ci/serve`, with requests made from it.

use crate::{folder, serve};
use onesheet::training::checkpoint::Checkpoint;
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn the_model_is_described() {
    let metadata = Checkpoint::open(&folder().join("model.safetensors")).unwrap().metadata().clone();
    let served = serve("--max-bytes 1000 --max-pixels 2000 --max-waiting 3 --max-seconds 4");
    let model = served.get("/model").json();
    let genres = metadata.genres.iter().zip(&metadata.thresholds);
    let genres: Vec<_> = genres.map(|(genre, threshold)| json!({ "genre": genre, "threshold": threshold })).collect();
    // Through the same reader, which drops a last digit here and there.
    let genres: serde_json::Value = serde_json::from_str(&serde_json::to_string(&genres).unwrap()).unwrap();
    let expected = json!({
        "network": "a miniature of ShallowNet", "image_size": 48, "genres": genres, "thresholds": "model", "calibrated": false,
        "temperature": 1.0, "mirror": false, "device": model["device"], "version": format!("onesheet {}", env!("CARGO_PKG_VERSION")),
        "limits": { "bytes": 1000, "pixels": 2000, "waiting": 3, "seconds": 4, "posters": 64 },
    });
    assert_eq!(model, expected);
    assert!(model["device"].as_str().unwrap().ends_with("; --device cpu"), "{model}");
    assert_eq!(served.get("/health").json(), json!({ "status": "ok" }));
}

#[test]
fn every_address_is_described_and_tells_browsers_what_they_may() {
    let served = serve("");
    let description = served.get("/openapi.json").json();
    let paths = description["paths"].as_object().unwrap();
    let expected = ["/", "/page.css", "/page.js", "/openapi.json", "/health", "/model", "/answers"];
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    for path in expected.into_iter().chain(["/nothing"]) {
        let answered = served.get(path);
        assert_eq!(answered.headers["x-content-type-options"], "nosniff", "{path}");
        let policy = &answered.headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        let described = &paths.get(path).unwrap_or(&json!(null))["get"]["responses"]["200"]["content"];
        match described.as_object() {
            Some(kinds) => {
                let kind = answered.headers["content-type"].split(';').next().unwrap();
                assert_eq!(
                    (answered.status, kinds.keys().collect::<Vec<_>>()),
                    (200, vec![&kind.to_owned()]),
                    "{path}"
                );
            }
            None => assert!([404, 405].contains(&answered.status), "{path}"),
        }
    }
    let statuses = paths["/answers"]["post"]["responses"].as_object().unwrap();
    let statuses: Vec<&str> = statuses.keys().map(String::as_str).collect();
    assert_eq!(statuses, ["200", "400", "403", "408", "413", "415", "421", "422", "500", "503"]);

    // The page has all that it needs from here.
    let page = String::from_utf8(served.get("/").body).unwrap();
    for part in ["href=\"page.css\"", "src=\"page.js\"", "href=\"openapi.json\"", "Comedy"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("style="), "{page}");
}

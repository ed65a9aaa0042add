//! What is answered under which address, and to whom.

use super::body::{self, MOST_POSTERS, Sent, check_pixels};
use super::problem::{Problem, discard};
use super::questions::{Answer, Question};
use super::{Limits, description, page};
use crate::answering::answers::{Listed, object, ranked};
use crate::answering::{Answering, Rule};
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use onesheet::data::pixels;
use onesheet::data::squaring::Squaring;
use onesheet::pictures::heat;
use onesheet::training::history::VERSION;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Cursor;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// What answers to requests know of the model, the limits, and the way to the thread that computes.
pub struct Web {
    /// The network's title.
    pub network: &'static str,
    pub image_size: usize,
    pub genres: Vec<String>,
    /// What computes, in words.
    pub device: String,
    pub squaring: Squaring,
    pub answering: Answering,
    pub rule: Rule,
    pub limits: Limits,
    /// Whether this machine alone can connect.
    pub is_local: bool,
    pub questions: mpsc::Sender<Question>,
    /// One for each request that may be in work.
    pub places: Semaphore,
}

/// All addresses.
pub fn router(web: Web) -> Router {
    let web = Arc::new(web);
    let described = description::openapi(&web);
    let page = page::html(&web);
    Router::new()
        .route("/", get(async move || Html(page.clone())))
        .route("/page.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], page::STYLE)))
        .route("/page.js", get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], page::SCRIPT)))
        .route("/openapi.json", get(async move || Json(described.clone())))
        .route("/health", get(async || Json(json!({ "status": "ok" }))))
        .route("/model", get(async |State(web): State<Arc<Web>>| Json(model(&web))))
        .route("/answers", post(answers))
        .fallback(async |uri: Uri| {
            let detail = format!("there is nothing at {}; /openapi.json says what there is", uri.path());
            Problem::new(StatusCode::NOT_FOUND, detail)
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} takes no {method}; /openapi.json says what it takes", uri.path());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(from_fn_with_state(Arc::clone(&web), guard))
        .with_state(web)
}

/// What browsers may do with an answer: the page has its style and its script from here, pictures also from the files that are dropped on
/// it, and nothing else from anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses requests that are not meant for this server, and says with each answer what browsers may do with it.
async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let mut response = match refused(request.headers(), web.is_local) {
        Some(problem) => {
            discard(request.into_body()).await;
            problem.into_response()
        }
        None => next.run(request).await,
    };
    let told: [(HeaderName, &'static str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in told {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is none for this server, if it is none.
///
/// A page elsewhere can have its own name lead to this machine, and its script would then read what is answered here (DNS rebinding). Such
/// requests have that name as their `Host`, so that a server for this machine alone answers to this machine's names only. And a script of
/// another page may send here what it likes without reading the answer; browsers then say whose it is as `Origin`.
fn refused(headers: &HeaderMap, is_local: bool) -> Option<Problem> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if is_local && !is_this_machine(host) {
        let detail = format!("this server answers as localhost, 127.0.0.1 or [::1], not as `{host}`");
        return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, whose)| whose.eq_ignore_ascii_case(host));
    (!is_own).then(|| Problem::new(StatusCode::FORBIDDEN, format!("pages of `{origin}` may not ask this server")))
}

/// Whether a `Host` is this machine, with any port: it may be reached through another one.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    !host.contains('@') && (name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback()))
}

/// What is asked, and within which limits.
fn model(web: &Web) -> Value {
    let Web { network, image_size, genres, device, answering, rule, limits, .. } = web;
    let genres = genres.iter().zip(&rule.thresholds);
    let genres: Vec<Value> =
        genres.map(|(genre, threshold)| json!({ "genre": genre, "threshold": threshold })).collect();
    json!({
        "network": network, "image_size": image_size, "genres": genres, "thresholds": rule.origin, "calibrated": answering.calibrated,
        "temperature": rule.temperature, "mirror": answering.mirror, "device": device, "version": VERSION,
        "limits": {
            "bytes": limits.max_bytes, "pixels": limits.max_pixels, "waiting": limits.max_waiting, "seconds": limits.max_seconds,
            "posters": MOST_POSTERS,
        },
    })
}

/// What is wanted beside the answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Wish {
    /// Where the model sees the genres.
    explain: bool,
    /// The most probable genres only.
    top: Option<NonZeroU32>,
}

async fn answers(State(web): State<Arc<Web>>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    match answered(&web, &parts, &mut body).await {
        Ok(answers) => Json(answers).into_response(),
        Err(problem) => {
            // Who waits to be told that the body is wanted has not sent it.
            if !parts.headers.contains_key(header::EXPECT) {
                discard(body).await;
            }
            problem.into_response()
        }
    }
}

async fn answered(web: &Arc<Web>, parts: &Parts, body: &mut axum::body::Body) -> Result<Value, Problem> {
    let _place = web.places.try_acquire().map_err(|_| {
        let detail =
            format!("{} requests are in work, which is the most; come again in a second", web.limits.max_waiting);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let Query(Wish { explain, top }) = Query::try_from_uri(&parts.uri).map_err(|why| {
        let detail = format!("{}: explain=true and top=3 are what can be asked for", why.body_text());
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })?;
    let listed = Listed { top: top.map(|top| top.get() as usize) };
    let seconds = web.limits.max_seconds;
    let posters = timeout(Duration::from_secs(seconds.into()), body::posters(&parts.headers, body, &web.limits));
    let posters = posters.await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the request was not all there after {seconds} seconds"))
    })??;

    let are_many = posters.len() > 1;
    let mut decoding = Vec::new();
    for (at, sent) in posters.into_iter().enumerate() {
        let web = Arc::clone(web);
        decoding.push(spawn_blocking(move || decode(&web, sent, explain, are_many.then_some(at + 1))));
    }
    let mut posters = Vec::new();
    for decoded in decoding {
        posters.push(decoded.await.map_err(|_| stopped())??);
    }
    let mut waiting = Vec::new();
    for Decoded { name, square, shown } in posters {
        waiting.push((name, shown, ask(web, square, explain.then_some(listed)).await?));
    }
    let mut answers = Vec::new();
    for (name, shown, answer) in waiting {
        let answer = answer.await.map_err(|_| stopped())?;
        let web = Arc::clone(web);
        let said = spawn_blocking(move || say(&web, name, shown.as_ref(), &answer, listed));
        answers.push(said.await.map_err(|_| stopped())?);
    }
    Ok(json!({ "answers": answers }))
}

/// A poster as the network and who draws want it.
struct Decoded {
    name: Option<String>,
    square: Vec<u8>,
    shown: Option<RgbImage>,
}

/// Decodes a poster, which has a `number` if it is one of several.
fn decode(web: &Web, Sent { name, bytes }: Sent, explain: bool, number: Option<usize>) -> Result<Decoded, Problem> {
    let whole = check_pixels(&bytes, &web.limits)
        .and_then(|()| pixels::whole(&bytes, &web.squaring).map_err(|error| body::unreadable(&error)));
    match whole {
        Ok(whole) => {
            let shown = explain.then(|| heat::shown(&whole));
            Ok(Decoded { name, square: pixels::squared(&whole, &web.squaring), shown })
        }
        Err(problem) => Err(match (number, name) {
            (None, _) => problem,
            (Some(number), None) => Problem { detail: format!("poster {number}: {}", problem.detail), ..problem },
            (Some(number), Some(name)) => {
                Problem { detail: format!("poster {number}, {name}: {}", problem.detail), ..problem }
            }
        }),
    }
}

/// Puts a question into the queue, once there is room.
async fn ask(web: &Web, square: Vec<u8>, drawn: Option<Listed>) -> Result<oneshot::Receiver<Answer>, Problem> {
    let (answer, waiting) = oneshot::channel();
    web.questions.send(Question { square, drawn, answer }).await.map_err(|_| stopped())?;
    Ok(waiting)
}

/// What is said of a poster: as in a line of `infer --json`, with its pictures inside.
fn say(web: &Web, name: Option<String>, shown: Option<&RgbImage>, answer: &Answer, listed: Listed) -> Value {
    let answered = ranked(&web.genres, &web.rule.thresholds, &answer.probabilities);
    let mut said = object(listed.of(&answered), &web.device, &web.answering, &web.rule);
    if let Some(name) = name {
        said["poster"] = name.into();
    }
    for (rank, map) in &answer.maps {
        let mut png = Cursor::new(Vec::new());
        let drawn = shown.map(|shown| heat::coloured(shown, map).write_to(&mut png, ImageFormat::Png));
        if let Some(Ok(())) = drawn {
            let picture = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png.into_inner()));
            said["genres"][rank]["picture"] = picture.into();
        }
    }
    said
}

/// The model answers no more.
fn stopped() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server cannot answer any more; its terminal says why")
}

//! The posters in the body of a request.

use super::Limits;
use super::problem::Problem;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyDataStream, BodyExt, LengthLimitError, Limited};
use multer::Multipart;
use onesheet::data::pixels::{self, PixelError};
use std::error::Error;

/// Most posters in a request.
pub const MOST_POSTERS: usize = 64;

/// What a form calls its posters.
pub const FIELD: &str = "poster";

/// The kinds of picture that are read.
pub const KINDS: [&str; 3] = ["image/jpeg", "image/png", "image/webp"];

/// A poster as it came.
pub struct Sent {
    /// The name of its file, if the request has it.
    pub name: Option<String>,
    pub bytes: Bytes,
}

/// The posters of a request: the body itself is one, or a form has some.
///
/// # Errors
/// [`Problem`]: 415 for bodies of other kinds, 413 for what is too large, 400 for what is no such body.
pub async fn posters(headers: &HeaderMap, body: &mut Body, limits: &Limits) -> Result<Vec<Sent>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_form = name == "multipart/form-data";
    if !is_form && !KINDS.contains(&name.as_str()) {
        let told = if name.is_empty() { "nothing".to_owned() } else { format!("`{name}`") };
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the Content-Type says {told}; send {}, or several as multipart/form-data", KINDS.join(", ")),
        ));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.max_bytes) {
        return Err(too_long(limits));
    }
    let body = Limited::new(body, limits.max_bytes.try_into().unwrap_or(usize::MAX));
    if is_form {
        let boundary = multer::parse_boundary(kind).map_err(|why| bad(format!("the Content-Type: {why}")))?;
        return form(Multipart::new(BodyDataStream::new(body), boundary), limits).await;
    }
    match body.collect().await {
        Ok(body) => Ok(vec![Sent { name: None, bytes: body.to_bytes() }]),
        Err(why) => Err(unread(&*why, limits)),
    }
}

async fn form(mut form: Multipart<'_>, limits: &Limits) -> Result<Vec<Sent>, Problem> {
    let mut posters = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|why| unread(&why, limits))? {
        let name = field.file_name().map(str::to_owned);
        if field.name() != Some(FIELD) {
            let found = field.name().unwrap_or_default();
            return Err(bad(format!("a field of the form is called `{found}`; each poster is a field `{FIELD}`")));
        }
        if posters.len() == MOST_POSTERS {
            return Err(too_large(format!("more than {MOST_POSTERS} posters; send the others in another request")));
        }
        posters.push(Sent { name, bytes: field.bytes().await.map_err(|why| unread(&why, limits))? });
    }
    match posters.is_empty() {
        true => Err(bad(format!("no poster is in the form; each is a field `{FIELD}`"))),
        false => Ok(posters),
    }
}

/// A picture that is not read.
pub fn unreadable(error: &PixelError) -> Problem {
    let status = match error {
        PixelError::OtherFormat(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        PixelError::TooLarge { .. } | PixelError::TooDeep { .. } | PixelError::Limits(_) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.to_string())
}

/// Refuses a picture of too many pixels, before it is decoded.
///
/// # Errors
/// [`Problem`], also where it has no header.
pub fn check_pixels(bytes: &[u8], limits: &Limits) -> Result<(), Problem> {
    let (width, height) = pixels::dimensions(bytes).map_err(|error| unreadable(&error))?;
    let most = limits.max_pixels;
    match u64::from(width) * u64::from(height) > most {
        true => Err(too_large(format!("too large: {width}×{height} are more than {most} pixels; make it smaller"))),
        false => Ok(()),
    }
}

/// Why a body cannot be read to its end.
fn unread(error: &(dyn Error + 'static), limits: &Limits) -> Problem {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    if causes.any(|cause| cause.is::<LengthLimitError>()) {
        return too_long(limits);
    }
    bad(format!("the body cannot be read: {error}"))
}

fn too_long(limits: &Limits) -> Problem {
    let most = limits.max_bytes;
    too_large(format!("the request has more than {most} bytes; make the pictures smaller, or send them one by one"))
}

fn too_large(detail: String) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

//! Why a request is not answered, as the client reads it.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// A status, and what is wrong and what to do about it: RFC 9457's `application/problem+json`.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into() }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "type": "about:blank", "title": self.status.canonical_reason().unwrap_or_default(), "status": self.status.as_u16(),
            "detail": self.detail,
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What is read of a request that is refused: so much, for so long.
const MOST: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(2);

/// Reads on in a request that is refused. Clients send it all before they look at the answer, and would see a broken connection instead.
pub async fn discard(mut body: Body) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len());
            if bytes > MOST {
                break;
            }
        }
    };
    let _ = timeout(LONGEST, read).await;
}

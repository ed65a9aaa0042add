//! One request for a poster: deadline, size, redirects, and which addresses may be connected to.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::config::Config;
use ureq::http::{Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::address::is_public;
use crate::data::posters::LARGEST_FILE;

/// The most redirects that are followed for one poster.
const MOST_REDIRECTS: usize = 5;

/// Why one poster did not come.
#[derive(Debug)]
pub(super) enum FetchError {
    BadAddress(String),
    Private(String),
    TooManyRedirects,
    Status {
        code: u16,
        retry_after: Option<Duration>,
    },
    TooLarge,
    NotAnImage,
    /// An image, but not all of it; a connection that broke off looks like this where the length was not told.
    Damaged(String),
    /// A whole image that is no poster.
    Unusable(String),
    /// No answer, or one that breaks off.
    Network(String),
    /// Nothing to do with the server: the poster cannot be stored.
    Store(io::Error),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::BadAddress(url) => write!(f, "`{url}` is no http or https address"),
            FetchError::Private(host) => {
                write!(f, "redirected to {host}, which is in a private network")
            }
            FetchError::TooManyRedirects => write!(f, "more than {MOST_REDIRECTS} redirects"),
            FetchError::Status { code, .. } => write!(f, "the server answered {code}"),
            FetchError::TooLarge => write!(f, "more than {} MB", LARGEST_FILE >> 20),
            FetchError::NotAnImage => write!(f, "what came is no JPEG, PNG or WebP image"),
            FetchError::Damaged(why) | FetchError::Unusable(why) => write!(f, "what came is {why}"),
            FetchError::Network(why) => write!(f, "{why}"),
            FetchError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl FetchError {
    /// Whether another attempt may do better.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            FetchError::Network(_) | FetchError::Damaged(_) | FetchError::Status { code: 408 | 429 | 500..=599, .. }
        )
    }
}

/// The two ways out.
pub(super) struct Web {
    /// For the addresses of the table itself.
    anywhere: Agent,
    /// For redirects: connects to public addresses only.
    public: Agent,
}

impl Web {
    pub(super) fn new() -> Web {
        let config = || {
            Config::builder()
                .user_agent(concat!("onesheet/", env!("CARGO_PKG_VERSION")))
                .accept("image/*")
                .accept_encoding("identity")
                .http_status_as_error(false)
                .max_redirects(0)
                .timeout_connect(Some(Duration::from_secs(10)))
                .build()
        };
        Web {
            anywhere: Agent::with_parts(config(), DefaultConnector::default(), DefaultResolver::default()),
            public: Agent::with_parts(config(), DefaultConnector::default(), PublicOnly::default()),
        }
    }

    /// One attempt, redirects included.
    ///
    /// A redirect within one authority (host and port) says nothing new and is followed; one to another authority must lead to
    /// a public address. Behind an HTTP proxy names are the proxy's to look up, and only addresses in figures are checked here.
    pub(super) fn get(&self, url: &str, end: Instant) -> Result<Vec<u8>, FetchError> {
        let first = web_address(url)?;
        let mut at = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let agent = if at.authority() == first.authority() { &self.anywhere } else { &self.public };
            if std::ptr::eq(agent, &self.public) && host_in_figures(&at).is_some_and(|address| !is_public(address)) {
                return Err(FetchError::Private(at.host().unwrap_or_default().to_owned()));
            }
            let left = end.saturating_duration_since(Instant::now());
            let request =
                agent.get(at.clone()).config().timeout_global(Some(left.max(Duration::from_millis(1)))).build();
            let mut response = request.call().map_err(|error| match error {
                ureq::Error::Other(other) if other.is::<PrivateAddress>() => {
                    FetchError::Private(at.host().unwrap_or_default().to_owned())
                }
                error => FetchError::Network(error.to_string()),
            })?;
            let code = response.status().as_u16();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            match (code, header(header::LOCATION)) {
                (200, _) => {
                    let mut bytes = Vec::new();
                    let body = response.body_mut().as_reader();
                    body.take(LARGEST_FILE + 1)
                        .read_to_end(&mut bytes)
                        .map_err(|error| FetchError::Network(error.to_string()))?;
                    return if bytes.len() as u64 > LARGEST_FILE { Err(FetchError::TooLarge) } else { Ok(bytes) };
                }
                (301 | 302 | 303 | 307 | 308, Some(location)) => at = follow(&at, location)?,
                _ => {
                    let seconds = header(header::RETRY_AFTER).and_then(|seconds| seconds.parse::<u32>().ok());
                    return Err(FetchError::Status {
                        code,
                        retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
                    });
                }
            }
        }
        Err(FetchError::TooManyRedirects)
    }
}

/// `text` as an address, if it is one of http or https.
fn web_address(text: &str) -> Result<Uri, FetchError> {
    let address: Option<Uri> = text.parse().ok();
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    address.filter(usable).ok_or_else(|| FetchError::BadAddress(text.chars().take(200).collect()))
}

/// Where `location`, which may be relative, leads from `at`.
fn follow(at: &Uri, location: &str) -> Result<Uri, FetchError> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) =
        (at.scheme_str().unwrap_or_default(), at.authority().map_or("", |authority| authority.as_str()));
    // A colon before any slash ends a scheme, whether http or not.
    let has_scheme = location.split(['/', '?']).next().is_some_and(|head| head.contains(':'));
    let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    web_address(&match location {
        _ if has_scheme => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => format!("{scheme}://{authority}{folder}/{location}"),
    })
}

/// The address of a host that is written in figures.
fn host_in_figures(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Looks names up like everybody, and forgets the addresses that are not public.
#[derive(Debug, Default)]
struct PublicOnly(DefaultResolver);

/// All addresses of a name were private.
#[derive(Debug, thiserror::Error)]
#[error("a private address")]
struct PrivateAddress;

impl Resolver for PublicOnly {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.0.resolve(uri, config, timeout)?;
        let mut public = self.empty();
        for &address in all.iter().filter(|address| is_public(address.ip())) {
            public.push(address);
        }
        if public.is_empty() { Err(ureq::Error::Other(Box::new(PrivateAddress))) } else { Ok(public) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_like_links() {
        let at: Uri = "http://host:81/posters/a.jpg?x=1".parse().unwrap();
        let follow = |location| follow(&at, location).map(|uri| uri.to_string()).map_err(|_| ());
        assert_eq!(follow("b.jpg"), Ok("http://host:81/posters/b.jpg".to_owned()));
        assert_eq!(follow("/b.jpg?y#top"), Ok("http://host:81/b.jpg?y".to_owned()));
        assert_eq!(follow("//other/b"), Ok("http://other/b".to_owned()));
        assert_eq!(follow("https://other/b"), Ok("https://other/b".to_owned()));
        for refused in
            ["file:///etc/passwd", "file:/etc/passwd", "ftp://other/b", "data:image/png;base64,xx", "http://", "x y"]
        {
            assert_eq!(follow(refused), Err(()), "{refused}");
        }
    }
}

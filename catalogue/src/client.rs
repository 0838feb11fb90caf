//! Asking a server over HTTP, with bounds on time, size and tries.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::Url;

use crate::error::CatalogueError;
use crate::progress::Progress;
use crate::settings::{Patience, Secret, Settings};

/// Longest page we read: the index page of a project with thousands of files has a few MiB.
const PAGE_BYTES_MAX: u64 = 32 << 20;
/// Longest time for a whole page, however it trickles in.
const PAGE_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A try that brought this many bytes does not count as a failure.
const GAIN_MIN: u64 = 1 << 20;
/// Most redirects that [`Client::head`] follows.
const REDIRECTS_MAX: usize = 5;

pub(crate) type Response = ureq::http::Response<Body>;

/// Why one try failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work the next time.
    Passing {
        /// What happened.
        reason: String,
        /// Bytes that came all the same, and are kept.
        gained: u64,
    },
    /// It will not.
    Lasting(CatalogueError),
}

impl Trouble {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), gained: 0 }
    }
}

impl From<CatalogueError> for Trouble {
    fn from(error: CatalogueError) -> Self {
        Self::Lasting(error)
    }
}

/// Asks servers.
pub(crate) struct Client<'a> {
    agent: Agent,
    token: Option<Secret>,
    patience: &'a Patience,
    pub(crate) progress: &'a dyn Fn(Progress<'_>),
}

impl<'a> Client<'a> {
    /// A client that trusts the system's root certificates and goes through the proxies that the
    /// environment names. The token goes with every request, and to no other host.
    pub(crate) fn new(
        settings: &'a Settings,
        token: Option<Secret>,
        progress: &'a dyn Fn(Progress<'_>),
    ) -> Self {
        let patience = &settings.patience;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("arcmesh/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(patience.connect_max))
            .timeout_connect(Some(patience.connect_max))
            .timeout_recv_response(Some(patience.silence_max))
            .timeout_per_read(Some(patience.silence_max))
            .timeout_per_write(Some(patience.silence_max))
            .build()
            .new_agent();
        Self { agent, token, patience, progress }
    }

    /// Reads a JSON page.
    pub(crate) fn page<T: DeserializeOwned>(
        &self,
        url: &Url,
        accept: &str,
    ) -> Result<T, CatalogueError> {
        let what = shown(url);
        let text = self.patiently(&what, || {
            let request = self.agent.get(url.as_str()).header("Accept", accept);
            let request = request.config().timeout_global(Some(PAGE_TIME_MAX)).build();
            let mut response =
                self.authorised(request).call().map_err(|error| trouble(&what, &error))?;
            accept_status(response.status(), &what)?;
            let body = response.body_mut().with_config().limit(PAGE_BYTES_MAX);
            body.read_to_vec().map_err(|error| trouble(&what, &error))
        })?;
        serde_json::from_slice(&text).map_err(|error| CatalogueError::Refused {
            reason: format!("the answer is not the JSON that was asked for ({error})"),
            what,
        })
    }

    /// Asks for the headers of a file alone. Follows redirects within the host only: where the hub
    /// sends us elsewhere for the bytes, the headers that tell about the file are its own.
    pub(crate) fn head(&self, url: &Url) -> Result<HeaderMap, CatalogueError> {
        let what = shown(url);
        self.patiently(&what, || {
            let mut address = url.clone();
            for _ in 0..REDIRECTS_MAX {
                let request = self.agent.head(address.as_str());
                let request = request.header("Accept-Encoding", "identity");
                let request =
                    request.config().max_redirects(0).max_redirects_will_error(false).build();
                let response =
                    self.authorised(request).call().map_err(|error| trouble(&what, &error))?;
                let target = text(response.headers(), "location");
                let target = target.and_then(|target| address.join(target).ok());
                match target {
                    _ if !response.status().is_redirection() => {
                        accept_status(response.status(), &what)?;
                        return Ok(response.into_parts().0.headers);
                    }
                    Some(target) if target.origin() == address.origin() => address = target,
                    _ => return Ok(response.into_parts().0.headers),
                }
            }
            Err(refused(&what, "it redirects in a circle").into())
        })
    }

    /// Asks for the bytes of a file, from `start` on.
    pub(crate) fn bytes(&self, url: &Url, start: u64) -> Result<Response, Trouble> {
        let mut request = self.agent.get(url.as_str()).header("Accept-Encoding", "identity");
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        self.authorised(request).call().map_err(|error| trouble(&shown(url), &error))
    }

    /// Tries until it works, until it can't, or until our patience ends.
    pub(crate) fn patiently<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, CatalogueError> {
        let mut failures = 0;
        loop {
            let (reason, gained) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing { reason, gained }) => (reason, gained),
            };
            failures = if gained >= GAIN_MIN { 1 } else { failures + 1 };
            if failures >= self.patience.tries_max {
                return Err(CatalogueError::Network { what: what.to_owned(), reason });
            }
            (self.progress)(Progress::Notice(&format!("{what}: {reason}; trying again")));
            let doublings = 1_u32 << (failures - 1).min(16);
            std::thread::sleep(self.patience.pause.saturating_mul(doublings).min(PAUSE_MAX));
        }
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(Secret(token)) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

/// Passes an answer that brings what was asked for; says of any other whether to try again.
pub(crate) fn accept_status(status: StatusCode, what: &str) -> Result<(), Trouble> {
    let hint = match status.as_u16() {
        200..=299 => return Ok(()),
        408 | 425 | 429 | 500..=599 => {
            return Err(Trouble::passing(format!("the server answered {status}")));
        }
        401 | 403 => ": is the name right? Private and gated repositories need HF_TOKEN",
        404 | 410 => ": it does not exist there",
        _ => "",
    };
    Err(refused(what, &format!("the server answered {status}{hint}")).into())
}

/// Says of a failure below HTTP whether to try again.
pub(crate) fn trouble(what: &str, error: &ureq::Error) -> Trouble {
    match error {
        ureq::Error::Timeout(phase) => Trouble::passing(format!("the server is silent ({phase})")),
        ureq::Error::HostNotFound => Trouble::passing("the host was not found"),
        ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            Trouble::passing(error.to_string())
        }
        ureq::Error::Io(error) if !is_tls(error) => Trouble::passing(error.to_string()),
        _ => refused(what, &error.to_string()).into(),
    }
}

/// A header as text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An address as a person may see it: without name and password.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // An address that can't have them has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Understands an address; only HTTP is spoken.
pub(crate) fn address(text: &str) -> Result<Url, CatalogueError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(refused(text, "that is no http or https address")),
    }
}

pub(crate) fn refused(what: &str, reason: &str) -> CatalogueError {
    CatalogueError::Refused { what: what.to_owned(), reason: reason.to_owned() }
}

/// A certificate that is not trusted now will not be in a second.
fn is_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

//! How long a client says it will wait: the field `timeout` or a header, in seconds.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::fields::Fields;

const HEADER: &str = "x-arcmesh-timeout";
const FIELD: &str = "timeout";
/// A day: whoever says more means no bound at all.
const SECONDS_MAX: f64 = 86_400.0;

/// From the head of a request.
pub(super) fn of_header(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    seconds.and_then(duration).map(Some).ok_or_else(|| wrong(HEADER))
}

/// From its body.
pub(super) fn of_field(fields: &mut Fields<'_>) -> Result<Option<Duration>, ApiError> {
    let Some(seconds) = fields.number(FIELD)? else { return Ok(None) };
    duration(seconds).map(Some).ok_or_else(|| wrong(FIELD))
}

fn duration(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(SECONDS_MAX)))
}

fn wrong(name: &str) -> ApiError {
    ApiError::invalid(name, format!("{name} must be a number of seconds over 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_number_of_seconds_over_0() {
        let of = |text: &str| {
            of_header(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(of_header(&HeaderMap::new()), Ok(None));
        assert_eq!(of("1.5"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(of("1e300"), Ok(Some(Duration::from_secs(86_400))));
        for text in ["", "soon", "0", "-1", "NaN", "5s"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}

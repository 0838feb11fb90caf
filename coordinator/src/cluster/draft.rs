//! Who of those that may be a rank takes part in the next group.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::pending;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::worker::Description;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::cluster::form::{Wish, failed, gone, lost};
use crate::cluster::{ClusterError, Member, MemberRequest, RankLook};

/// A rank says what it is within this time: no work is needed for it.
pub(crate) const DESCRIBE_MAX: Duration = Duration::from_secs(3);

/// Those who are there answer about as fast as each other.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(500);

/// How many ranks there shall be, and who may be one.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The preferred ones first.
    pub(crate) candidates: Vec<Member>,
    /// Ranks that are wanted.
    pub(crate) wanted: usize,
    /// Ranks that will do.
    pub(crate) least: usize,
    /// Who says nothing for this long is not there.
    pub(crate) silence_max: Duration,
    /// Whoever cannot take part is left out.
    pub(crate) open: bool,
    /// Weight bytes a second, by name, of those that were measured.
    pub(crate) speeds: HashMap<String, f64>,
}

/// The ranks of the next group.
#[derive(Debug)]
pub(super) struct Drafted {
    /// In order of rank.
    pub(super) members: Vec<Member>,
    /// What each of them is.
    pub(super) looks: Vec<RankLook>,
    /// The newest epoch that anybody knows of.
    pub(super) newest: u64,
}

/// Asks everybody, and takes the first who can.
pub(super) async fn draft(draft: &Draft, wish: &Wish) -> Result<Drafted, ClusterError> {
    let Draft { candidates, wanted, least, silence_max, open, speeds: _ } = draft;
    if candidates.is_empty() {
        return Err(none_there(*open));
    }
    let described = describe_all(candidates, *least, *silence_max).await;
    let mut newest = 0;
    let (mut members, mut looks) = (Vec::new(), Vec::new());
    let mut reason = None;
    for (at, (member, described)) in candidates.iter().zip(described).enumerate() {
        let Some(described) = described else { continue };
        let fits = described.and_then(|described| {
            newest = described.epoch.max(newest);
            agrees(at, member, &described, wish)?;
            Ok(look(member, described))
        });
        match fits {
            Ok(look) => {
                members.push(member.clone());
                looks.push(look);
            }
            // A rank of this process that has ended ends it too; a stranger ends only a closed group.
            Err(error @ ClusterError::Ended { .. }) => return Err(error),
            Err(error @ ClusterError::Unusable(_)) if !open => return Err(error),
            Err(error) => {
                tracing::debug!("left out: {error}");
                reason.get_or_insert(error);
            }
        }
    }
    if members.len() < *least {
        let away = match reason {
            Some(ClusterError::Unusable(what)) => ClusterError::Waiting(what),
            Some(error) => error,
            None => {
                ClusterError::Waiting(format!("{} of {least} workers are there", members.len()))
            }
        };
        return Err(away);
    }
    members.truncate(*wanted);
    looks.truncate(*wanted);
    Ok(Drafted { members, looks, newest })
}

fn look(member: &Member, described: Description) -> RankLook {
    let target = target(member, &described);
    let Description { node, backend, device, threads, memory_bytes, .. } = described;
    let name = member.name.clone();
    // How much it takes on is found out later.
    let (share, weight_bytes) = (0, 0);
    RankLook { name, node, backend, device, threads, memory_bytes, target, share, weight_bytes }
}

fn none_there(open: bool) -> ClusterError {
    if open {
        ClusterError::Waiting("no worker is there".to_owned())
    } else {
        ClusterError::Unusable("there is no worker to form a group of".to_owned())
    }
}

/// What each says of itself. Once enough have answered, nobody waits long for the others.
async fn describe_all(
    candidates: &[Member],
    enough: usize,
    silence_max: Duration,
) -> Vec<Option<Result<Description, ClusterError>>> {
    let mut asked: FuturesUnordered<_> = candidates
        .iter()
        .enumerate()
        .map(|(at, member)| async move { (at, describe(at, member, silence_max).await) })
        .collect();
    let mut described: Vec<_> = candidates.iter().map(|_| None).collect();
    let mut well = 0;
    loop {
        let late = async {
            if well < enough {
                pending::<()>().await;
            }
            sleep(LATE_MAX).await;
        };
        tokio::select! {
            answer = asked.next() => match answer {
                Some((at, answer)) => {
                    well += usize::from(answer.is_ok());
                    described[at] = Some(answer);
                }
                None => return described,
            },
            () = late => return described,
        }
    }
}

/// What a member says of itself.
pub(crate) async fn describe(
    at: usize,
    member: &Member,
    silence_max: Duration,
) -> Result<Description, ClusterError> {
    let (reply, answer) = oneshot::channel();
    let asking = async {
        let asked = member.requests.send(MemberRequest::Describe { reply }).await;
        if asked.is_err() {
            return Err(gone(at, member));
        }
        match answer.await {
            Ok(described) => described.map_err(|error| failed(at, member, &error)),
            Err(_) => Err(gone(at, member)),
        }
    };
    timeout(silence_max, asking).await.unwrap_or_else(|_| {
        let what = format!("silent for {:.1} s", silence_max.as_secs_f64());
        Err(lost(at, member, "deadline", what))
    })
}

/// Where a rank's own figures are. One that listens on every address is found where we reach it.
fn target(member: &Member, description: &Description) -> Option<String> {
    let bound: SocketAddr = description.metrics.parse().ok()?;
    if !bound.ip().is_unspecified() {
        return Some(bound.to_string());
    }
    let (host, _) = member.address.as_ref()?.rsplit_once(':')?;
    Some(format!("{host}:{}", bound.port()))
}

/// One version and one model throughout, or a message that names who differs.
fn agrees(
    at: usize,
    member: &Member,
    description: &Description,
    wish: &Wish,
) -> Result<(), ClusterError> {
    let ours = env!("CARGO_PKG_VERSION");
    if description.version != ours {
        return Err(ClusterError::Unusable(format!(
            "rank {at} ({}) is arcmesh {}, the coordinator is {ours}: start the same version everywhere",
            member.name, description.version
        )));
    }
    if description.model_digest != wish.model_digest {
        return Err(ClusterError::Unusable(format!(
            "rank {at} ({}) has another model than the coordinator: it was started with {}, whose files are {}, \
             the coordinator's are {}",
            member.name,
            description.model,
            hex(&description.model_digest),
            hex(&wish.model_digest)
        )));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn figures_are_where_a_rank_says_or_where_it_is_reached() {
        let (requests, _asked) = mpsc::channel(1);
        let member = |address: Option<&str>| Member {
            name: "a rank".to_owned(),
            address: address.map(str::to_owned),
            requests: requests.clone(),
        };
        let said =
            |metrics: &str| Description { metrics: metrics.to_owned(), ..Description::default() };
        let found = |address, metrics| target(&member(address), &said(metrics));
        assert_eq!(found(Some("gpu7:7001"), "0.0.0.0:9101"), Some("gpu7:9101".to_owned()));
        assert_eq!(found(Some("[::1]:7001"), "[::]:9101"), Some("[::1]:9101".to_owned()));
        assert_eq!(found(Some("gpu7:7001"), "10.0.0.7:9101"), Some("10.0.0.7:9101".to_owned()));
        assert_eq!(found(Some("gpu7:7001"), "nonsense"), None);
        assert_eq!(found(None, ""), None);
    }
}

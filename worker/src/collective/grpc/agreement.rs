//! Which lane a group takes: the ranks agree on it over their streams, once these are there.
//!
//! Rank 0 makes memory and offers it to all; each of them says whether it has mapped it, and rank 0 whether all
//! have. Whatever keeps one of them from it, the group goes over gRPC, and every rank knows why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::collective::LaneWord;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::collective::grpc::Driver;
use crate::collective::grpc::link::{Link, Tag};
use crate::collective::lane::{LaneCollective, Segment, Table};
use crate::collective::{CollectiveError, LaneChoice};

/// What the frames of an agreement are about: indices of step 0.
const OFFER: u32 = 1;
const ANSWER: u32 = 2;
const VERDICT: u32 = 3;

/// One rank of a group that agrees.
pub(super) struct Agreement<'a> {
    pub(super) epoch: u64,
    pub(super) rank: u32,
    pub(super) links: &'a mut [Option<Link>],
    pub(super) deadline: Instant,
}

/// Shared memory, or why there is none.
pub(super) type Agreed = Result<Segment, String>;

impl Agreement<'_> {
    /// # Errors
    /// When a peer says nothing, or nothing that makes sense.
    pub(super) async fn reach(mut self, choice: &LaneChoice) -> Result<Agreed, CollectiveError> {
        if self.rank == 0 { self.offer(choice).await } else { self.accept(choice).await }
    }

    async fn offer(&mut self, choice: &LaneChoice) -> Result<Agreed, CollectiveError> {
        let made = match choice {
            LaneChoice::Grpc => Err(told(0)),
            LaneChoice::Auto(folder) => {
                Segment::create(folder, self.links.len()).map_err(|why| format!("rank 0: {why}"))
            }
        };
        let (segment, named) = match made {
            Ok(made) => made,
            Err(refusal) => {
                self.tell_all(OFFER, &LaneWord { refusal: refusal.clone(), ..LaneWord::default() })
                    .await?;
                return Ok(Err(refusal));
            }
        };
        let (name, mark) = (named.name.clone(), named.mark.to_vec());
        self.tell_all(OFFER, &LaneWord { name, mark, ..LaneWord::default() }).await?;
        let mut refusal = String::new();
        for peer in 1..self.links.len() {
            let answer = self.hear(peer, ANSWER).await?;
            if refusal.is_empty() {
                refusal = answer.refusal;
            }
        }
        // Whoever wants it has it.
        drop(named);
        self.tell_all(VERDICT, &LaneWord { refusal: refusal.clone(), ..LaneWord::default() })
            .await?;
        Ok(if refusal.is_empty() { Ok(segment) } else { Err(refusal) })
    }

    async fn accept(&mut self, choice: &LaneChoice) -> Result<Agreed, CollectiveError> {
        let LaneWord { name, mark, refusal } = self.hear(0, OFFER).await?;
        if !refusal.is_empty() {
            return Ok(Err(refusal));
        }
        let rank = self.rank;
        let opened = match choice {
            LaneChoice::Grpc => Err(told(rank)),
            LaneChoice::Auto(folder) => Segment::open(folder, &name, &mark, self.links.len())
                .map_err(|why| format!("rank {rank}: {why}")),
        };
        let refusal = opened.as_ref().err().cloned().unwrap_or_default();
        self.tell(0, ANSWER, &LaneWord { refusal, ..LaneWord::default() }).await?;
        let LaneWord { refusal, .. } = self.hear(0, VERDICT).await?;
        Ok(if refusal.is_empty() { opened } else { Err(refusal) })
    }

    async fn tell_all(&self, index: u32, word: &LaneWord) -> Result<(), CollectiveError> {
        for peer in 1..self.links.len() {
            self.tell(peer, index, word).await?;
        }
        Ok(())
    }

    async fn tell(&self, peer: usize, index: u32, word: &LaneWord) -> Result<(), CollectiveError> {
        let payload = Bytes::from(word.encode_to_vec());
        let link = self.links[peer].as_ref().expect(ALL_THERE);
        link.send(self.tag(index), 0, &payload, self.patience()).await
    }

    async fn hear(&mut self, peer: usize, index: u32) -> Result<LaneWord, CollectiveError> {
        let (tag, patience) = (self.tag(index), self.patience());
        let link = self.links[peer].as_mut().expect(ALL_THERE);
        let payload = link.receive(tag, 0, patience).await?;
        let bytes = payload.len();
        LaneWord::decode(payload).map_err(|_| link.wrong_length(0, "a word about the lane", bytes))
    }

    fn tag(&self, index: u32) -> Tag {
        Tag { rank: self.rank, epoch: self.epoch, step: 0, index }
    }

    fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

const ALL_THERE: &str = "a group agrees when all links are there";

/// One rank's end of a group in shared memory, whose streams are watched from now on. Must be called on a
/// thread of the driver's runtime.
pub(super) fn share(
    segment: Segment,
    driver: &Driver,
    epoch: u64,
    rank: usize,
    links: Vec<Option<Link>>,
    over: CancellationToken,
) -> LaneCollective {
    let table = Arc::new(Table::new(segment, rank));
    let mut watches = Vec::new();
    for link in links.into_iter().flatten() {
        // Each holds the driver, so that somebody drives.
        let (table, driver) = (Arc::clone(&table), driver.clone());
        watches.push(driver.handle().clone().spawn(async move {
            let (peer, _driver) = (link.peer, driver);
            table.lose(peer, link.end().await);
        }));
    }
    let watched = Arc::clone(&table);
    watches.push(driver.handle().spawn(async move {
        over.cancelled_owned().await;
        watched.lose(rank, "a newer group forms".to_owned());
    }));
    LaneCollective::new(table, epoch, watches.into_iter().map(AbortOnDropHandle::new).collect())
}

fn told(rank: u32) -> String {
    format!("rank {rank} was told to use gRPC")
}

//! What a worker says to those who should not call, and that the group does not notice.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use proto::collective::Frame;
use proto::collective::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use worker::collective::grpc::{FRAME_BYTES_MAX, FormError};
use worker::collective::{Collective, CollectiveError};

use crate::groups::{HASTY, PATIENT, Site, on_every_rank};

/// Opens a stream to a rank of the site as anybody could, and gives what came of it. Without a frame it
/// is closed at once.
pub(crate) fn call(
    site: &Site,
    rank: usize,
    frames: Vec<Frame>,
) -> Result<(Option<mpsc::Sender<Frame>>, Streaming<Frame>), Status> {
    let address = format!("http://{}", site.peers[rank]);
    site.runtime.block_on(async move {
        let mut client = PeerClient::connect(address).await.unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let sender = Some(sender).filter(|_| !frames.is_empty());
        for frame in frames {
            sender.as_ref().unwrap().send(frame).await.unwrap();
        }
        let stream = client.exchange(ReceiverStream::new(receiver)).await?.into_inner();
        Ok((sender, stream))
    })
}

pub(crate) fn greeting(epoch: u64, rank: u32) -> Frame {
    Frame { epoch, rank, ..Frame::default() }
}

/// The group works.
fn add_up(ends: Vec<Box<dyn Collective>>) {
    let world = ends.len() as f64;
    on_every_rank(ends, |end| {
        end.begin(1, PATIENT);
        let mut values = [1.0];
        end.all_reduce(&mut values).unwrap();
        assert_eq!(values, [world]);
    });
}

/// Rank 0 of a group of two begins to form; the test does something; then rank 1 comes.
fn while_forming(epoch: u64, disturb: impl Fn(&Site)) {
    let site = Site::new(2);
    let (board, peers) = (site.boards[0].clone(), site.peers.clone());
    let first = site.runtime.spawn(async move { board.form(epoch, 0, &peers, PATIENT).await });
    // It has begun when a stream for its epoch is refused for its rank alone.
    while call(&site, 0, vec![greeting(epoch, 0)]).unwrap_err().code() != Code::InvalidArgument {}
    disturb(&site);
    let second = site.runtime.block_on(site.boards[1].form(epoch, 1, &site.peers, PATIENT));
    let first = site.runtime.block_on(first).unwrap();
    add_up(vec![first.unwrap(), second.unwrap()]);
}

#[test]
fn a_rank_that_cannot_be_is_refused_and_the_group_forms() {
    while_forming(5, |site| {
        for rank in [0, 2, u32::MAX] {
            let status = call(site, 0, vec![greeting(5, rank)]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().starts_with("rank 0 of 2 is not called by a rank"));
        }
    });
}

#[test]
fn a_stream_without_a_greeting_is_refused_and_the_group_forms() {
    while_forming(5, |site| {
        let payload = Bytes::from_static(&[0; 8]);
        let frame = Frame { epoch: 5, rank: 1, step: 1, payload, ..Frame::default() };
        let status = call(site, 0, vec![frame]).unwrap_err();
        assert_eq!(status.message(), "the first frame must be a greeting");
        let status = call(site, 0, vec![]).unwrap_err();
        assert_eq!(status.message(), "the stream ended before its greeting");
    });
}

#[test]
fn an_oversized_frame_is_refused_and_the_group_forms() {
    while_forming(5, |site| {
        let payload = vec![0; FRAME_BYTES_MAX].into();
        let frame = Frame { payload, ..greeting(5, 1) };
        assert_eq!(call(site, 0, vec![frame]).unwrap_err().code(), Code::OutOfRange);
    });
}

#[test]
fn bytes_that_are_no_protocol_are_refused_and_the_group_forms() {
    while_forming(5, |site| {
        let mut stream = TcpStream::connect(&site.peers[0]).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        // The server hangs up. What it says before does not matter.
        drop(stream.read_to_end(&mut Vec::new()));
    });
}

#[test]
fn another_epoch_is_refused_by_name_and_the_group_forms() {
    while_forming(5, |site| {
        let status = call(site, 0, vec![greeting(4, 1)]).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "epoch 4 is over: now at 5"));
        // The future may come: to be tried again.
        let status = call(site, 0, vec![greeting(6, 1)]).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    });
}

#[test]
fn nobody_joins_a_group_that_is_complete() {
    let site = Site::new(2);
    let ends = site.form(3);
    let status = call(&site, 0, vec![greeting(3, 1)]).unwrap_err();
    assert_eq!(status.message(), "the group of epoch 3 is complete");
    add_up(ends);
}

#[test]
fn a_worker_forms_one_epoch_after_another_but_never_an_old_one() {
    let site = Site::new(2);
    let old = site.form(3);
    let new = site.form(4);
    let stale = site.boards[0].form(4, 0, &site.peers, HASTY);
    let error = site.runtime.block_on(stale).err().unwrap();
    assert!(matches!(error, FormError::Superseded { epoch: 4, newest: 4 }), "{error}");
    add_up(new);
    drop(old);
}

#[test]
fn a_newer_epoch_ends_the_one_that_is_forming() {
    let site = Site::new(2);
    let (board, peers) = (site.boards[0].clone(), site.peers.clone());
    let old = site.runtime.spawn(async move { board.form(1, 0, &peers, PATIENT).await });
    while call(&site, 0, vec![greeting(1, 0)]).unwrap_err().code() != Code::InvalidArgument {}
    add_up(site.form(2));
    let error = site.runtime.block_on(old).unwrap().err().unwrap();
    assert!(matches!(error, FormError::Superseded { epoch: 1, newest: 2 }), "{error}");
}

#[test]
fn who_is_missing_when_a_group_does_not_form_is_named() {
    let site = Site::new(2);
    let error = site.runtime.block_on(site.boards[0].form(1, 0, &site.peers, HASTY)).err().unwrap();
    assert!(matches!(error, FormError::Silent { peer: 1, .. }), "{error}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peers = [nobody.to_string(), site.peers[1].clone()];
    let error = site.runtime.block_on(site.boards[1].form(1, 1, &peers, HASTY)).err().unwrap();
    assert!(matches!(&error, FormError::Unreachable { peer: 0, .. }), "{error}");
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_group_that_cannot_be_is_not_formed() {
    let site = Site::new(1);
    let error = site.runtime.block_on(site.boards[0].form(1, 1, &site.peers, HASTY)).err().unwrap();
    assert!(matches!(error, FormError::Impossible { rank: 1, world: 1 }));
    let peers = ["127.0.0.1:1 /?".to_owned(), site.peers[0].clone()];
    let error = site.runtime.block_on(site.boards[0].form(1, 1, &peers, HASTY)).err().unwrap();
    assert!(matches!(error, FormError::Refused { peer: 0, .. }), "{error}");
}

#[test]
fn a_peer_that_breaks_the_rules_of_a_group_is_named() {
    let payload = |bytes: usize| Bytes::from(vec![0; bytes]);
    let good = Frame { step: 1, payload: payload(8), ..greeting(7, 1) };
    let wrong = [
        Frame { epoch: 6, ..good.clone() },
        Frame { rank: 0, ..good.clone() },
        Frame { step: 2, ..good.clone() },
        Frame { index: 1, ..good.clone() },
        Frame { part: 1, ..good.clone() },
        Frame { payload: payload(7), ..good.clone() },
        Frame { payload: payload(16), ..good.clone() },
        Frame { payload: payload(FRAME_BYTES_MAX), ..good.clone() },
    ];
    for (at, frame) in wrong.into_iter().enumerate() {
        let site = Site::new(2);
        let (board, peers) = (site.boards[0].clone(), site.peers.clone());
        let end = site.runtime.spawn(async move { board.form(7, 0, &peers, PATIENT).await });
        let (_sender, _stream) = loop {
            if let Ok(streams) = call(&site, 0, vec![greeting(7, 1), frame.clone()]) {
                break streams;
            }
        };
        let mut end = site.runtime.block_on(end).unwrap().unwrap();
        end.begin(1, PATIENT);
        let error = end.all_reduce(&mut [1.0]).unwrap_err();
        match error {
            CollectiveError::Mismatch { peer: 1, .. } => assert!(at < 7, "{at}: {error}"),
            CollectiveError::PeerLost { peer: 1, .. } => assert!(at == 7, "{at}: {error}"),
            _ => panic!("{at}: {error}"),
        }
    }
}

#[test]
fn a_gather_does_not_believe_any_count() {
    for count in [3_u64, 12, 1 << 40, u64::MAX] {
        let site = Site::new(2);
        let (board, peers) = (site.boards[0].clone(), site.peers.clone());
        let end = site.runtime.spawn(async move { board.form(7, 0, &peers, PATIENT).await });
        let payload: Bytes = [count.to_le_bytes(), [0; 8]].concat().into();
        let frame = Frame { step: 1, payload, ..greeting(7, 1) };
        let (_sender, _stream) = loop {
            if let Ok(streams) = call(&site, 0, vec![greeting(7, 1), frame.clone()]) {
                break streams;
            }
        };
        let mut end = site.runtime.block_on(end).unwrap().unwrap();
        end.begin(1, PATIENT);
        let error = end.gather(&[1.0], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, CollectiveError::Mismatch { peer: 1, .. }), "{count}: {error}");
    }
}

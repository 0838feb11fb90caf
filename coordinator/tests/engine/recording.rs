//! What the scheduler was told replays bit for bit, and a file that says something else is told so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator::{
    Ending, Patience, RecordTo, Recording, ReplayError, Replayed, Roster, ServingLimits, replay,
};
use scheduler::{Admission, CancelReason, Policy};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fleet::{Question, STEP_TIME, assert_undisturbed, limits, questions, start_recorded};
use crate::network::Random;
use crate::oracle::Oracle;

/// A busy time over two ranks, one of which dies in it: groups that fork, are swapped, computed again,
/// cancelled, ended by stop tokens, and found in the prefix cache.
async fn record(file: &Path, bytes_max: u64, policy: Policy) {
    let oracles: Vec<_> = (0..2).map(|_| Oracle::new(STEP_TIME)).collect();
    oracles[1].faults(|faults| faults.dies_in = Some(25));
    let members: Vec<_> = oracles.iter().enumerate().map(|(at, o)| o.member(at)).collect();
    let limits =
        ServingLimits { swap_bytes: Some(700), policy, admission: Admission::Prompt, ..limits(60) };
    let recording = Recording::begin(&RecordTo { file: file.to_path_buf(), bytes_max }).unwrap();
    let roster = Roster::fixed(members);
    let mut fleet = start_recorded(roster, oracles, limits, Patience::default(), Some(recording));
    fleet.ready().await;
    let mut questions = questions(24);
    for question in questions.iter_mut().step_by(3) {
        question.stop_tokens = vec![11, 12, 13, 14, 15];
    }
    let cancelled = fleet.submit(&Question::new(9, 150)).await.unwrap();
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_millis(100)).await;
        cancelled.cancel(CancelReason::Stop).await;
    });
    assert_undisturbed(&questions, &told);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    fleet.shutdown.cancel();
    fleet.task.await.unwrap().unwrap();
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("recording.jsonl")
}

fn again(text: &[u8]) -> Result<Replayed, ReplayError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(file(&folder), text).unwrap();
    replay(&file(&folder))
}

#[tokio::test(start_paused = true)]
async fn what_was_recorded_replays_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let level = Duration::from_millis(500);
    for policy in [Policy::Fcfs, Policy::Priority { level }, Policy::Fair { level }] {
        record(&file(&folder), 1 << 20, policy).await;
        let replayed = replay(&file(&folder)).unwrap();
        assert_eq!(replayed.groups, 49);
        assert_eq!(replayed.ending, Some(Ending::Shutdown));
        assert!(replayed.steps > 50 && replayed.ahead > 20, "{replayed:?}");
        assert!(replayed.swapped > 0 && replayed.recomputed > 0, "{replayed:?}");
        assert!(replayed.lasted > STEP_TIME * 50, "{replayed:?}");
        let text = fs::read_to_string(file(&folder)).unwrap();
        assert!(text.contains("\"lost\"") && text.contains("\"stops\""), "{text}");
        assert!(text.contains("\"cancel\"") && text.contains("\"rates\""), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_is_as_long_as_it_may_be_and_can_break_off_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    record(&file(&folder), 20_000, Policy::Fcfs).await;
    let text = fs::read(file(&folder)).unwrap();
    assert!(text.len() <= 20_000 && text.len() > 15_000, "{}", text.len());
    assert_eq!(again(&text).unwrap().ending, Some(Ending::Full));
    let first = text.iter().position(|byte| *byte == b'\n').unwrap();
    for length in (0..text.len()).step_by(97) {
        match again(&text[..length]) {
            Ok(replayed) => assert!(length > first && replayed.ending.is_none()),
            Err(ReplayError::Foreign) => assert!(length <= first),
            Err(error) => panic!("{length}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_was_tampered_with_is_told_by_line_and_step() {
    let folder = tempfile::tempdir().unwrap();
    record(&file(&folder), 1 << 20, Policy::Fcfs).await;
    let text = fs::read_to_string(file(&folder)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let changed = |from: &str, to: &str| {
        let at = lines.iter().rposition(|line| line.contains(from)).unwrap();
        let mut lines = lines.clone();
        let line = lines[at].replacen(from, to, 1);
        lines[at] = &line;
        let error = again((lines.join("\n") + "\n").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line {}: ", at + 1)), "{error}");
        error
    };
    assert!(changed("\"blocks_held\":", "\"blocks_held\":1").contains(" differs: "));
    assert!(changed("\"digest\":9", "\"digest\":8").contains("and their blocks are not"));
    assert!(changed("\"copies\":0", "\"copies\":7").contains("7 copied"));
    assert!(changed("\"tokens\":[", "\"tokens\":[3,").contains("that asked for"));
    assert!(changed("\"submit\":{\"at\":", "\"submit\":{\"at\":-").contains("invalid"));
    assert!(changed("{\"plan\"", "{\"plane\"").contains("unknown variant"));
    assert!(changed("\"group\":49", "\"group\":50").contains("comes where"));

    // A line that is missing or comes twice is told, or makes no difference; nothing panics.
    let lines = &lines[..60];
    let text = lines.join("\n") + "\n";
    let mut told = 0;
    for at in 0..lines.len() {
        let without = [&lines[..at], &lines[at + 1..]].concat().join("\n") + "\n";
        told += usize::from(again(without.as_bytes()).is_err());
        let twice = [&lines[..=at], &lines[at..]].concat().join("\n") + "\n";
        told += usize::from(again(twice.as_bytes()).is_err());
    }
    assert!(told > lines.len() * 3 / 2, "{told} of {}", 2 * lines.len());
    // Nor do digits that are other ones.
    let digits = text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit());
    let places: Vec<usize> = digits.map(|(at, _)| at).collect();
    let mut random = Random(1);
    for _ in 0..100 {
        let at = random.one_of(&places);
        let mut bytes = text.clone().into_bytes();
        bytes[at] = b'0' + u8::try_from(random.below(10)).unwrap();
        drop(again(&bytes));
    }
}

#[test]
fn what_is_no_recording_is_told() {
    let told = |text: &str| again(text.as_bytes()).unwrap_err().to_string();
    for text in ["", "\n", "hello\n", "{}\n", "[1]\n", "{\"recording\":{\"kind\":\"other\"}}\n"] {
        assert_eq!(told(text), "it is no recording of arcmesh's scheduler", "{text}");
    }
    let later = "{\"recording\":{\"kind\":\"arcmesh scheduler recording\",\"format\":2}}\n";
    assert!(told(later).contains("format 2"));
    let broken = later.replace('2', "1");
    assert!(told(&broken).starts_with("line 1: missing field"), "{}", told(&broken));
    assert!(matches!(replay(Path::new("/absent")), Err(ReplayError::Io(_))));
}

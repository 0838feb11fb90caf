//! The calls of `files.proto`: this worker's model for others that lack it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use checkpoint::ModelFile;
use proto::files::files_server::Files;
use proto::files::{FileEntry, ListReply, ListRequest, Piece, ReadRequest};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::metrics::WorkerMetrics;
use crate::rank::Rank;

/// Bytes of a piece: large enough for line rate, small beside the windows of a connection.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces that are read ahead of the network.
const PIECES_AHEAD: usize = 4;
/// Workers that fetch at the same time; more wait for them.
const READERS_MAX: usize = 4;

/// What workers without the model call.
#[derive(Debug, Clone)]
pub(super) struct FileCalls {
    rank: Rank,
    readers: Arc<Semaphore>,
}

impl FileCalls {
    pub(super) fn new(rank: Rank) -> Self {
        Self { rank, readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// On a thread that may wait for a disk: the one that drives this server carries a step's frames, too.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&own)).await;
        done.unwrap_or_else(|died| Err(Status::internal(died.to_string())))
    }

    fn files(&self) -> Result<Vec<ModelFile>, Status> {
        self.rank.checkpoint().model_files().map_err(|error| unreadable(&error))
    }

    fn open(&self, request: &ReadRequest) -> Result<File, Status> {
        if request.model_digest != self.rank.digest() {
            return Err(Status::failed_precondition("this worker has another model"));
        }
        // Only what is listed is read, whatever is asked for.
        let files = self.files()?;
        let found = files.iter().find(|file| file.name == request.name);
        let found = found.ok_or_else(|| Status::not_found("the model has no such file"))?;
        let mut file = File::open(&found.path).map_err(|error| unreadable(&error))?;
        file.seek(SeekFrom::Start(request.from)).map_err(|error| unreadable(&error))?;
        Ok(file)
    }
}

#[tonic::async_trait]
impl Files for FileCalls {
    type ReadStream = ReceiverStream<Result<Piece, Status>>;

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let files = self.aside(Self::files).await;
        self.rank.metrics().rpc("list", files.is_ok());
        let entry = |file: ModelFile| FileEntry { name: file.name, bytes: file.bytes };
        Ok(Response::new(ListReply {
            model_digest: self.rank.digest().to_vec(),
            is_folder: self.rank.checkpoint().is_folder(),
            files: files?.into_iter().map(entry).collect(),
        }))
    }

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let asked = request.into_inner();
        let file = self.aside(move |own| own.open(&asked)).await;
        self.rank.metrics().rpc("read", file.is_ok());
        let file = file?;
        let turn = Arc::clone(&self.readers).acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the worker is stopping"))?;
        let (pieces, reader) = mpsc::channel(PIECES_AHEAD);
        let metrics = self.rank.metrics().clone();
        tokio::task::spawn_blocking(move || send(file, &pieces, &metrics, turn));
        Ok(Response::new(ReceiverStream::new(reader)))
    }
}

/// Sends the rest of a file, until it ends or nobody listens.
fn send(
    mut file: File,
    pieces: &mpsc::Sender<Result<Piece, Status>>,
    metrics: &WorkerMetrics,
    _turn: OwnedSemaphorePermit,
) {
    loop {
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let read = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut data);
        let bytes = data.len() as u64;
        let piece = match read {
            Ok(0) => return,
            Ok(_) => Ok(Piece { sha256: Sha256::digest(&data).to_vec(), data }),
            Err(error) => Err(unreadable(&error)),
        };
        let failed = piece.is_err();
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
        metrics.model_bytes("sent", bytes);
    }
}

fn unreadable(error: &io::Error) -> Status {
    Status::internal(format!("this worker cannot read its model: {error}"))
}

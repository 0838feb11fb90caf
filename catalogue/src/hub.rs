//! The Hugging Face hub: which files of a repository a model needs, and where they lie.
//!
//! `hf-hub` gives the addresses and the cache's layout, so that other tools find the files. The
//! bytes come through [our own client](crate::client): it has time limits, goes on where it was cut
//! off, checks sums and trusts the system's certificates, which `hf-hub`'s does not.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::RepoInfo;
use hf_hub::{Cache, CacheRepo, Repo};
use serde::Deserialize;
use url::Url;

use crate::client::{Client, address, refused, text};
use crate::download::{Wanted, download};
use crate::error::CatalogueError;
use crate::progress::Progress;
use crate::settings::{Secret, Settings};
use crate::store::{self, is_inner_path};

/// The branch that is fetched.
const REVISION: &str = "main";
/// Files beside the weights that a model may need, fetched where they are.
const COMPANIONS: &[&str] = &[
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
];
const CONFIG: &str = "config.json";
/// Says which weight file holds which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// The weights, where one file holds them all.
const SINGLE: &str = "model.safetensors";
/// Longest weight index that is read: the largest known has some 10 MiB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The model in `repository`, or one `file` of it, fetched unless it is here.
pub(crate) fn fetch(
    repository: &str,
    file: Option<&str>,
    settings: &Settings,
    progress: &dyn Fn(Progress<'_>),
) -> Result<PathBuf, CatalogueError> {
    let cache = Cache::new(settings.hub.cache.clone());
    let kept = cache.repo(Repo::model(repository.to_owned()));
    if let Some(path) = cached(&kept, file) {
        return Ok(path);
    }
    if settings.hub.offline {
        let what = file
            .map_or_else(|| format!("hf:{repository}"), |file| format!("hf:{repository}:{file}"));
        return Err(CatalogueError::Offline { what });
    }
    let lock = format!("hf--{}", repository.replace('/', "--"));
    let _lock = store::lock(&settings.cache, &lock, progress)?;
    if let Some(path) = cached(&kept, file) {
        return Ok(path);
    }
    let token = settings.hub.token.clone().or_else(|| cache.token().map(Secret));
    let hub = Hub {
        client: Client::new(settings, token, progress),
        endpoint: address(&settings.hub.endpoint)?,
        repository,
        kept,
    };
    match file {
        Some(file) => {
            let (path, commit) = hub.file(file, REVISION)?;
            hub.remember(&commit)?;
            Ok(path)
        }
        None => hub.model(),
    }
}

/// What the cache holds of a repository, where that is all that is needed.
fn cached(kept: &CacheRepo, file: Option<&str>) -> Option<PathBuf> {
    if let Some(file) = file {
        return kept.get(file);
    }
    // Weights are fetched last: where they are, the rest is.
    if let Some(config) = kept.get(CONFIG) {
        let weights = match kept.get(INDEX) {
            Some(index) => shards(&index).ok()?,
            None if kept.get(SINGLE).is_some() => Vec::new(),
            None => vec![only(config.parent()?, "safetensors")?.file_name()?.to_str()?.to_owned()],
        };
        let whole = weights.iter().all(|file| kept.get(file).is_some());
        if whole && let Some(folder) = config.parent() {
            return Some(folder.to_path_buf());
        }
    }
    only(&kept.get(".")?, "gguf")
}

/// The only file in `folder` whose name ends like this.
fn only(folder: &Path, extension: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let mut fitting = files.filter(fits).filter(|path| path.exists());
    fitting.next().filter(|_| fitting.next().is_none())
}

/// One repository of the hub.
struct Hub<'a> {
    client: Client<'a>,
    endpoint: Url,
    repository: &'a str,
    kept: CacheRepo,
}

/// What the hub says about a file.
struct FileHead {
    /// The commit it belongs to.
    commit: String,
    /// Name of its content: a SHA-256, or for small files another sum.
    etag: String,
    /// Its length, where that is said.
    size: Option<u64>,
}

impl Hub<'_> {
    /// Fetches what is needed to run the model.
    fn model(&self) -> Result<PathBuf, CatalogueError> {
        let api = Repo::model(self.repository.to_owned()).api_url();
        let page = self.address(&["api"], &api)?;
        let info: RepoInfo = self.client.page(&page, "application/json")?;
        let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let has = |name: &str| files.iter().any(|file| file == name);
        let weights: Vec<String> = if has(INDEX) {
            shards(&self.file(INDEX, &info.sha)?.0)?
        } else if has(SINGLE) {
            vec![SINGLE.to_owned()]
        } else {
            let at_root = |file: &&String| file.ends_with(".safetensors") && !file.contains('/');
            files.iter().filter(at_root).cloned().collect()
        };
        if weights.is_empty() {
            let gguf = self.only_gguf(&files)?;
            let (path, commit) = self.file(gguf, &info.sha)?;
            self.remember(&commit)?;
            return Ok(path);
        }
        if !has(CONFIG) {
            return Err(self.choice(format!("it has weights, but no {CONFIG}")));
        }
        let (config, commit) = self.file(CONFIG, &info.sha)?;
        for name in COMPANIONS.iter().filter(|name| **name != CONFIG && has(name)) {
            self.file(name, &info.sha)?;
        }
        for name in &weights {
            self.file(name, &info.sha)?;
        }
        self.remember(&commit)?;
        Ok(config.parent().unwrap_or(&config).to_path_buf())
    }

    fn only_gguf<'f>(&self, files: &'f [String]) -> Result<&'f str, CatalogueError> {
        let ggufs: Vec<&str> =
            files.iter().map(String::as_str).filter(|file| file.ends_with(".gguf")).collect();
        match ggufs[..] {
            [gguf] => Ok(gguf),
            [] => Err(self.choice("it has neither safetensors nor GGUF files".to_owned())),
            _ => {
                let list = ggufs.join(", ");
                let repository = self.repository;
                Err(self.choice(format!("choose a file with hf:{repository}:FILE among {list}")))
            }
        }
    }

    /// Fetches one file unless it is here; says where it lies, and of which commit it is.
    fn file(&self, name: &str, revision: &str) -> Result<(PathBuf, String), CatalogueError> {
        if !is_inner_path(name) {
            return Err(self.choice(format!("'{name}' is no name for a file")));
        }
        let path = format!("{}/resolve/{revision}/{name}", self.repository);
        let url = self.address(&[], &path)?;
        let head = self.head(&url, name)?;
        let blob = self.kept.blob_path(&head.etag);
        let here = match head.size {
            Some(size) => store::is_whole(&blob, size),
            None => blob.is_file(),
        };
        if !here {
            let is_sum = head.etag.len() == 64 && head.etag.bytes().all(|b| b.is_ascii_hexdigit());
            let sum = head.etag.to_ascii_lowercase();
            let sha256 = is_sum.then_some(sum.as_str());
            let wanted = Wanted { name, url: &url, size: head.size, sha256 };
            download(&self.client, &wanted, &blob)?;
        }
        let pointer = self.kept.pointer_path(&head.commit).join(name);
        link(&blob, &pointer, name.split('/').count())?;
        Ok((pointer, head.commit))
    }

    /// What the hub says about a file. Its words become names of files, so they are checked.
    fn head(&self, url: &Url, name: &str) -> Result<FileHead, CatalogueError> {
        let headers = self.client.head(url)?;
        let odd = |what: &str| refused(name, &format!("the hub's answer has no usable {what}"));
        let etag = text(&headers, "x-linked-etag").or_else(|| text(&headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").replace('"', ""));
        let commit = text(&headers, "x-repo-commit").map(str::to_owned);
        let size = text(&headers, "x-linked-size").or_else(|| text(&headers, "content-length"));
        Ok(FileHead {
            etag: etag.filter(|etag| is_sum(etag)).ok_or_else(|| odd("ETag"))?,
            commit: commit.filter(|commit| is_sum(commit)).ok_or_else(|| odd("X-Repo-Commit"))?,
            size: size.and_then(|size| size.parse().ok()),
        })
    }

    /// From now on `main` is this commit.
    fn remember(&self, commit: &str) -> Result<(), CatalogueError> {
        let folder = self.kept.pointer_path(commit);
        self.kept.create_ref(commit).map_err(CatalogueError::disk(&folder))
    }

    /// The address of a path of the hub; each part is escaped.
    fn address(&self, before: &[&str], path: &str) -> Result<Url, CatalogueError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| refused(self.endpoint.as_str(), "that is no address of a hub"))?
            .pop_if_empty()
            .extend(before)
            .extend(path.split('/'));
        Ok(url)
    }

    fn choice(&self, reason: String) -> CatalogueError {
        CatalogueError::Choice { repository: format!("hf:{}", self.repository), reason }
    }
}

/// The weight files that an index names.
fn shards(index: &Path) -> Result<Vec<String>, CatalogueError> {
    /// A weight index, as far as we read it.
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let size = fs::metadata(index).map_err(CatalogueError::disk(index))?.len();
    if size > INDEX_BYTES_MAX {
        return Err(CatalogueError::damaged(INDEX, format!("it has {size} bytes")));
    }
    let bytes = fs::read(index).map_err(CatalogueError::disk(index))?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| CatalogueError::damaged(INDEX, error.to_string()))?;
    let files: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| !is_inner_path(file)) {
        Some(file) => Err(CatalogueError::damaged(INDEX, format!("'{file}' is no file name"))),
        None => Ok(files.into_iter().collect()),
    }
}

/// Lets `pointer`, which lies `depth` folders below its commit's, lead to `blob`.
fn link(blob: &Path, pointer: &Path, depth: usize) -> Result<(), CatalogueError> {
    if pointer.exists() {
        return Ok(());
    }
    store::make_folder_of(pointer)?;
    store::remove(pointer)?; // A link that leads nowhere.
    // snapshots/COMMIT/…/FILE → blobs/ETAG
    let mut relative: PathBuf = std::iter::repeat_n("..", depth + 1).collect();
    relative.push("blobs");
    relative.extend(blob.file_name());
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(relative, pointer);
    #[cfg(not(unix))]
    let linked = fs::hard_link(blob, pointer);
    linked.map_err(CatalogueError::disk(pointer))
}

/// Whether a word of the hub can be the name of a file.
fn is_sum(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

// SPDX-License-Identifier: Apache-2.0
//! Files of a sandbox.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use reqwest::Method;
use serde_json::{json, Map, Value};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, Instant, Sleep};

use crate::call::{unique, Call, Trouble, PATIENCE};
use crate::content::Content;
use crate::document::{integer, list};
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::Sandbox;
use crate::types::FileInfo;

const OCTETS: &str = "application/octet-stream";

/// The files of a sandbox: [`Sandbox::files`] gives it. Paths are absolute ones in the sandbox.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// # let sandbox = microsandbox::Sandbox::create("python").await?;
/// use microsandbox::WriteOptions;
///
/// let files = sandbox.files();
/// files.write_with("/tmp/rust/table.csv", "a,b\n1,2\n", WriteOptions::new().parents().mode(0o600)).await?;
/// assert_eq!(files.read_text("/tmp/rust/table.csv").await?, "a,b\n1,2\n");
///
/// files.write("/tmp/rust/picture", [0xff, 0xd8].as_slice()).await?;
/// assert_eq!(files.read_text("/tmp/rust/picture").await.unwrap_err().hint(), "read its bytes with read()");
/// files.remove_all("/tmp/rust").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    sandbox: &'a Sandbox,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct WriteOptions {
    mode: Option<u32>,
    parents: bool,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl WriteOptions {
    /// As usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// Permissions of a new file; 0o644 unless said.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Directories that are missing above it are made.
    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    /// Its owner and group.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.uid = Some(uid);
        self.gid = Some(gid);
        self
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

impl<'a> Files<'a> {
    pub(crate) fn of(sandbox: &'a Sandbox) -> Self {
        Self { sandbox }
    }

    fn call(&self, method: Method, rest: &[&str], path: &str) -> Call {
        let rest = [&["files"], rest].concat();
        self.sandbox.call(method, &rest).query("path", path)
    }

    fn order(&self, rest: &str, document: Map<String, Value>) -> Call {
        self.sandbox.call(Method::POST, &["files", rest]).document(document.into())
    }

    async fn done(&self, call: Call) -> Result<()> {
        self.sandbox.client().send(call).await.map(drop)
    }

    fn reading(&self, path: &str, offset: Option<u64>, length: Option<u64>) -> Call {
        let call = self.call(Method::GET, &["content"], path);
        call.optional("offset", offset).optional("length", length)
    }

    /// All bytes of a file.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        let reply = self.sandbox.client().send(self.reading(path, None, None)).await?;
        Ok(reply.body)
    }

    /// From an offset on, so many at most.
    pub async fn read_range(&self, path: &str, offset: u64, length: Option<u64>) -> Result<Bytes> {
        let call = self.reading(path, Some(offset), length);
        Ok(self.sandbox.client().send(call).await?.body)
    }

    /// A file that is text, as UTF-8.
    pub async fn read_text(&self, path: &str) -> Result<String> {
        let bytes = self.read(path).await?;
        String::from_utf8(bytes.to_vec()).map_err(|error| {
            Error::invalid(format!("the file '{path}' is no text in UTF-8"))
                .with_hint("read its bytes with read()")
                .with_source(error)
        })
    }

    /// The bytes of a file as they come, for those that are large.
    pub async fn read_pieces(&self, path: &str) -> Result<Pieces> {
        self.pieces(|| self.reading(path, None, None)).await
    }

    async fn pieces(&self, call: impl Fn() -> Call) -> Result<Pieces> {
        let client = self.sandbox.client();
        let response = client.open(call(), None).await?;
        Ok(Pieces {
            bytes: Box::pin(response.bytes_stream()),
            silence: Box::pin(sleep(PATIENCE)),
            waits: false,
            over: false,
            call: call().name(),
            server: client.settings().text.clone(),
        })
    }

    /// All of it or nothing: what was there stays until then. Gives how many bytes it is.
    pub async fn write(&self, path: &str, content: impl Into<Content>) -> Result<u64> {
        self.write_with(path, content, WriteOptions::new()).await
    }

    /// The same, and how.
    pub async fn write_with(&self, path: &str, content: impl Into<Content>, options: WriteOptions) -> Result<u64> {
        let call = self
            .call(Method::PUT, &["content"], path)
            .optional("mode", options.mode.map(octal))
            .optional("parents", options.parents.then(|| true))
            .optional("uid", options.uid)
            .optional("gid", options.gid)
            .content(content.into(), OCTETS)
            .repeatable(true);
        let reply = self.sandbox.client().send(call).await?;
        reply.read(|document| integer(document, "bytes"))
    }

    /// What is in a directory, by name.
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        let reply = self.sandbox.client().send(self.call(Method::GET, &[], path)).await?;
        reply.read(|document| list(document, "entries", FileInfo::of))
    }

    /// What a path is; a symbolic link, when it is one.
    pub async fn stat(&self, path: &str) -> Result<FileInfo> {
        let call = self.call(Method::GET, &["stat"], path);
        self.sandbox.client().send(call).await?.read(FileInfo::of)
    }

    /// The same of what symbolic links lead to.
    pub async fn stat_followed(&self, path: &str) -> Result<FileInfo> {
        let call = self.call(Method::GET, &["stat"], path).query("follow", true);
        self.sandbox.client().send(call).await?.read(FileInfo::of)
    }

    /// Whether there is something.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        match self.stat_followed(path).await {
            Ok(_) => Ok(true),
            // Which is an error when it is the sandbox that is not there.
            Err(error) if error.kind() == ErrorKind::NotFound => self.sandbox.refresh().await.map(|_| false),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, or an empty directory.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.done(self.call(Method::DELETE, &[], path)).await
    }

    /// Removes a directory with all that is in it.
    pub async fn remove_all(&self, path: &str) -> Result<()> {
        self.done(self.call(Method::DELETE, &[], path).query("recursive", true)).await
    }

    async fn make(&self, path: &str, parents: bool, mode: Option<u32>) -> Result<()> {
        let mut document = Map::new();
        document.insert("path".into(), json!(path));
        document.insert("parents".into(), json!(parents));
        if let Some(mode) = mode {
            document.insert("mode".into(), json!(octal(mode)));
        }
        self.done(self.order("directories", document).repeatable(parents)).await
    }

    /// Makes a directory; 0o755 are its permissions unless said.
    pub async fn make_directory(&self, path: &str, mode: Option<u32>) -> Result<()> {
        self.make(path, false, mode).await
    }

    /// The same, and those that are missing above it; one that is there is fine.
    pub async fn make_directories(&self, path: &str, mode: Option<u32>) -> Result<()> {
        self.make(path, true, mode).await
    }

    async fn move_to(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        let mut document = Map::new();
        document.insert("from".into(), json!(from));
        document.insert("to".into(), json!(to));
        document.insert("replace".into(), json!(replace));
        self.done(self.order("move", document)).await
    }

    /// Moves a file or a directory to where nothing is.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.move_to(from, to, false).await
    }

    /// The same, to where something may be.
    pub async fn replace(&self, from: &str, to: &str) -> Result<()> {
        self.move_to(from, to, true).await
    }

    /// A file of this machine, piece by piece, with its permissions unless said. Gives how many bytes it is.
    pub async fn upload(&self, local: impl AsRef<Path>, remote: &str, mut options: WriteOptions) -> Result<u64> {
        let local = local.as_ref();
        let known = fs::metadata(local).await;
        let known = known.map_err(|error| Error::local(format!("cannot read '{}'", local.display()), error))?;
        if options.mode.is_none() {
            options.mode = permissions(&known);
        }
        self.write_with(remote, Content::file(local.into()), options).await
    }

    /// Into a file of this machine, which is there when all of it has come. Gives how many bytes it is.
    pub async fn download(&self, remote: &str, local: impl AsRef<Path>) -> Result<u64> {
        let local = local.as_ref();
        let mut name = local.as_os_str().to_owned();
        name.push(format!(".{}.part", &unique()[..8]));
        let draft = Draft(name.into());
        let size = self.save(remote, &draft.0).await?;
        fs::rename(&draft.0, local)
            .await
            .map_err(|error| Error::local(format!("cannot write '{}'", local.display()), error))?;
        Ok(size)
    }

    async fn save(&self, remote: &str, local: &Path) -> Result<u64> {
        let failed = |error| Error::local(format!("cannot write '{}'", local.display()), error);
        let mut pieces = self.read_pieces(remote).await?;
        let mut file = fs::File::create(local).await.map_err(failed)?;
        let mut size = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            file.write_all(&piece).await.map_err(failed)?;
            size += piece.len() as u64;
        }
        file.flush().await.map_err(failed)?;
        Ok(size)
    }

    /// A directory as a tar archive. A stranger made it: unpack it with care.
    pub async fn pack(&self, path: &str) -> Result<Pieces> {
        self.pieces(|| self.call(Method::GET, &["tar"], path)).await
    }

    /// A tar archive into a directory, which is made with those above it where `parents` says so. Gives how many entries it has.
    pub async fn unpack(&self, path: &str, archive: impl Into<Content>, parents: bool) -> Result<u64> {
        let call = self
            .call(Method::PUT, &["tar"], path)
            .optional("parents", parents.then(|| true))
            .content(archive.into(), "application/x-tar")
            .repeatable(true);
        let reply = self.sandbox.client().send(call).await?;
        reply.read(|document| integer(document, "entries"))
    }
}

#[cfg(unix)]
fn permissions(known: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    Some(known.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn permissions(_: &std::fs::Metadata) -> Option<u32> {
    None
}

/// A file that is removed unless it was renamed.
struct Draft(std::path::PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes of a sandbox, as they come. When this is dropped before its end, its connection is closed.
pub struct Pieces {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    /// When nothing has come for too long.
    silence: Pin<Box<Sleep>>,
    waits: bool,
    over: bool,
    call: String,
    server: String,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pieces of {}", self.call)
    }
}

impl Pieces {
    /// The next ones; None at the end. An error is the last that comes.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        NextPiece(self).await
    }

    /// All of them.
    pub async fn collect(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let trouble = match this.bytes.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => {
                this.waits = false;
                return Poll::Ready(Some(Ok(piece)));
            }
            Poll::Ready(None) => {
                this.over = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => Trouble::Http(error),
            Poll::Pending => {
                // From when it is waited for: whoever reads may take time.
                if !this.waits {
                    this.waits = true;
                    this.silence.as_mut().reset(Instant::now() + PATIENCE);
                }
                if this.silence.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                Trouble::Silence(PATIENCE)
            }
        };
        this.over = true;
        Poll::Ready(Some(Err(trouble.into_error(&this.call, &this.server))))
    }
}

struct NextPiece<'a>(&'a mut Pieces);

impl Future for NextPiece<'_> {
    type Output = Option<Result<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.0).poll_next(context)
    }
}

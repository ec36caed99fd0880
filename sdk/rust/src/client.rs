// SPDX-License-Identifier: Apache-2.0
//! Connections to a server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use tokio::time::{sleep, timeout};

use crate::call::{Attempts, Body, Call, Reply, Retries, Trouble};
use crate::content::Sent;
use crate::document::text;
use crate::error::{Error, Result};
use crate::list::List;
use crate::sandbox::Sandbox;
use crate::settings::Settings;
use crate::types::ServerInfo;

const CONNECT: Duration = Duration::from_secs(10);
/// The server keeps idle connections for 75 s.
const IDLE: Duration = Duration::from_secs(30);

/// A server, and the connections to it, which all clones and all sandboxes made with it share. They close when the last one is dropped.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> microsandbox::Result<()> {
/// let client = microsandbox::Client::new()?;
/// println!("{}", client.server().await?.version);
/// for sandbox in client.list().label("team", "a").all().await? {
///     println!("{} is {}", sandbox.name, sandbox.state);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    namespace: Option<String>,
}

struct Inner {
    http: reqwest::Client,
    settings: Settings,
    retries: Retries,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server_url", &self.inner.settings.text)
            .field("namespace", &self.namespace)
            .finish()
    }
}

/// What a [`Client`] is to be.
#[derive(Clone, Default)]
pub struct ClientBuilder {
    server_url: Option<String>,
    api_key: Option<String>,
    namespace: Option<String>,
    attempts: Option<u32>,
}

impl ClientBuilder {
    /// Where the server is: MSB_SERVER_URL, or else `http://127.0.0.1:5555`, unless said.
    pub fn server_url(mut self, url: impl Into<String>) -> Self {
        self.server_url = Some(url.into());
        self
    }

    /// What `msb server keygen` printed; MSB_API_KEY unless said.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Where sandboxes are: that of the key, or "default", unless said.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How often a request is sent at most that was not answered, where that is safe; 5 unless said.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Connects to nothing yet. Fails when the address or the key cannot be.
    pub fn build(self) -> Result<Client> {
        Client::of(Settings::of(self.server_url, self.api_key)?, self.attempts, self.namespace)
    }
}

impl Client {
    /// Of the server that MSB_SERVER_URL and MSB_API_KEY say.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// With settings that count before those of the environment.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn of(settings: Settings, attempts: Option<u32>, namespace: Option<String>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(IDLE) // what a process writes may be waited for without an end
            .user_agent(concat!("microsandbox-rust/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::invalid(format!("no connection can be made: {error}")).with_source(error))?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                settings,
                retries: Retries { attempts: attempts.unwrap_or(5).max(1), longest: Duration::from_secs(10) },
            }),
            namespace,
        })
    }

    /// The same connections, for another namespace; of "*", [`list`](Client::list) gives the sandboxes of all that the key may see.
    pub fn namespace(&self, namespace: impl Into<String>) -> Self {
        Self { inner: self.inner.clone(), namespace: Some(namespace.into()) }
    }

    /// What the server says when it is well. Needs no key.
    pub async fn health(&self) -> Result<String> {
        let reply = self.send(Call::new(Method::GET, &["v1", "health"])).await?;
        reply.read(|document| text(document, "message"))
    }

    /// What the server and the key allow.
    pub async fn server(&self) -> Result<ServerInfo> {
        let reply = self.send(Call::new(Method::GET, &["v1", "server"])).await?;
        reply.read(ServerInfo::of)
    }

    /// A sandbox that is there. It goes on when what this gives is dropped.
    pub async fn connect(&self, name: &str) -> Result<Sandbox> {
        Sandbox::found(self.clone(), name).await
    }

    /// Which sandboxes there are.
    pub fn list(&self) -> List {
        List::of(self.clone())
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn namespace_given(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The whole answer of a request that was done.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply> {
        let mut attempts = Attempts::new(&call, self.inner.retries);
        loop {
            let outcome = match self.begin(&call).await? {
                Ok(response) => whole(response, call.patience).await,
                Err(trouble) => Err(trouble),
            };
            match attempts.pause(&outcome) {
                Some(pause) => sleep(pause).await,
                None => return self.judge(&call, &attempts, outcome),
            }
        }
    }

    /// A good answer whose body is to be read.
    pub(crate) async fn open(&self, call: Call, retries: Option<Retries>) -> Result<Response> {
        let mut attempts = Attempts::new(&call, retries.unwrap_or(self.inner.retries));
        loop {
            let outcome = match self.begin(&call).await? {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => whole(response, call.patience).await,
                Err(trouble) => Err(trouble),
            };
            match attempts.pause(&outcome) {
                Some(pause) => sleep(pause).await,
                None => {
                    let reply = self.judge(&call, &attempts, outcome)?;
                    return Err(reply.not_understood());
                }
            }
        }
    }

    fn judge(&self, call: &Call, attempts: &Attempts, outcome: Result<Reply, Trouble>) -> Result<Reply> {
        match outcome {
            Err(trouble) => Err(self.error_of(trouble, call)),
            // One before has done it, then.
            Ok(reply) if reply.status == 404 && attempts.answer_lost && call.method == Method::DELETE => Ok(reply),
            Ok(reply) if reply.status >= 400 => Err(reply.refusal()),
            Ok(reply) if reply.status >= 300 => Err(reply.not_understood()),
            Ok(reply) => Ok(reply),
        }
    }

    pub(crate) fn error_of(&self, trouble: Trouble, call: &Call) -> Error {
        trouble.into_error(&call.name(), &self.inner.settings.text)
    }

    /// Sends it, until the head of an answer is there. The outer error is one that no attempt can change.
    async fn begin(&self, call: &Call) -> Result<Result<Response, Trouble>> {
        let settings = &self.inner.settings;
        let mut request = self.inner.http.request(call.method.clone(), call.url(&settings.url)?);
        if let Some(authorization) = &settings.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let mut sent = Sent::default();
        if let Some(bytes) = call.document_bytes()? {
            request = request.header(CONTENT_TYPE, "application/json").body(bytes);
        } else if let Body::Content(content, kind) = &call.body {
            let (body, counted) =
                content.body().await.map_err(|error| Error::local("cannot read what is to be written", error))?;
            request = request.header(CONTENT_TYPE, *kind).body(body);
            sent = counted;
        }
        Ok(patiently(request.send(), call.patience, &sent).await)
    }
}

/// Waits as long as something goes on.
async fn patiently<T>(
    work: impl Future<Output = reqwest::Result<T>>,
    patience: Option<Duration>,
    sent: &Sent,
) -> Result<T, Trouble> {
    let patience = match patience {
        None => return work.await.map_err(Trouble::Http),
        Some(patience) => patience,
    };
    let mut work = Box::pin(work);
    let mut allowed = patience + sent.allowance();
    loop {
        let before = sent.bytes();
        match timeout(allowed, work.as_mut()).await {
            Ok(done) => return done.map_err(Trouble::Http),
            Err(_) if sent.bytes() == before => return Err(Trouble::Silence(allowed)),
            Err(_) => allowed = patience,
        }
    }
}

async fn whole(mut response: Response, patience: Option<Duration>) -> Result<Reply, Trouble> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = BytesMut::new();
    let nothing = Sent::default();
    while let Some(piece) = patiently(response.chunk(), patience, &nothing).await? {
        body.extend_from_slice(&piece);
    }
    let body = body.freeze();
    Ok(Reply { status, headers, body })
}

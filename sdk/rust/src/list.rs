// SPDX-License-Identifier: Apache-2.0
//! Which sandboxes there are.

use reqwest::Method;

use crate::call::Call;
use crate::client::Client;
use crate::document::{list, optional_text};
use crate::error::Result;
use crate::types::{SandboxInfo, SandboxState};

const PAGE: u32 = 100;

/// Which sandboxes are wanted: [`Client::list`] gives it.
#[derive(Debug)]
#[must_use = "all() asks the server"]
pub struct List {
    client: Client,
    labels: Vec<String>,
    state: Option<SandboxState>,
}

impl List {
    pub(crate) fn of(client: Client) -> Self {
        Self { client, labels: Vec::new(), state: None }
    }

    /// Only those that have this label, and those said before.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push(format!("{name}={value}"));
        self
    }

    /// Only those that are so.
    pub fn state(mut self, state: SandboxState) -> Self {
        self.state = Some(state);
        self
    }

    /// All of them, by namespace and name.
    pub async fn all(self) -> Result<Vec<SandboxInfo>> {
        let label = Some(self.labels.join(",")).filter(|label| !label.is_empty());
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let call = Call::new(Method::GET, &["v1", "sandboxes"])
                .optional("namespace", self.client.namespace_given())
                .optional("label", label.as_ref())
                .optional("state", self.state.as_ref())
                .query("limit", PAGE)
                .optional("cursor", cursor.as_ref());
            let (page, next) = self.client.send(call).await?.read(|document| {
                let page = list(document, "sandboxes", SandboxInfo::of)?;
                Ok((page, optional_text(document, "next_cursor")?))
            })?;
            found.extend(page);
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Where the server is, and the key for it.

use std::env;

use reqwest::header::HeaderValue;
use reqwest::Url;

use crate::error::{Error, Result};

const DEFAULT_URL: &str = "http://127.0.0.1:5555";

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) text: String, // the address, without a slash at its end
    pub(crate) url: Url,
    pub(crate) authorization: Option<HeaderValue>,
}

fn given(argument: Option<String>, variable: &str) -> Option<String> {
    argument.filter(|word| !word.is_empty()).or_else(|| env::var(variable).ok()).filter(|word| !word.is_empty())
}

impl Settings {
    /// Arguments count, then MSB_SERVER_URL and MSB_API_KEY; what is empty is as none.
    pub(crate) fn of(server_url: Option<String>, api_key: Option<String>) -> Result<Self> {
        let text = given(server_url, "MSB_SERVER_URL").unwrap_or_else(|| DEFAULT_URL.into());
        let text = text.trim_end_matches('/').to_string();
        let url = match Url::parse(&text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => url,
            _ => {
                return Err(Error::invalid(format!("'{text}' is no address of a server"))
                    .with_hint(format!("give one as server_url or MSB_SERVER_URL, like {DEFAULT_URL}")))
            }
        };
        if url.scheme() == "https" && !cfg!(any(feature = "rustls-tls", feature = "native-tls")) {
            return Err(Error::invalid(format!("'{text}' needs TLS, which this build has not"))
                .with_hint("build the crate with its feature rustls-tls or native-tls"));
        }
        let key = given(api_key, "MSB_API_KEY").map(|key| key.trim().to_string());
        let authorization = match key.filter(|key| !key.is_empty()) {
            None => None,
            Some(key) if key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| Error::invalid("the key has characters that no key has"))?;
                value.set_sensitive(true);
                Some(value)
            }
            Some(_) => {
                return Err(Error::invalid("the key has characters that no key has")
                    .with_hint("give what `msb server keygen` printed as api_key or MSB_API_KEY"))
            }
        };
        Ok(Self { text, url, authorization })
    }

    /// Where the server shows a sandbox's port, as an origin of its own.
    pub(crate) fn app_url(&self, name: &str, namespace: &str, port: u16) -> String {
        let space = match namespace {
            "default" => String::new(),
            other => format!(".{other}"),
        };
        let at = self.url.port_or_known_default().unwrap_or(80);
        format!("{}://{port}-{name}{space}.localhost:{at}/", self.url.scheme())
    }
}

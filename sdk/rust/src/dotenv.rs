// SPDX-License-Identifier: Apache-2.0
//! As 0.2 did: a file `.env` here or above may say what the environment does not. The environment itself stays as it is.

use std::env;
use std::fs;

#[derive(Default)]
pub(crate) struct Known {
    pub(crate) server_url: Option<String>,
    pub(crate) api_key: Option<String>,
}

/// Nothing where MSB_API_KEY is there already.
pub(crate) fn known() -> Known {
    if env::var_os("MSB_API_KEY").is_some() {
        return Known::default();
    }
    let here = env::current_dir().unwrap_or_default();
    let text = here.ancestors().find_map(|directory| fs::read_to_string(directory.join(".env")).ok());
    let mut known = of(text.as_deref().unwrap_or_default());
    if env::var_os("MSB_SERVER_URL").is_some() {
        known.server_url = None;
    }
    known
}

fn of(text: &str) -> Known {
    let mut known = Known::default();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if let Some((name, value)) = line.split_once('=') {
            match name.trim() {
                "MSB_SERVER_URL" => known.server_url = Some(unquoted(value)),
                "MSB_API_KEY" => known.api_key = Some(unquoted(value)),
                _ => {}
            }
        }
    }
    known
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner.into();
        }
    }
    value.split(" #").next().unwrap_or_default().trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_variables_are_read_as_shells_write_them() {
        let known =
            of("# a comment\nOTHER=1\nexport MSB_API_KEY='msb_a_b' # kept\nMSB_SERVER_URL = http://host:1 # here\n");
        assert_eq!(known.api_key.as_deref(), Some("msb_a_b"));
        assert_eq!(known.server_url.as_deref(), Some("http://host:1"));
    }
}

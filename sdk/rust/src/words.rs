// SPDX-License-Identifier: Apache-2.0
//! Words of the server, as enumerations that know when a newer server has another one.

macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// Another one, of a newer server.
            Other(String),
        }

        impl $name {
            /// The server's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }

            #[allow(dead_code)] // not all of them are read from documents
            pub(crate) fn of(document: &serde_json::Value, name: &str) -> crate::document::Parsed<Self> {
                Ok(Self::from(crate::document::text(document, name)?.as_str()))
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.into()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

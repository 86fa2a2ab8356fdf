//! Keys and ranges as the command line gives them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};
use revtree::KeyRange;
use std::ffi::OsString;

use crate::failure::{Failure, Result};

/// How keys are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum KeyFormat {
    /// The bytes of the argument.
    Text,
    /// Two hexadecimal digits for each byte.
    Hex,
    /// Base64 with padding.
    Base64,
}

impl KeyFormat {
    /// The key that `argument` stands for.
    pub(crate) fn parse(self, argument: &OsStr) -> Result<Vec<u8>> {
        let bytes = argument.as_bytes();
        let wrong = |name: &str, why: String| {
            Failure::Usage(format!("{} is no {name} key: {why}", argument.display()))
        };
        match self {
            KeyFormat::Text => Ok(bytes.to_vec()),
            KeyFormat::Hex => from_hex(bytes).map_err(|why| wrong("hex", why)),
            KeyFormat::Base64 => BASE64_STANDARD
                .decode(bytes)
                .map_err(|error| wrong("base64", error.to_string())),
        }
    }
}

fn from_hex(digits: &[u8]) -> std::result::Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} digits, an even number is needed", digits.len()));
    }
    let digit = |byte: u8| {
        let digit = char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok());
        digit.ok_or_else(|| format!("{:?} is no digit", char::from(byte)))
    };
    digits
        .chunks(2)
        .map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// KEY and END of a command that reads or deletes a range.
#[derive(Args)]
pub(crate) struct RangeArguments {
    /// The key, or the start of the range with END.
    key: Option<OsString>,
    /// Where the range ends, itself not included; empty: all keys from KEY on.
    end: Option<OsString>,
    /// All keys that begin with this.
    #[arg(long, value_name = "PREFIX", conflicts_with = "key")]
    prefix: Option<OsString>,
}

impl RangeArguments {
    /// The range that is asked for; `None` when nothing was said.
    pub(crate) fn range(&self, format: KeyFormat) -> Result<Option<KeyRange>> {
        if let Some(prefix) = &self.prefix {
            return Ok(Some(KeyRange::prefix(format.parse(prefix)?)));
        }
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let key = format.parse(key)?;
        let end = self.end.as_ref().map(|end| format.parse(end)).transpose()?;
        Ok(Some(KeyRange::from_etcd(&key, end.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use super::KeyFormat;
    use std::ffi::OsStr;

    /// Goal: each format reads any bytes, and refuses what it cannot read.
    #[test]
    fn formats_read_any_bytes() {
        let check = |format: KeyFormat, text: &str, expected: Option<&[u8]>| {
            let found = format.parse(OsStr::new(text)).ok();
            assert_eq!(found.as_deref(), expected, "{format:?} {text}");
        };
        check(KeyFormat::Text, "a\\x00", Some(b"a\\x00"));
        check(KeyFormat::Hex, "00fF7a", Some(b"\0\xffz"));
        check(KeyFormat::Hex, "", Some(b""));
        check(KeyFormat::Hex, "abc", None);
        check(KeyFormat::Hex, "+1", None);
        check(KeyFormat::Base64, "AP96", Some(b"\0\xffz"));
        check(KeyFormat::Base64, "AA==", Some(b"\0"));
        check(KeyFormat::Base64, "AA", None);
        check(KeyFormat::Base64, "$", None);
    }
}

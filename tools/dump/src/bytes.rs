//! Keys and values as people and as programs read them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write;

/// `bytes` as they are when they are text on one line, else escaped: `\n`, `\t`, `\r`, `\\`, `\xNN`.
/// What is text is not touched, so text that looks like an escape is not told apart from one: programs
/// read JSON.
///
/// ```
/// use revtree_dump::readable;
/// assert_eq!(readable("größe \\ 1".as_bytes()), "größe \\ 1");
/// assert_eq!(readable(b"a\\\0\xff\n"), "a\\\\\\x00\\xff\\n");
/// ```
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => escaped(bytes),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\\' => out.push_str("\\\\"),
                // Control characters could drive the terminal; they are one or two bytes long.
                control if control.is_control() => {
                    let mut buf = [0; 4];
                    escape(control.encode_utf8(&mut buf).as_bytes(), &mut out);
                }
                other => out.push(other),
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    out
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        write!(out, "\\x{byte:02x}").expect("a string takes all");
    }
}

/// `bytes` in the standard base64 alphabet with padding, as etcd's JSON has them.
///
/// ```
/// assert_eq!(revtree_dump::base64(b"foo1"), "Zm9vMQ==");
/// ```
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
